"""What is left on disk, and when it is made again."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from rml_core.config.problem import RunFailed
from rml_core.data.files import Item
from rml_core.data.images import decode
from rml_core.data.prepared import key_of, prepare
from rml_core.data.store import Reader

LABELS = {"target_type": "labels", "input_path": "in", "preload": True}
MASKS = {"target_type": "images", "target_is_mask": True, "input_path": "in", "target_path": "masks"}


def stored(prepared, name="inputs"):
    return Reader(Path(prepared.folder), name)


def test_bytes_are_stored_as_they_are_decoded(work):
    work.two_classes()
    prepared = work.prepare(**LABELS, transforms=[{"normalize": {"mean": 0.5}}])
    array = stored(prepared).alike
    assert array is not None
    assert array.dtype == np.uint8
    for i, item in enumerate(prepared.inputs):
        np.testing.assert_array_equal(array[i], decode(item.file))
    assert prepared.labels == (0,) * 5 + (1,) * 5
    assert (prepared.classes, prepared.batches) == (("cats", "dogs"), 1)
    assert len(pickle.dumps(prepared)) < 4000
    assert pickle.loads(pickle.dumps(prepared)) == prepared


def test_samples_of_unlike_sizes_and_depths_are_stored_too(work):
    written = [work.write("in/a.png", 4, 5), work.write("in/b.png", 7, 5), work.write("in/c.png", 4, 5, dtype="uint16")]
    reader = stored(work.prepare(input_path="in", preload=True, batch_size=1))
    assert reader.alike is None
    for i, array in enumerate(written):
        assert reader[i].dtype == array.dtype
        np.testing.assert_array_equal(reader[i], array)


def test_jobs_run_in_other_processes(work):
    work.two_classes(40)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        keys = {**LABELS, "batch_size": 8}
        prepared = prepare(work.survey(**keys), work.section(**keys), work.folder / "p", map=pool.map)
    np.testing.assert_array_equal(stored(prepared).alike, np.stack([decode(item.file) for item in prepared.inputs]))


def test_without_preload_only_the_manifest_is_written(work):
    work.two_classes(2)
    prepared = work.prepare(**{**LABELS, "preload": False})
    assert os.listdir(prepared.folder) == ["manifest.json"]
    assert prepared.names == ("cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png")


@pytest.mark.parametrize("preload", [False, True])
def test_mask_values_and_where_they_are(work, preload):
    for i, value in enumerate((0, 255, 7)):
        work.write(f"in/{i}.png", 2, 2)
        work.mask(f"masks/{i}.png", [[0, value], [0, 0]])
    prepared = work.prepare(**MASKS, preload=preload)
    masks = [f"{work.folder}/masks/{i}.png" for i in range(3)]
    assert prepared.mask_values == ((0, masks[0]), (7, masks[2]), (255, masks[1]))


def test_prepared_once(work):
    work.two_classes(2)
    calls = []

    def counting(function, jobs):
        calls.append(len(jobs))
        return map(function, jobs)

    def again():
        return prepare(work.survey(**LABELS), work.section(**LABELS), work.folder / "p", map=counting)

    first = again()
    assert again() == first
    assert len(calls) == 1
    with open(Path(first.folder, "inputs.npy"), "ab") as file:
        file.write(b"x")
    assert not first.is_whole()
    assert again() == first
    assert first.is_whole()
    assert len(calls) == 2
    Path(first.folder, "manifest.json").write_text("{")
    again()
    assert len(calls) == 3
    assert sorted(os.listdir(work.folder / "p")) == [Path(first.folder).name]


def test_the_key_follows_files_and_what_is_stored(work):
    work.two_classes(2)

    def key(**keys):
        return key_of(work.survey(**keys), work.section(**keys))

    plain = key(**LABELS)
    assert key(**LABELS, batch_size=2, transforms=[{"normalize": {}}, {"resize": [3, 3]}]) == plain
    others = [
        key(**LABELS, transforms=[{"resize": [3, 3]}]),
        key(**LABELS, transforms=[{"resize": [3, 4]}]),
        key(**LABELS, grayscale=True),
        key(**{**LABELS, "preload": False}),
    ]
    os.utime(work.folder / "in/cats/0.png", ns=(1, 1))
    others.append(key(**LABELS))
    assert len({plain, *others}) == 6


def test_every_file_that_does_not_decode_is_named(work):
    work.two_classes(3)
    found = work.survey(**LABELS)
    for name in ("cats/0", "dogs/2"):
        path = work.folder / f"in/{name}.png"
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunFailed) as failed:
        prepare(found, work.section(**LABELS), work.folder / "prepared")
    assert str(failed.value) == "; ".join(
        f"{work.folder}/in/{name}.png: cannot be decoded: not an image that OpenCV reads, or damaged"
        for name in ("cats/0", "dogs/2")
    )
    assert os.listdir(work.folder / "prepared") == []


def test_a_file_that_vanished_since_the_survey(work):
    work.two_classes(2)
    found = replace(work.survey(**LABELS), inputs=(Item("/nowhere/a.png"),))
    with pytest.raises(RunFailed) as failed:
        prepare(found, work.section(**LABELS), work.folder / "p")
    assert str(failed.value) == "/nowhere/a.png: cannot be read: No such file or directory"


def test_a_full_disk(work, monkeypatch):
    work.two_classes(2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunFailed) as failed:
        work.prepare(**LABELS)
    assert str(failed.value) == (
        f"samples cannot be prepared in {work.folder}/prepared: No space left on device; make room there, or set "
        "XDG_CACHE_HOME to another folder"
    )
    assert os.listdir(work.folder / "prepared") == []
