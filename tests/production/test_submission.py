"""Run files submitted to a real service: by Prefect's command, by ours, and by the form of its pages."""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def project(classification: dict[str, Any], pictures: Path, tmp_path: Path) -> Path:
    """A folder with a run file whose paths are relative to it."""
    section = copy.deepcopy(classification["neural_network"])
    (tmp_path / "pictures").symlink_to(pictures)
    section["data"] |= {"input_path": "pictures/train", "test_input_path": "pictures/test"}
    section["num_epochs"] = 2
    (tmp_path / "run.json").write_text(json.dumps({"neural_network": section}))
    return tmp_path


def test_prefects_command_takes_a_run_file_from_any_folder(service: Any, project: Path):
    run_file = project / "run.json"
    command = ["prefect", "deployment", "run", "rml/train", "--params"]
    done = service.run(*command, run_file, cwd=Path("/"))
    assert done.returncode == 0, done.stdout + done.stderr
    run = service.wait(ID.search(done.stdout)[0])  # type: ignore[index]
    assert run["state_type"] == "COMPLETED", service.log(run["id"])
    assert run["parameters"]["base"] == str(project)
    assert (project / "out_train.txt").exists()
    bad = json.loads(run_file.read_text())
    bad["neural_network"] |= {"num_epochs": 0, "precison": "single"}
    refused = service.run(*command, "-", given=json.dumps(bad), cwd=project)
    validated = service.run("rml", "validate", "bad.json", cwd=_written(project / "bad.json", bad))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == validated.stderr.replace("bad.json: 2 problems", "standard input: 2 problems")
    untouched = service.run(*command[:3], "rml/other", "--params", "run.json", cwd=project)
    assert untouched.returncode == 1
    assert "Failed to parse JSON" in untouched.stdout + untouched.stderr


def _written(path: Path, mapping: Any) -> Path:
    path.write_text(json.dumps(mapping))
    return path.parent


def test_who_watches_sees_the_epochs_and_the_reason_of_a_failure(service: Any, project: Path):
    done = service.run("rml", "submit", "run.json", "--watch", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert ID.search(lines[0])
    assert lines[1].startswith(f"{service.url}/runs/flow-run/")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert "build network" in lines
    assert lines[-1].startswith("completed")
    setting = "data.input_path=$RML_NOT_SET/x"
    refused = service.run("rml", "submit", "run.json", "--set", setting, "--watch", cwd=project)
    assert refused.returncode == 2
    assert refused.stderr.endswith(
        'refused:\nneural_network.data.input_path: "$RML_NOT_SET/x": $RML_NOT_SET is not set on this worker\n'
        "    allowed: variables whose names begin with RML_, set where the worker runs\n"
        "    set it where the worker is started, or write the path out\n"
    )
    unknown = service.run("rml", "submit", "run.json", "--deployment", "retrain-nothing", cwd=project)
    assert unknown.returncode == 2


def test_watching_ends_with_ctrl_c_and_leaves_the_run_alone(service: Any, project: Path):
    command = ["rml", "submit", "run.json", "--set", "num_epochs=500", "--watch"]
    watching = subprocess.Popen(
        command, cwd=project, env=service.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        run = ID.search(first)[0]  # type: ignore[index]
        while not watching.stdout.readline().startswith("epoch 1/500"):
            assert watching.poll() is None
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.wait()
    assert watching.returncode == 130
    assert errors.endswith(f"no longer watched; the run goes on: prefect flow-run cancel {run} ends it\n")
    assert service.flow_run(run)["state_type"] in ("RUNNING", "COMPLETED")
    service.run("prefect", "flow-run", "cancel", run)
    service.wait(run)


def test_a_long_network_goes_by_reference(service: Any, project: Path):
    mapping = json.loads((project / "run.json").read_text())
    mapping["neural_network"]["layers"][0]["config"]["name"] = "x" * 600_000
    _written(project / "long.json", mapping)
    done = service.run("rml", "submit", "long.json", cwd=project)
    assert done.returncode == 0, done.stderr
    run = service.wait(ID.search(done.stdout)[0])  # type: ignore[index]
    path = Path(run["parameters"]["neural_network"]["layers"])
    assert path.is_relative_to(service.home / ".cache" / "rml" / "networks")
    assert run["state_type"] == "COMPLETED", service.log(run["id"])


def test_the_form_submits_what_was_filled_in(service: Any, project: Path):
    from playwright.sync_api import sync_playwright

    section = json.loads((project / "run.json").read_text())["neural_network"]
    (project / "network.json").write_text(json.dumps(section["layers"]))
    deployment = service.call("/deployments/name/rml/train")["id"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        try:
            page = browser.new_page(viewport={"width": 1000, "height": 1200})
            page.set_default_timeout(90_000)
            page.goto(f"{service.url}/deployments/deployment/{deployment}/run")
            page.get_by_text("num_epochs").first.wait_for()
            assert (
                page.get_by_text("Epochs in total; a resumed run goes on up to this number. Default: 1.").count() == 1
            )
            _fill(page, project)
            with page.expect_response(lambda answer: "create_flow_run" in answer.url) as answered:
                page.get_by_role("button", name="Submit").click()
            assert answered.value.status == 201, answered.value.text()
            made = answered.value.json()
        finally:
            browser.close()
    run = service.wait(made["id"])
    assert run["state_type"] == "COMPLETED", service.log(run["id"])
    sent = {key: value for key, value in run["parameters"]["neural_network"].items() if value not in (None, False)}
    assert sent["num_epochs"] == 3
    assert sent["optimizer"]["type"] == "Adam"
    assert sent["optimizer"]["learning_rate"] == 0.005
    assert sent["data"]["shuffle"] is True
    assert set(sent) == {"outfile", "num_epochs", "layers", "data", "optimizer", "loss"}
    assert len((project / "form_test.txt").read_text().splitlines()) == 3


def _fill(page: Any, project: Path) -> None:
    def key(name: str, within: Any = page) -> Any:
        header = "xpath=./*[contains(@class,'__header')]//*[contains(@class,'__label')]"
        label = page.locator(f"{header}[starts-with(normalize-space(.),'{name}')]")
        return within.locator(".schema-form-property").filter(has=label).first

    def text(name: str, value: str, within: Any = page) -> None:
        key(name, within).locator("input,textarea").first.fill(value)

    def choose(name: str, value: str, within: Any = page) -> None:
        key(name, within).get_by_text(value, exact=True).first.click()

    def pick(name: str, value: str, within: Any) -> None:
        key(name, within).locator(".p-select-button__control").first.press("ArrowDown")
        page.locator(".p-select-option", has_text=value).first.click()

    whole = key("neural_network")
    data = key("data", whole)
    text("outfile", "form.txt", whole)
    text("num_epochs", "3", whole)
    choose("layers", "Path of a Keras JSON file", whole)
    text("layers", "network.json", whole)
    pick("input_type", "images", data)
    pick("target_type", "labels", data)
    text("input_path", "pictures/train", data)
    text("test_input_path", "pictures/test", data)
    choose("optimizer", "Adam", whole)
    text("learning_rate", "0.005", key("optimizer", whole))
    choose("loss", "NLL", whole)
    choose("base", "str")
    text("base", str(project))
