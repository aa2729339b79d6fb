import pickle
import subprocess
import sys

import pytest

from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.loss import LOSSES
from rml_core.loss.fit import fit

LABELS = Target("labels", (), 10)
MASK = Target("mask", (28, 30), 2)
VOXELS = Target("mask", (8, 9, 10), 3)
VALUES = Target("values", (3, 28, 30))


def refusal(call) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return str(refused.value)


@pytest.mark.parametrize(
    ("keys", "shape", "target", "last", "source"),
    [
        ({"function": "nll"}, (10,), LABELS, "log_softmax", "log_softmax"),
        ({"function": "NLL", "source": "linear"}, (10,), LABELS, "linear", "logits"),
        ({"function": "NLL", "source": "Softmax"}, (10,), LABELS, "softmax", "softmax"),
        ({"function": "NLL"}, (2, 28, 30), MASK, "log_softmax", "log_softmax"),
        ({"function": "NLL"}, (2, None, None), MASK, "log_softmax", "log_softmax"),
        ({"function": "BCE"}, (1,), Target("labels", (), 2), "sigmoid", "sigmoid"),
        ({"function": "BCE"}, (10,), LABELS, "linear", "logits"),
        ({"function": "bce"}, (1, 28, 30), MASK, "hard_sigmoid", "sigmoid"),
        ({"function": "BCE"}, (3, 28, 30), VALUES, "sigmoid", "sigmoid"),
        ({"function": "BCE", "weight": [1, 2]}, (1, 28, 30), MASK, "sigmoid", "sigmoid"),
        ({"function": "BCE", "weight": [1, 2, 0]}, (3, 28, 30), VALUES, "sigmoid", "sigmoid"),
        ({"function": "MSE"}, (3, 28, 30), VALUES, "relu", "probabilities"),
        ({"function": "MSE", "source": "logits"}, (1, 28, 30), MASK, "linear", "logits"),
        ({"function": "MSE"}, (1,), Target("values", (None,)), "linear", "probabilities"),
        ({"function": "Dice"}, (1, 28, 30), MASK, "linear", "logits"),
        ({"function": "dice", "weight": [2]}, (1, 28, 30), MASK, "sigmoid", "sigmoid"),
        ({"function": "Dice"}, (2, 28, 30), Target("mask", (None, None)), "softmax", "softmax"),
        ({"function": "Dice", "source": "probabilities"}, (2, 28, 30), MASK, "relu", "probabilities"),
        ({"function": "jaccard", "weight": [1, 0, 2], "smooth": 1}, (3, 8, 9, 10), VOXELS, "softmax", "softmax"),
        ({"function": "Jaccard"}, (3, 28, 30), VALUES, "sigmoid", "sigmoid"),
        ({"function": "focal", "alpha": [1, 2, 3]}, (3, 8, 9, 10), VOXELS, "linear", "logits"),
        ({"function": "Focal", "alpha": [1, 2], "weight": [1, 2]}, (1, 28, 30), MASK, "sigmoid", "sigmoid"),
        ({"function": "Focal", "alpha": [1, 2], "weight": [1]}, (1, 9), Target("values", (1, 9)), "linear", "logits"),
        ({"function": "Focal", "ignore_index": 9}, (10,), LABELS, "log_softmax", "log_softmax"),
        ({"function": "Focal"}, (3, 28, 30), VALUES, "hard_sigmoid", "sigmoid"),
        ({"function": "lovasz", "per_image": True}, (3, 8, 9, 10), VOXELS, "log_softmax", "log_softmax"),
        ({"function": "Lovasz"}, (1, 28, 30), MASK, "linear", "logits"),
        ({"function": "Lovasz", "source": "sigmoid"}, (1, 28, 30), MASK, "sigmoid", "sigmoid"),
        ({"function": "Lovasz", "weight": [1, 2]}, (2, 28, 30), MASK, "sigmoid", "sigmoid"),
        ({"function": "MSE", "weight": [1, 2, 3]}, (3, 28, 30), VALUES, "linear", "probabilities"),
        ({"function": "MSE", "weight": [1, 2], "ignore_index": 255}, (1, 28, 30), MASK, "linear", "probabilities"),
        ({"function": "BCE", "ignore_index": 0}, (1,), Target("labels", (), 2), "sigmoid", "sigmoid"),
    ],
)
def test_what_fits(section, keys, shape, target, last, source):
    fitted = fit(section(**keys), shape, target, last)
    assert (fitted.source, fitted.warnings) == (source, ())
    assert pickle.loads(pickle.dumps(fitted)) == fitted


