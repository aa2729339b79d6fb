"""The run file: read from a path or a mapping, changed by settings, published as a schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from rml_core.config.problem import Refused
from rml_core.run import ROOT, RunFile, read, read_json, schema, with_settings

MINIMAL: dict[str, Any] = {
    ROOT: {
        "layers": [{"class_name": "Flatten", "config": {}}],
        "data": {"input_type": "images", "input_path": "here"},
    }
}
FULL: dict[str, Any] = {
    ROOT: {
        "outfile": "out.txt",
        "num_epochs": 3,
        "debug": False,
        "debug_interval": 2,
        "layers": [{"class_name": "Dense", "config": {"units": 2, "activation": "log_softmax"}}],
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": "train",
            "test_input_path": "test",
            "test_output_path": "predictions",
            "batch_size": 4,
            "preload": True,
            "training_tag": "train",
            "testing_tag": "test",
            "transforms": [
                {"resize": [8, 8]},
                {"center_crop": [8, 8]},
                {"random_horizontal_flip": 0.5},
                {"rotate": 30},
                {"convert_color": "BGR2RGB"},
                {"normalize": {"mean": [0.1, 0.2, 0.3], "std": 0.5}},
            ],
        },
        "optimizer": {
            "type": "SGD",
            "learning_rate": 0.01,
            "momentum": 0.9,
            "clip_norm": 1.0,
            "lr_scheduler": {"type": "MultiStep", "gamma": 0.1, "milestones": [2, 3], "verbose": True},
        },
        "loss": {"function": "NLL", "weight": [0.5, 0.5], "ignore_index": 1, "source": "logits"},
        "checkpoints": {"save": "kept", "interval": 2, "load": "a.pt", "keep": 3, "best": True},
        "seed": 1,
        "precision": "bf16",
        "device": "cuda:1",
        "early_stopping": {"metric": "accuracy", "patience": 2, "min_delta": 0.1},
    }
}


def refused(step: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refusal:
        step()
    return str(refusal.value)


# --- reading


def test_a_mapping_and_a_file_say_the_same(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(FULL))
    by_path, by_mapping = read(path), read(FULL, tmp_path)
    assert by_path == by_mapping
    assert by_path.base == tmp_path
    assert by_path.mapping == FULL
    assert read(str(path)) == by_path


def test_defaults():
    run = read(MINIMAL)
    file = run.file
    assert run.base == Path.cwd()
    assert (file.num_epochs, file.debug, file.debug_interval, file.seed) == (1, False, 1, 0)
    assert (file.precision, file.device) == ("single", "auto")
    assert [file.outfile, file.optimizer, file.loss, file.checkpoints, file.early_stopping] == [None] * 5


def test_relative_paths_are_against_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without `..` and links, wherever it is called from."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "run.json").write_text(json.dumps(MINIMAL))
    monkeypatch.chdir(tmp_path / "real")
    for spelling in ("run.json", "../link/run.json", tmp_path / "link" / "run.json"):
        assert read(spelling).base == tmp_path / "real"
    assert read(MINIMAL).base == tmp_path / "real"
    assert read("run.json", "/elsewhere").base == Path("/elsewhere")
    assert read(MINIMAL, "below").base == tmp_path / "real" / "below"


def test_a_path_is_one_that_can_be_used():
    section = copy.deepcopy(FULL)
    section[ROOT]["outfile"] = "s3://bucket/out.txt"
    section[ROOT]["checkpoints"] |= {"save": "", "load": "nowhere://a.pt"}
    assert refused(lambda: read(section)) == (
        'neural_network.outfile: "s3://bucket/out.txt" is behind a URL, which takes no lines one after the other\n'
        "    allowed: a path of this machine, as logs/out.txt\n"
        'neural_network.checkpoints.save: "" does not fit\n    allowed: at least 1 character\n'
        'neural_network.checkpoints.load: "nowhere://a.pt": nowhere:// is not known\n'
        "    allowed: a path of this machine, or a URL, as s3://bucket/name or https://host/name"
    )


def test_a_mapping_is_not_changed():
    before = copy.deepcopy(FULL)
    read(FULL)
    assert before == FULL


def test_names_in_any_case_have_one_spelling():
    section = copy.deepcopy(FULL)
    section[ROOT]["optimizer"]["type"] = "sgd"
    section[ROOT]["optimizer"]["lr_scheduler"]["type"] = "MULTISTEP"
    section[ROOT]["loss"] |= {"function": "nll", "source": "LINEAR"}
    section[ROOT]["data"]["input_type"] = "Images"
    section[ROOT]["precision"] = "BF16"
    section[ROOT]["early_stopping"]["metric"] = "Accuracy"
    section[ROOT]["data"]["transforms"][0] = {"Resize": [8, 8]}
    assert read(section).file == read(FULL).file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "{path}: is empty"),
        (" \n", "{path}: is empty"),
        (
            '{"neural_network": {\n  "seed": 1\n  "debug": true}}',
            "{path}, line 3, column 3: not JSON: Expecting ',' delimiter\n{remedy}",
        ),
        (
            "{'neural_network': {}}",
            "{path}, line 1, column 2: not JSON: Expecting property name enclosed in double quotes\n"
            '    JSON has double quotes: "..."',
        ),
        (
            '{"debug": True}',
            "{path}, line 1, column 11: not JSON: Expecting value\n    JSON writes true, false and null",
        ),
        (
            '{"seed": 1 // one\n}',
            "{path}, line 1, column 12: not JSON: Expecting ',' delimiter\n    JSON has no comments: take it out",
        ),
        (
            '{"num_epochs": 3, "layers": []}',
            'neural_network: is missing\n    allowed: one object, {{"neural_network": {{...}}}}\n'
            '    put all of it into {{"neural_network": ...}}',
        ),
        ('{"neural_network": {}} trailing', "{path}, line 1, column 24: not JSON: Extra data\n{remedy}"),
        (
            '{"neural_network": {"seed": 1, "seed": 2, "layers": [{"a": {}, "b": 1, "a": [], "a": 2}]}}',
            "neural_network.seed: stands 2 times in one object: 1, 2\n"
            "    keep one of them: JSON would take the last without a word\n"
            "neural_network.layers[0].a: stands 3 times in one object\n"
            "    keep one of them: JSON would take the last without a word",
        ),
        ('{"neural_network": {"seed": NaN}}', "{path}: NaN is not a JSON number"),
        ('{"neural_network": {"seed": -Infinity}}', "{path}: -Infinity is not a JSON number"),
        ("[" * 100_000, "{path}: is nested too deeply to be read"),
        ("[]", 'run file: [] is not an object\n    allowed: one object, {{"neural_network": {{...}}}}'),
        (
            '{"neural_network": []}',
            'neural_network: [] is not an object\n    allowed: one object, {{"neural_network": {{...}}}}',
        ),
        (
            '{"neural_netwrok": {}}',
            "neural_netwrok: unknown key\n    allowed: neural_network\n    did you mean "
            '"neural_network"?\nneural_network: is missing\n    allowed: one object, {{"neural_network": {{...}}}}',
        ),
    ],
    ids=[
        "empty",
        "blank",
        "comma",
        "quotes",
        "true",
        "comment",
        "bare",
        "trailing",
        "twice",
        "nan",
        "infinity",
        "deep",
        "list",
        "inner list",
        "misspelt",
    ],
)
def test_files_that_are_no_run_files(text: str, problem: str, tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(text)
    remedy = "    look for a comma, a quote or a bracket that is missing or too many just before that place"
    assert refused(lambda: read(path)) == problem.format(path=path, remedy=remedy)


def test_files_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "run.json"
    assert refused(lambda: read(path)) == f"{path}: no such file or directory"
    assert refused(lambda: read(tmp_path)) == f"{tmp_path}: is a directory"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert refused(lambda: read(path)) == f"{path}: is not text\n    allowed: a JSON file in UTF-8"


def test_a_byte_order_mark_is_no_problem(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode())
    assert read_json(path) == MINIMAL


def test_every_problem_at_once():
    section = copy.deepcopy(FULL)
    section[ROOT] |= {"num_epochs": "three", "outfiel": 1, "precision": "quad", "device": "gpu"}
    section[ROOT]["optimizer"]["type"] = "Adaam"
    section[ROOT]["layers"][0]["class_name"] = "Dens"
    section[ROOT]["loss"] = {}
    del section[ROOT]["data"]
    assert refused(lambda: read(section)) == (
        'neural_network.num_epochs: "three" does not fit\n'
        "    allowed: an integer\n"
        "neural_network.data: is missing\n"
        'neural_network.optimizer.type: unknown optimizer "Adaam"\n'
        "    allowed: SGD, Adagrad, Adam, AdamW, RMSprop, LARS, LAMB\n"
        '    did you mean "Adam"?\n'
        "neural_network.loss.function: is missing\n"
        "    allowed: NLL, BCE, MSE, Dice, Jaccard, Focal, Lovasz\n"
        'neural_network.precision: unknown precision "quad"\n'
        "    allowed: single, double, bf16, fp16\n"
        'neural_network.device: "gpu" is no device\n'
        "    allowed: auto, cpu, cuda, or one of several GPUs, as cuda:1\n"
        "neural_network.outfiel: unknown key\n"
        "    allowed: outfile, num_epochs, debug, debug_interval, layers, data, optimizer, loss, checkpoints, seed, "
        "precision, device, early_stopping, tensorboard\n"
        '    did you mean "outfile"?\n'
        'neural_network.layers[0].class_name: unknown layer "Dens"\n'
        "    allowed: " + _layers() + "\n"
        '    did you mean "Dense"?'
    )


def _layers() -> str:
    from rml_core.layers import LAYERS

    return ", ".join(LAYERS)


def test_what_is_not_there_yet_is_refused_by_name():
    section = copy.deepcopy(FULL)
    section[ROOT]["optimizer"]["type"] = "hessian"
    section[ROOT]["loss"]["function"] = "Wasserstein"
    section[ROOT]["data"]["input_type"] = "pde"
    said = refused(lambda: read(section))
    assert 'neural_network.optimizer.type: optimizer "Hessian" is not available yet\n' in said
    assert 'neural_network.loss.function: loss function "Wasserstein" is not available yet\n' in said
    assert 'neural_network.data.input_type: data type "pde" is not available yet\n' in said


# --- settings


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("seed=3", ["seed"], 3),
        ("neural_network.seed=3", ["seed"], 3),
        ("data.batch_size=2", ["data", "batch_size"], 2),
        ("precision=double", ["precision"], "double"),
        ('precision="double"', ["precision"], "double"),
        ("outfile=a=b.txt", ["outfile"], "a=b.txt"),
        ("outfile=null", ["outfile"], None),
        ("outfile=", ["outfile"], ""),
        ("debug=true", ["debug"], True),
        ("data.transforms=[]", ["data", "transforms"], []),
        ("early_stopping.patience=2", ["early_stopping", "patience"], 2),
        ("data.input_path=C:\\data", ["data", "input_path"], "C:\\data"),
    ],
)
def test_with_settings(setting: str, path: list[str], value: Any):
    before = copy.deepcopy(MINIMAL)
    changed: Any = with_settings(MINIMAL, [setting])
    assert before == MINIMAL
    place = changed[ROOT]
    for part in path[:-1]:
        place = place[part]
    assert place[path[-1]] == value
    del place[path[-1]]
    if path[0] not in MINIMAL[ROOT]:
        changed[ROOT].pop(path[0], None)
    elif len(path) > 1 and path[-1] in MINIMAL[ROOT][path[0]]:
        place[path[-1]] = MINIMAL[ROOT][path[0]][path[-1]]
    assert changed == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(".01", 0.01), ("-.5", -0.5), ("1.", 1.0), ("+1", 1), ("+.5e-3", 0.0005), ("1.e2", 100.0), ("-2", -2)],
        *[(text, text) for text in (".", "+", "007", "1.2.3", "-.", "e5", "1.5GB", "+x")],
    ],
)
def test_numbers_as_they_are_written_on_a_command_line(text: str, value: Any):
    found = with_settings(MINIMAL, [f"seed={text}"])[ROOT]["seed"]
    assert (found, type(found)) == (value, type(value))


def test_the_last_of_two_settings_counts():
    assert with_settings(MINIMAL, ["seed=1", "seed=2"])[ROOT]["seed"] == 2


def test_settings_that_cannot_be_set():
    allowed = "KEY=VALUE, as in data.batch_size=32"
    assert refused(
        lambda: with_settings(MINIMAL, ["seed", "seed=1", "data..x=1", "layers.x=1", "data.input_path.x=1"])
    ) == (
        f"--set seed: cannot be set\n    allowed: {allowed}\n"
        f"--set data..x=1: cannot be set\n    allowed: {allowed}\n"
        f"--set layers.x=1: cannot be set\n    allowed: {allowed}\n"
        f"--set data.input_path.x=1: cannot be set\n    allowed: {allowed}"
    )
    nothing: Any = [1]
    assert refused(lambda: with_settings(nothing, ["seed=1"])).startswith("run file: [1] is not an object\n")


# --- the schema

VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def test_terminals_print_the_schema_as_it_is():
    """What stands in brackets is a style to Prefect's commands, `prefect deployment inspect` above all."""
    from rich.markup import RE_TAGS

    assert {tag[0] for tag in RE_TAGS.finditer(json.dumps(schema(), indent=2))} <= {"[tensorboard]"}


