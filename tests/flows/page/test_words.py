"""What a run's page says: the table of epochs, the headline, the run file."""

from __future__ import annotations

import math

import pytest

from flows.page import words

ROW = {"epoch": 1, "train_loss": 0.123456, "learning_rate": 0.01, "samples_per_s": 1234.567, "memory_mb": 512.4}


def test_a_row_an_epoch_the_newest_first():
    history = [
        ROW | {"test_loss": 0.5, "accuracy": 0.875},
        ROW | {"epoch": 2, "test_loss": math.nan, "accuracy": math.nan, "test_samples_per_s": 3.0},
    ]
    common = {"train loss": "0.12346", "learning rate": "0.01", "samples/s": 1235, "memory (MB)": 512}
    rows = words.epochs(history)
    assert rows == [
        {"epoch": 2, "test loss": "", "accuracy": "", **common},
        {"epoch": 1, "test loss": "0.5", "accuracy": "0.875", **common},
    ]
    order = ["epoch", "train loss", "test loss", "accuracy", "learning rate", "samples/s", "memory (MB)"]
    assert [list(row) for row in rows] == [order, order]


def test_an_evaluation_alone():
    history = [{"epoch": 1, "test_loss": math.nan, "accuracy": math.nan, "mae": 0.25, "test_samples_per_s": 10.2}]
    assert words.epochs(history) == [{"epoch": 1, "MAE": "0.25", "test samples/s": 10}]
    assert words.epochs([]) == []


def test_assembled_volumes_are_columns_of_their_own():
    figures = {"bricks": {"accuracy": 0.75}, "plates": {"accuracy": math.nan, "mae": 0.5}}
    (row,) = words.epochs([{"epoch": 1, "accuracy": 0.5, "assembled": figures, "samples_per_s": 1}])
    assert list(row.items()) == [
        *(("epoch", 1), ("accuracy", "0.5")),
        *(("bricks, assembled: accuracy", "0.75"), ("plates, assembled: mae", "0.5"), ("samples/s", 1)),
    ]


@pytest.mark.parametrize(
    ("history", "last", "said"),
    [
        ([], 5, "no epoch is complete yet"),
        ([{"epoch": 1, "train_loss": 0.5}], 5, "epoch 1 of 5: train loss 0.5"),
        ([{"epoch": 1, "test_loss": 0.5, "accuracy": math.nan}], 1, "epoch 1: test loss 0.5"),
        ([{"epoch": 1, "test_loss": math.nan, "accuracy": math.nan}], 1, "epoch 1"),
        (
            [
                {"epoch": epoch, "train_loss": 0.5, "test_loss": 0.25, "accuracy": accuracy}
                for epoch, accuracy in enumerate((0.5, 0.75, 0.625), 1)
            ],
            9,
            "epoch 3 of 9: train loss 0.5, test loss 0.25, accuracy 0.625 (best: 0.75 in epoch 2)",
        ),
        (
            [{"epoch": 1, "test_loss": 0.25}, {"epoch": 2, "test_loss": 0.5}],
            2,
            "epoch 2 of 2: test loss 0.5 (best: 0.25 in epoch 1)",
        ),
    ],
)
def test_headline(history: list[dict[str, float]], last: int, said: str):
    assert words.headline(history, last) == said


def test_the_run_file_as_it_was_given_without_secrets():
    given = {"neural_network": {"data": {"input_path": "s3://me:word@host/images"}, "layers": "net.json"}}
    assert words.run_file(given) == (
        '```json\n{\n  "neural_network": {\n    "data": {\n      "input_path": "s3://me:***@host/images"\n    },\n'
        '    "layers": "net.json"\n  }\n}\n```'
    )


def test_a_network_written_out_is_said_by_its_length():
    layers = [{"class_name": "Dense", "config": {"units": 1}}] * 3000
    said = words.run_file({"neural_network": {"num_epochs": 3, "layers": layers}})
    assert said == (
        '```json\n{\n  "neural_network": {\n    "num_epochs": 3,\n'
        '    "layers": "(147,000 characters: see the artifact `network`)"\n  }\n}\n```'
    )