@pytest.mark.parametrize(
    ("keys", "shape", "target", "last", "warning"),
    [
        (
            {"function": "NLL"},
            (10,),
            LABELS,
            "softmax",
            'neural_network.loss: NLL after softmax: the log is taken ("source": "softmax" says that this is meant)',
        ),
        (
            {"function": "BCE", "source": "logits"},
            (10,),
            LABELS,
            "sigmoid",
            'neural_network.loss.source: is "logits", but the network ends in sigmoid',
        ),
        (
            {"function": "NLL"},
            (12,),
            LABELS,
            "log_softmax",
            "neural_network.loss: the network has 12 outputs, the targets 10 classes",
        ),
        (
            {"function": "Lovasz"},
            (1, 28, 30),
            MASK,
            "sigmoid",
            "neural_network.loss: Lovasz after sigmoid: logits are computed back from it "
            '("source": "sigmoid" says that this is meant)',
        ),
        (
            {"function": "Lovasz", "source": "logits"},
            (1, 28, 30),
            MASK,
            "sigmoid",
            'neural_network.loss.source: is "logits", but the network ends in sigmoid',
        ),
    ],
)
def test_what_is_warned_of(section, keys, shape, target, last, warning):
    assert fit(section(**keys), shape, target, last).warnings == (warning,)