def test_the_schema_describes_every_key():
    section = schema()["properties"][ROOT]
    assert set(section["properties"]) == set(RunFile.model_fields)
    assert all("description" in each or "$ref" in each or "anyOf" in each for each in section["properties"].values())


def test_the_schema_takes_good_run_files_and_refuses_bad_ones():
    VALIDATOR.validate(MINIMAL)
    VALIDATOR.validate(FULL)
    for key, value in (("num_epochs", 0), ("precision", "quad"), ("unknown", 1), ("data", {}), ("loss", {})):
        changed = copy.deepcopy(FULL)
        changed[ROOT][key] = value
        if key != "data":
            assert not VALIDATOR.is_valid(changed), key


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in `value`."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, member in members for place in places(member, (*path, key)))]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10),
    st.floats(-2, 2),
    st.sampled_from(
        ["", "a", "adam", "Log_Softmax", "SINGLE", "cuda:0", "labels", "images", [], {}, [1], [1.5], [0, 1]]
    ),
)


# Most of what is changed is refused, and says nothing.
@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_our_validator_takes_the_schema_takes(data: st.DataObject):
    """A few changes anywhere in a good run file: other values, other cases of letters, keys gone."""
    changed = copy.deepcopy(FULL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in places(changed[ROOT]) if path]))
        parent = changed[ROOT]
        for part in path[:-1]:
            parent = parent[part]
        change = data.draw(st.sampled_from(["value", "case", "gone"]))
        if change == "value":
            # A later change may reach into it: the strategy's own list stays as it is.
            parent[path[-1]] = copy.deepcopy(data.draw(VALUES))
        elif change == "case" and isinstance(parent[path[-1]], str):
            parent[path[-1]] = data.draw(st.sampled_from([str.upper, str.lower, str.title, str.swapcase]))(
                parent[path[-1]]
            )
        elif change == "case" and isinstance(path[-1], str):
            parent[path[-1].upper()] = parent.pop(path[-1])
        else:
            del parent[path[-1]]
    try:
        read(changed)
    except Refused:
        assume(False)
    VALIDATOR.validate(changed)


def _inner(name: str) -> dict[str, Any]:
    return {**schema()["$defs"][name], "$defs": schema()["$defs"]}


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_schema_makes_is_taken_or_refused_with_its_place(data: st.DataObject):
    """The schema says less than the validator; it never leads to anything but problems."""
    changed = copy.deepcopy(FULL)
    for key, definition in SECTIONS.items():
        if data.draw(st.booleans()):
            changed[ROOT][key] = data.draw(STRATEGIES[definition])
    VALIDATOR.validate(changed)
    assert all(place.startswith(f"{ROOT}.") for place in _refused_places(changed))


def _refused_places(mapping: dict[str, Any]) -> list[str]:
    try:
        read(mapping)
    except Refused as refusal:
        return [problem.where for problem in refusal.problems]
    return []


SECTIONS = {"data": "Data", "checkpoints": "Checkpoints", "early_stopping": "EarlyStopping"}
STRATEGIES = {name: from_schema(_inner(name)) for name in SECTIONS.values()}
