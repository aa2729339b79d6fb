from typing import Annotated

import pytest

from rml_core.config.names import Tagged
from rml_core.config.section import Section, parse
from rml_core.loss import LATER, LOSSES, LossSection


class Holder(Section):
    loss: Annotated[LossSection, Tagged("loss function", "function", LOSSES, LATER)]


@pytest.fixture
def section():
    """A loss section from its keys, parsed as a run file's."""
    return lambda **keys: parse(Holder, {"loss": keys}, "").loss
