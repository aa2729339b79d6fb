"""A walk through the pages of two runs in a browser: one that ends well, and one that fails."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.slow

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 60_000
PHASES = [
    *("load training", "transform training", "load test", "transform test", "build network"),
    *(f"{what} epoch {epoch}" for epoch in (1, 2, 3) for what in ("train", "checkpoint", "evaluate")),
]


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@pytest.fixture
def open_artifact(browser_page: Page, service: Any) -> Callable[[str, str], Page]:
    """Opens an artifact of a flow run from the run's page, as a person does."""

    def open_by_name(run: str, key: str) -> Page:
        browser_page.goto(f"{service.url}/runs/flow-run/{run}?tab=Artifacts")
        browser_page.get_by_text("Artifacts", exact=True).last.click()
        browser_page.get_by_text(key, exact=True).first.click()
        expect(browser_page).to_have_url(re.compile("/artifacts/artifact/"), timeout=PATIENCE_MS)
        return browser_page

    return open_by_name


def green(picture: bytes) -> int:
    """Points in the colour of what is completed."""
    blue, greens, red = cv2.split(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).astype(int))
    return int(((greens > 100) & (greens > 1.5 * red) & (greens > 1.5 * blue)).sum())


def test_the_page_of_a_run_tells_its_story(
    service: Any,
    classification: dict[str, Any],
    tmp_path: Path,
    browser_page: Page,
    open_artifact: Callable[[str, str], Page],
) -> None:
    section = classification["neural_network"]
    # Done beforehand, in a phase of its own.
    section["data"]["transforms"].insert(0, {"resize": [10, 10]})
    run = service.submit(section, base=str(tmp_path))
    ended = service.wait(run, "COMPLETED")
    assert ended["state"]["message"].startswith("epoch 3 of 3: train loss ")

    page = browser_page
    page.goto(f"{service.url}/runs/flow-run/{run}")
    canvas = page.locator("canvas").first
    expect(canvas).to_be_visible(timeout=PATIENCE_MS)
    for _ in range(40):
        if green(canvas.screenshot()) > 200:
            break
        page.wait_for_timeout(500)
    else:
        pytest.fail("the graph shows no phase")
    nodes = dict(service.call(f"/flow_runs/{run}/graph-v2")["nodes"])
    labels = {node["label"]: node for node in nodes.values()}
    assert sorted(labels) == sorted(PHASES)
    chain = PHASES[PHASES.index("build network") :]
    for before, after in pairwise(chain):
        assert {nodes[parent["id"]]["label"] for parent in labels[after]["parents"]} == {before}
    assert labels["load training"]["parents"] == labels["load test"]["parents"] == []
    page.get_by_text("Task Runs", exact=True).last.click()
    for name in PHASES[:5]:
        expect(page.get_by_text(name, exact=True).first).to_be_attached(timeout=PATIENCE_MS)

    page = open_artifact(run, "epochs")
    for heading in ("epoch", "train loss", "test loss", "accuracy", "learning rate", "samples/s", "memory (MB)"):
        expect(page.locator("th").get_by_text(heading, exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("tbody tr")).to_have_count(3, timeout=PATIENCE_MS)

    page = open_artifact(run, "curves")
    picture = page.get_by_alt_text("curves")
    expect(picture).to_be_visible(timeout=PATIENCE_MS)
    assert picture.evaluate("image => image.naturalWidth") == 960
    # Samples stand below the curves.
    assert picture.evaluate("image => image.naturalHeight") > 320

    page = open_artifact(run, "summary")
    expect(page.get_by_text(f"{tmp_path}/out_report.png", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    page = open_artifact(run, "network")
    expect(page.get_by_text("Conv2D").first).to_be_visible(timeout=PATIENCE_MS)
    page = open_artifact(run, "run-file")
    expect(page.get_by_text("num_epochs").first).to_be_visible(timeout=PATIENCE_MS)


def test_the_page_of_a_failed_run_says_what_to_do(
    service: Any, classification: dict[str, Any], tmp_path: Path, open_artifact: Callable[[str, str], Page]
) -> None:
    section = copy.deepcopy(classification["neural_network"])
    section["optimizer"] = {"type": "SGD", "learning_rate": 1e38}
    run = service.submit(section, base=str(tmp_path))
    service.wait(run, "FAILED")
    page = open_artifact(run, "what-went-wrong")
    expect(page.get_by_text("The run failed in the phase")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("lower optimizer.learning_rate")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text(f"prefect flow-run retry {run}")).to_be_visible(timeout=PATIENCE_MS)
    page = open_artifact(run, "run-file")
    expect(page.get_by_text("1e+38").first).to_be_visible(timeout=PATIENCE_MS)