@pytest.mark.parametrize(
    ("keys", "shape", "target", "last", "message"),
    [
        (
            {"function": "NLL"},
            (10,),
            LABELS,
            "linear",
            "neural_network.loss: NLL takes log-probabilities, and the network ends in linear\n"
            '    end the network with log_softmax, or say "source": "logits"',
        ),
        (
            {"function": "NLL"},
            (10,),
            LABELS,
            "relu",
            "neural_network.loss: NLL takes log-probabilities, and the network ends in relu\n"
            '    end the network with log_softmax, or say with "source" what it gives',
        ),
        (
            {"function": "NLL", "source": "sigmoid"},
            (10,),
            LABELS,
            "sigmoid",
            'neural_network.loss.source: NLL cannot use "sigmoid"\n'
            "    allowed: log_softmax, softmax, probabilities, logits\n"
            "    end the network with log_softmax, or use BCE",
        ),
        (
            {"function": "Dice"},
            (2, 28, 30),
            MASK,
            "tanh",
            "neural_network.loss: Dice takes probabilities or logits, and the network ends in tanh\n"
            '    end the network with sigmoid or softmax, or say with "source" what it gives',
        ),
        (
            {"function": "BCE"},
            (1, 28, 30),
            MASK,
            "softmax",
            "neural_network.loss: softmax over the one channel of (1, 28, 30) gives 1 whatever the network says\n"
            "    end the network with sigmoid",
        ),
        (
            {"function": "MSE"},
            (1, None, 30),
            MASK,
            "log_softmax",
            "neural_network.loss: log_softmax over the one channel of (1, ?, 30) gives 0 whatever the network says\n"
            "    end the network with sigmoid",
        ),
        (
            {"function": "NLL"},
            (10, 7, 7),
            LABELS,
            "log_softmax",
            "neural_network.loss: NLL cannot compare the network's output (10, 7, 7) with the targets, one class of 10 "
            "a sample\n    end the network with Flatten or a global pooling, and a Dense layer",
        ),
        (
            {"function": "NLL"},
            (2, 28, 28),
            MASK,
            "log_softmax",
            "neural_network.loss: NLL cannot compare the network's output (2, 28, 28) with the targets, one class of 2 "
            "a pixel of (28, 30)\n    let the last layer's height, width and so on be (28, 30)",
        ),
        (
            {"function": "NLL"},
            (3, 28, 30),
            VALUES,
            "log_softmax",
            "neural_network.loss: NLL compares the network's output (3, 28, 30) with a class index, and the targets "
            "are values (3, 28, 30)\n"
            '    use labels, or masks with "target_is_mask": true; or another loss, MSE for example',
        ),
        (
            {"function": "MSE"},
            (1, 28, 30),
            VALUES,
            "linear",
            "neural_network.loss: MSE cannot compare the network's output (1, 28, 30) with the targets (3, 28, 30)\n"
            "    make the last layer give (3, 28, 30)",
        ),
        (
            {"function": "NLL"},
            (1, 28, 30),
            MASK,
            "log_softmax",
            "neural_network.loss: NLL takes an output for each class: the network's output (1, 28, 30) has one, "
            "against the targets, one class of 2 a pixel of (28, 30)\n"
            "    end the network with 2 outputs and log_softmax, or use BCE",
        ),
        (
            {"function": "BCE"},
            (1,),
            LABELS,
            "sigmoid",
            "neural_network.loss: BCE takes an output for each class: the network's output (1,) has 1, against the "
            "targets, one class of 10 a sample\n    end the network with 10 outputs",
        ),
        (
            {"function": "NLL", "weight": [1, 2]},
            (10,),
            LABELS,
            "log_softmax",
            "neural_network.loss.weight: has 2 numbers, the network's output (10,) needs 10\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "NLL", "source": "log_softmax", "ignore_index": 10},
            (10,),
            LABELS,
            "log_softmax",
            "neural_network.loss.ignore_index: 10 is none of the 10 classes\n    allowed: 0 to 9",
        ),
        (
            {"function": "BCE", "ignore_index": -100},
            (1,),
            Target("labels", ()),
            "sigmoid",
            "neural_network.loss.ignore_index: -100 is none of the 2 classes\n    allowed: 0 to 1",
        ),
        (
            {"function": "MSE", "ignore_index": 0, "weight": [1, 2]},
            (3, 28, 30),
            VALUES,
            "linear",
            "neural_network.loss.weight: has 2 numbers, the network's output (3, 28, 30) needs 3\n"
            "    allowed: one number a class\n"
            "neural_network.loss.ignore_index: leaves a class out, and the targets are values\n"
            '    take it away, or use labels, or masks with "target_is_mask": true',
        ),
        (
            {"function": "MSE", "weight": [1]},
            (1, 28, 30),
            MASK,
            "sigmoid",
            "neural_network.loss.weight: has 1 number, the network's output (1, 28, 30) needs 2\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "Jaccard", "weight": [1, 2]},
            (1, 28, 30),
            MASK,
            "sigmoid",
            "neural_network.loss.weight: has 2 numbers, the network's output (1, 28, 30) needs 1\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "Focal", "alpha": [1, 2], "weight": [1, 2, 3, 4]},
            (3, 8, 9, 10),
            VOXELS,
            "softmax",
            "neural_network.loss.weight: has 4 numbers, the network's output (3, 8, 9, 10) needs 3\n"
            "    allowed: one number a class\n"
            "neural_network.loss.alpha: has 2 numbers, the network's output (3, 8, 9, 10) needs 3\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "Focal", "alpha": [1]},
            (1, 28, None),
            MASK,
            "sigmoid",
            "neural_network.loss.alpha: has 1 number, the network's output (1, 28, ?) needs 2\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "Focal"},
            (3, 28, 30),
            MASK,
            "relu",
            "neural_network.loss: Focal takes probabilities or logits, and the network ends in relu\n"
            '    end the network with sigmoid or softmax, or say with "source" what it gives',
        ),
        (
            {"function": "Lovasz"},
            (3, 28, 30),
            VALUES,
            "softmax",
            "neural_network.loss: Lovasz compares the network's output (3, 28, 30) with a class index, and the targets "
            "are values (3, 28, 30)\n"
            '    use labels, or masks with "target_is_mask": true; or another loss, MSE for example',
        ),
        (
            {"function": "Jaccard"},
            (2, 8, 9, 10),
            VOXELS,
            "softmax",
            "neural_network.loss: Jaccard takes an output for each class: the network's output (2, 8, 9, 10) has 2, "
            "against the targets, one class of 3 a voxel of (8, 9, 10)\n    end the network with 3 outputs",
        ),
        (
            {"function": "Lovasz", "weight": [1, 2, 3]},
            (2, 8, 9),
            VOXELS,
            "softmax",
            "neural_network.loss: Lovasz cannot compare the network's output (2, 8, 9) with the targets, one class of "
            "3 a voxel of (8, 9, 10)\n    let the last layer's height, width and so on be (8, 9, 10)\n"
            "neural_network.loss: Lovasz takes an output for each class: the network's output (2, 8, 9) has 2, against "
            "the targets, one class of 3 a voxel of (8, 9, 10)\n    end the network with 3 outputs\n"
            "neural_network.loss.weight: has 3 numbers, the network's output (2, 8, 9) needs 2\n"
            "    allowed: one number a class",
        ),
        (
            {"function": "NLL"},
            (10,),
            LABELS,
            "hard_sigmoid",
            "neural_network.loss: NLL takes log-probabilities, and the network ends in hard_sigmoid\n"
            '    end the network with log_softmax, or say with "source" what it gives',
        ),
        (
            {"function": "NLL", "weight": [1]},
            (8, 4),
            LABELS,
            "linear",
            "neural_network.loss: NLL cannot compare the network's output (8, 4) with the targets, one class of 10 a "
            "sample\n    end the network with Flatten or a global pooling, and a Dense layer\n"
            "neural_network.loss: NLL takes an output for each class: the network's output (8, 4) has 8, against the "
            "targets, one class of 10 a sample\n    end the network with 10 outputs\n"
            "neural_network.loss.weight: has 1 number, the network's output (8, 4) needs 8\n"
            "    allowed: one number a class\n"
            "neural_network.loss: NLL takes log-probabilities, and the network ends in linear\n"
            '    end the network with log_softmax, or say "source": "logits"',
        ),
    ],
)
def test_what_is_refused(section, keys, shape, target, last, message):
    assert refusal(lambda: fit(section(**keys), shape, target, last)) == message


def test_neither_sections_nor_fit_need_torch():
    code = "import sys, rml_core.loss.fit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_holds_the_names(section):
    assert all(section(function=name.lower()).function == name for name in LOSSES)


@pytest.mark.parametrize(
    ("many", "said"),
    [
        (3, "class 0, class 1, class 2"),
        (12, "class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, class 8, class 9 and 2 more"),
    ],
)
def test_a_class_too_many_shows_by_its_name(section, many, said):
    names, loss, target = (
        [f"class {index}" for index in range(many)],
        section(function="NLL"),
        Target("labels", (), many),
    )
    assert refusal(lambda: fit(loss, (2,), target, "log_softmax", names=names)) == (
        "neural_network.loss: NLL takes an output for each class: the network's output (2,) has 2, against the "
        f"targets, one class of {many} a sample\n"
        f"    end the network with {many} outputs, if these are the classes: {said}"
    )
