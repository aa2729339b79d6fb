"""What Prefect's server makes of templates in a run's parameters: text, or an error, and never code that runs."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.hydration import HydrationContext, HydrationError, hydrate

from flows.submission import Given, parameters_of
from rml_core.config.problem import Refused

# As the server makes it for a run of a deployment.
AS_THE_SERVER = HydrationContext(
    raise_on_error=True, render_jinja=True, render_workspace_variables=True, workspace_variables={"known": "value"}
)
ESCAPES = [
    "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
    "{{ lipsum.__globals__['os'].popen('touch FILE').read() }}",
    "{{ self.__init__.__globals__.__builtins__.open('FILE', 'w') }}",
    "{{ namespace.__init__.__globals__['__builtins__']['__import__']('os').system('touch FILE') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{% set x = joiner.__init__.__globals__ %}{{ x.os.system('touch FILE') }}",
    "{% import 'os' as os %}{{ os.system('touch FILE') }}",
    "{% include '/etc/passwd' %}",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_of_prefect_leads_to_no_code_and_no_file(escape: str, tmp_path: Path):
    template = escape.replace("FILE", str(tmp_path / "made"))
    given = {"neural_network": {"outfile": {"__prefect_kind": "jinja", "template": template}}}
    made = ""
    with suppress(HydrationError):
        made = str(hydrate(given, AS_THE_SERVER)["neural_network"]["outfile"])
    assert "class" not in made
    assert "root:" not in made
    assert list(tmp_path.iterdir()) == []


def test_a_template_of_prefect_is_rendered_with_nothing_of_the_server_in_it():
    template = "{{ 1 + 1 }}{{ os }}{{ request }}{{ config }}{{ flow_run }}"
    assert hydrate({"a": {"__prefect_kind": "jinja", "template": template}}, AS_THE_SERVER) == {"a": "2"}


def test_a_template_that_is_plain_text_stays_as_it_is():
    given = {"neural_network": {"outfile": "{{ cycler }}", "layers": [{"name": "{% include 'x' %}"}]}}
    assert hydrate(copy.deepcopy(given), AS_THE_SERVER) == given


def test_a_variable_of_the_server_is_what_it_holds_or_an_error():
    def of(name: Any) -> Any:
        return hydrate({"a": {"__prefect_kind": "workspace_variable", "variable_name": name}}, AS_THE_SERVER)

    assert of("known") == {"a": "value"}
    assert of({"__prefect_kind": "jinja", "template": "known"}) == {"a": "value"}
    with pytest.raises(HydrationError, match=r"^Variable 'unknown' not found in workspace\.$"):
        of("unknown")


@pytest.mark.parametrize(
    "held",
    [{"__prefect_kind": "jinja", "template": "a"}, {"__prefect_kind": "workspace_variable", "variable_name": "a"}],
)
def test_what_is_submitted_has_neither_in_the_place_of_a_path(
    held: Any, classification: dict[str, Any], tmp_path: Path
):
    classification["neural_network"]["outfile"] = held
    with pytest.raises(Refused) as refused:
        parameters_of(Given("x", classification, tmp_path))
    assert str(refused.value) == f"neural_network.outfile: {json.dumps(held)} does not fit\n    allowed: a string"
