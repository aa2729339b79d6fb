from typing import Annotated

import numpy as np
import pytest
import torch

from rml_core.config.names import Tagged
from rml_core.config.section import Section, parse
from rml_core.config.target import IGNORED
from rml_core.loss import LATER, LOSSES, Fitted, LossSection


class Holder(Section):
    loss: Annotated[LossSection, Tagged("loss function", "function", LOSSES, LATER)]


def _section(**keys):
    return parse(Holder, {"loss": keys}, "").loss


def _built(name, source, shape, target, **keys):
    return _section(function=name, **keys).build(Fitted(source), shape, target)


def _numbers(*shape, seed=0, scale=2.0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape) * scale)


def _some_labels(classes, *shape, ignored=False, seed=1):
    low = IGNORED if ignored else 0
    return torch.tensor(np.random.default_rng(seed).integers(low, classes, shape))


def _as_source(logits, source):
    if source == "sigmoid":
        return logits.sigmoid()
    if source in ("softmax", "probabilities"):
        return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
    return logits.log_softmax(1) if source == "log_softmax" else logits


@pytest.fixture(scope="session")
def section():
    """A loss section from its keys, parsed as a run file's."""
    return _section


@pytest.fixture(scope="session")
def built():
    """The objective of a loss: name, source, (C, *spatial), target, keys."""
    return _built


@pytest.fixture(scope="session")
def numbers():
    """A shape's normal numbers, float64."""
    return _numbers


@pytest.fixture(scope="session")
def some_labels():
    """Class indices below `classes` in a shape; `IGNORED` among them where `ignored`."""
    return _some_labels


@pytest.fixture(scope="session")
def as_source():
    """What a network gives whose last activation is `source`, of its logits."""
    return _as_source
