"""A problem's text."""

import pickle

import pytest

from rml_core.config.problem import Problem, Refused, collect, nearest, shown


def test_a_problem_in_words():
    problem = Problem("a.b", "3 does not fit", "1, 2", "take one of them")
    assert str(problem) == "a.b: 3 does not fit\n    allowed: 1, 2\n    take one of them"
    assert str(Problem("", "nothing")) == "nothing"


def test_problems_are_collected_and_survive_a_process_border():
    def refuse(where: str) -> None:
        raise Refused([Problem(where, "is wrong")])

    with pytest.raises(Refused) as refused:
        collect(lambda: refuse("a"), lambda: None, lambda: refuse("b"))
    assert str(refused.value) == "a: is wrong\nb: is wrong"
    assert pickle.loads(pickle.dumps(refused.value)).problems == refused.value.problems
    collect(lambda: None)


def test_a_long_list_of_what_is_allowed_is_said_once():
    names = ", ".join(f"Layer{i}" for i in range(40))
    refused = Refused([Problem("a", "no", names), Problem("b", "no", "1, 2"), Problem("c", "no", names, "look")])
    assert (
        str(refused) == f"a: no\n    allowed: {names}\nb: no\n    allowed: 1, 2\nc: no\n    allowed: as above\n    look"
    )
    assert refused.problems[2].allowed == names


def test_values_are_shown_as_json_and_cut():
    assert shown({"a": [1, None, "x"]}) == '{"a": [1, null, "x"]}'
    assert shown("x" * 200) == '"' + "x" * 75 + " ..."
    assert nearest("resise", ["resize", "rotate"]) == 'did you mean "resize"?'
    assert nearest("qqq", ["resize"]) == ""


@pytest.mark.parametrize(
    ("given", "names", "text"),
    [
        ("lr", ["type", "learning_rate"], 'did you mean "learning_rate"?'),
        ("CrossEntropyLoss", ["NLL", "BCE"], 'did you mean "NLL"?'),
        ("cross_entropy", ["NLL", "BCE"], 'did you mean "NLL"?'),
        ("sparse_categorical_crossentropy", ["NLL", "BCE"], 'did you mean "NLL"?'),
        ("BinaryCrossentropy", ["NLL", "BCE"], 'did you mean "BCE"?'),
        ("random_crop", ["resize", "jitter_crop", "center_crop"], 'did you mean "jitter_crop" or "center_crop"?'),
        ("epochs", ["num_epochs"], 'did you mean "num_epochs"?'),
        ("lr", ["units"], ""),
    ],
)
def test_words_of_other_programs(given: str, names: list[str], text: str):
    assert nearest(given, names) == text
