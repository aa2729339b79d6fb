"""What is taken from somebody else's run file: variables, secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from rml_core.config.paths import is_path_field, resolve
from rml_core.config.problem import Problem, Refused, RunFailed, redacted
from rml_core.config.trust import OF_A_WORKER, Origin, without_secrets
from rml_core.loss import LOSSES
from rml_core.optimizer import OPTIMIZERS
from rml_core.run import ROOT, RunFile, read
from rml_core.transforms import TRANSFORMS

LAYERS = [{"class_name": "Dense", "config": {"units": 2, "input_shape": [4]}}]


def _file(**data: str) -> dict[str, Any]:
    return {
        ROOT: {
            "layers": LAYERS,
            "data": {"type": "numpy", "input_path": "x", "target_path": "y", **data},
            "optimizer": {"type": "SGD"},
            "loss": {"function": "MSE"},
        }
    }


def test_every_text_of_a_run_file_is_a_path_a_name_or_chosen_from_a_list() -> None:
    """A key that names a file has to be of a type of `paths`, where variables and `RML_ROOTS` are looked at."""
    names = {
        "RunFile.device", "RunFile.precision", "EarlyStopping.metric", "Checkpoints.resume",
        "Data.input_type", "Data.target_type", "Data.type", "Data.training_tag", "Data.test_tag", "Data.hdf5_precision",
        "Data.hdf5_output", "Data.overlap_blend", "LossSection.function", "LossSection.source",
        "OptimizerSection.type", "SchedulerSection.type", "SliceSection.name", "SliceSection.padding_mode",
    }  # fmt: skip
    texts = {f"{model.__name__}.{name}" for model, name, field in _fields(RunFile) if not is_path_field(field)}
    assert texts - names == set()
    paths = {f"{model.__name__}.{name}" for model, name, field in _fields(RunFile) if is_path_field(field)}
    assert paths >= {"RunFile.outfile", "Data.input_path", "Data.hdf5_outfile", "Checkpoints.save", "Checkpoints.load"}
    for table in (LOSSES, OPTIMIZERS, TRANSFORMS):
        for model in table.values():
            assert {name for _, name, _ in _fields(model)} <= {"function", "type", "source", "convert_color"}


def _fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """The fields of `model`, and of the models in it, that take text."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation]
        for kind in kinds:
            kinds += get_args(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not kind.__name__.endswith("Base"):
                yield from _fields(kind)
        if str in kinds:
            yield model, name, field


def test_variables_of_a_worker_alone_expand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RML_DATA", "/data/$HOME")
    monkeypatch.setenv("HOME", "/root")
    assert str(resolve("${RML_DATA}/a", "/")) == "/data/$HOME/a"
    monkeypatch.setenv(OF_A_WORKER, "id")
    # Once: what a variable holds is not looked at again.
    assert str(resolve("$RML_DATA/$HOME/~/%HOME%", "/")) == "/data/$HOME/$HOME/~/%HOME%"
    assert str(resolve("~/a", "/b")) == "/b/~/a"


def test_other_variables_are_refused_by_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_HERE", "/here")
    monkeypatch.delenv("RML_GONE", raising=False)
    monkeypatch.setenv(OF_A_WORKER, "id")
    mapping = _file(input_path="$HOME/x", target_path="~/y", test_input_path="${RML_GONE}/a")
    section = mapping[ROOT]
    section["layers"] = "${SECRET}.json"
    section["checkpoints"] = {"save": "$RML_HERE/a", "load": "a$b"}
    section["outfile"] = "cost$.txt"
    with pytest.raises(Refused) as refused:
        read(mapping, "/base")
    allowed = "    allowed: variables whose names begin with RML_, set where the worker runs\n"
    rename = "    write it out; where the name of a file has a $, rename it, or give it a link without one"
    assert str(refused.value) == "\n".join(
        [
            f'neural_network.layers: "${{SECRET}}.json": $SECRET does not expand on a worker\n{allowed}{rename}',
            f'neural_network.data.input_path: "$HOME/x": $HOME does not expand on a worker\n{allowed}{rename}',
            'neural_network.data.target_path: "~/y": ~ would be the home of whoever runs the worker\n'
            "    allowed: an absolute path, or one against the run file's folder\n    write it out",
            'neural_network.data.test_input_path: "${RML_GONE}/a": $RML_GONE is not set on this worker\n'
            f"{allowed}    set it where the worker is started, or write the path out",
            f'neural_network.checkpoints.load: "a$b": $b does not expand on a worker\n{allowed}{rename}',
        ]
    )


def test_who_sends_a_run_file_need_not_have_the_workers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RML_GONE", raising=False)
    read(_file(input_path="$RML_GONE/x"), "/base", Origin.SENT)
    with pytest.raises(Refused, match=r"\$GONE does not expand on a worker"):
        read(_file(input_path="$GONE/x"), "/base", Origin.SENT)
    read(_file(input_path="$GONE/x"), "/base")


SECRETS = [
    ("ftp://me:word@host/a", "ftp://me:***@host/a"),
    ("ftp://me:wo'rd@host/a", "ftp://me:***@host/a"),
    ("ftp://me:wo@rd@host/a", "ftp://me:***@host/a"),
    ("https://ghp_word@host/a", "https://***@host/a"),
    ("https://host/a?token=word&b=1", "https://host/a?token=***&b=1"),
    ("https://host/a?b=1&X-Amz-Signature=word#c", "https://host/a?b=1&X-Amz-Signature=***#c"),
    ("https://host/a?sv=1&sig=word", "https://host/a?sv=1&sig=***"),
]
NO_SECRETS = [
    "ftp://me@host/a", "ftp://me:$WORD@host/a", "https://$TOKEN@host/a", "https://host/a?token=$TOKEN&b=1",
    "https://host/a?design=1", "abfs://container@account/a", "/a:b@c/d?token=1", "s3://bucket/a@b",
]  # fmt: skip


@pytest.mark.parametrize(("text", "without"), SECRETS)
def test_secrets_in_urls_are_not_said(text: str, without: str) -> None:
    assert redacted(text) == without
    assert redacted(without) == without
    assert str(Problem("a", f'"{text}" is gone')) == f'a: "{without}" is gone'
    assert str(RunFailed(f"load: {text} is gone")) == f"load: {without} is gone"
    assert without_secrets({"a": [text, 1], "b": (None,)}) == {"a": [without, 1], "b": [None]}


def test_a_quotation_mark_in_a_password_ends_it_nowhere() -> None:
    url = 'ftp://me:wo"rd@host/a'
    assert redacted(url) == "ftp://me:***@host/a"
    assert redacted(json.dumps({"a": url, "b": "c@d"})) == '{"a": "ftp://me:***@host/a", "b": "c@d"}'
    assert redacted('{"a":"http://host:80","b":"c@d"}') == '{"a":"http://host:80","b":"c@d"}'


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_secret_does_not_become_a_parameter() -> None:
    read(_file(input_path="https://host/a?token=word"), "/base")
    with pytest.raises(Refused) as refused:
        read(_file(input_path="https://host/a?token=word"), "/base", Origin.SENT)
    assert str(refused.value) == (
        'neural_network.data.input_path: "https://host/a?token=***": the parameters of a run are seen by everybody who '
        "sees the run, this secret too\n    allowed: a URL without a password, a token or a key\n"
        "    give it to the worker, by fsspec's configuration or a Prefect block, and leave it out here: "
        "see docs/security.md"
    )


def test_on_a_worker_a_relative_path_needs_a_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RML_DATA", "/data")
    monkeypatch.setenv(OF_A_WORKER, "id")
    mapping = _file(input_path="train.npy", target_path="$RML_DATA/y", test_input_path="https://host/x")
    with pytest.raises(Refused) as refused:
        read(mapping)
    assert str(refused.value).startswith(
        'neural_network.data.input_path: "train.npy" is relative, and nothing says to which folder\n'
        "    give absolute paths, or base: the folder they are against"
    )
    assert "target_path" not in str(refused.value)
    assert "test_input_path" not in str(refused.value)
