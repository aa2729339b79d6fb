"""Order and partners of files."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from natsort import natsorted, ns

from rml_core.config.problem import Refused
from rml_core.data.pairing import class_folder, find_files, natural_order, pair

IN, OUT = Path("/in"), Path("/out")
Words = st.text("abc", min_size=1, max_size=3)
Names = st.lists(st.tuples(Words, Words, st.integers(0, 30)).map(lambda t: f"{t[0]}/{t[1]}{t[2]}"), unique=True)


def is_text(name: str) -> bool:
    return name.endswith(".txt")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_sort_by_value(numbers):
    names = [f"set{n % 12}/img{n}.png" for n in numbers]
    expected = [f"set{n % 12}/img{n}.png" for n in sorted(numbers, key=lambda n: (n % 12, n))]
    assert natural_order(names) == expected


@given(st.lists(st.text(st.sampled_from("aZ09é٣.-_ /"), max_size=12)))
def test_the_order_is_that_of_natsort(names):
    expected = natsorted(sorted(names), key=lambda name: name.split("/"), alg=ns.INT)
    assert natural_order(names) == expected


@settings(deadline=None, max_examples=50)
@given(Names, st.randoms())
def test_order_does_not_depend_on_the_listing(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert natural_order(names) == natural_order(shuffled)


@settings(deadline=None, max_examples=50)
@given(Names, st.randoms())
def test_files_pair_by_path_without_suffix(names, random):
    targets = [f"{name}.tif" for name in names]
    random.shuffle(targets)
    found = pair([f"{name}.png" for name in names], targets, "w", (IN, OUT))
    assert [targets[i] for i in found] == [f"{name}.tif" for name in names]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20))
def test_other_names_pair_by_order_where_the_counts_agree(count):
    inputs, targets = [f"a{i}.png" for i in range(count)], [f"b{i}.png" for i in range(count)]
    assert pair(inputs, targets, "w", (IN, OUT)) == list(range(count))


def test_what_has_no_partner_is_listed():
    inputs = [f"{i}.png" for i in range(9)]
    with pytest.raises(Refused) as refused:
        pair(inputs, ["1.png", "x.png"], "neural_network.data.target_path", (IN, OUT))
    assert str(refused.value) == (
        "neural_network.data.target_path: 9 inputs in /in and 2 targets in /out do not pair; inputs without a target: "
        "0.png, 2.png, 3.png, 4.png, 5.png and 3 more; targets without an input: x.png\n"
        "    give both the same name (suffixes may differ), or as many of one as of the other"
    )


def test_names_that_are_there_twice_are_listed():
    with pytest.raises(Refused) as refused:
        pair(["a.png", "a.jpg", "b.png"], ["a.png", "b.png"], "w", (IN, OUT))
    assert str(refused.value) == (
        "w: 3 inputs in /in and 2 targets in /out do not pair; names that differ in their suffix only: a\n"
        "    give both the same name (suffixes may differ), or as many of one as of the other"
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["train", "cats", "dogs", "x"]), min_size=1, max_size=5))
def test_the_class_is_the_folder_below_the_last_tag(parts):
    folder = Path("/data", *parts)
    assert class_folder(folder, "a.jpg", None) == parts[-1]
    below = [after for part, after in itertools.pairwise(parts) if part == "train"]
    assert class_folder(folder, "a.jpg", "train") == (below[-1] if below else None)


def test_files_are_searched_recursively_without_hidden_ones(tmp_path):
    for name in ("b/2.txt", "b/10.txt", "a.txt", ".hidden.txt", ".git/x.txt", "b/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    assert find_files(tmp_path, "w", is_text, "texts") == (tmp_path, ["a.txt", "b/2.txt", "b/10.txt"])
    assert find_files(tmp_path / "b" / "2.txt", "w", is_text, "texts") == (tmp_path / "b", ["2.txt"])


def test_a_folder_that_does_not_exist(tmp_path):
    (tmp_path / "training").mkdir()
    with pytest.raises(Refused) as refused:
        find_files(tmp_path / "trian" / "cats", "n.input_path", is_text, "texts")
    assert str(refused.value) == (
        f"n.input_path: {tmp_path}/trian/cats does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} has training"
    )


def test_a_folder_without_what_is_looked_for(tmp_path):
    with pytest.raises(Refused) as refused:
        find_files(tmp_path, "n.input_path", is_text, "texts")
    assert str(refused.value) == (
        f"n.input_path: {tmp_path} has no texts: it is empty\n    name the folder that has the texts, or put them there"
    )
    for name in ("a.csv", "b.csv", "README"):
        (tmp_path / name).touch()
    with pytest.raises(Refused) as refused:
        find_files(tmp_path, "n.input_path", is_text, "texts")
    assert str(refused.value) == (
        f"n.input_path: {tmp_path} has no texts, only other files: 2 .csv, 1 without a suffix\n"
        "    name the folder that has the texts, or put them there"
    )
