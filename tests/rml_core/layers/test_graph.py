from pathlib import Path

import pytest

from rml_core.config.problem import Refused
from rml_core.layers.dot import to_dot
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read


def network(*layers, shape=None):
    source = [{"class_name": name, "config": config} for name, config in layers]
    return infer(read(source, "neural_network.layers", Path()), shape)


def refused(*layers, shape=None):
    with pytest.raises(Refused) as error:
        network(*layers, shape=shape)
    return str(error.value)


CONV = ("Conv2D", {"filters": 4, "kernel_size": 3})


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        (
            [("Conv2D", {"filters": 4, "kernel_size": [5, 3]})],
            (3, 4, 8),
            '[0]: layer "conv2d" (Conv2D): its kernel (5, 3) is larger than its input (4, 8, 3)\n'
            '    a larger input, a smaller kernel, or "padding": "same"',
        ),
        (
            [("Conv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2})],
            (3, 4, 8),
            '[0]: layer "conv2d" (Conv2D): its kernel (3, 3), which dilation makes (5, 5), is larger than its input'
            ' (4, 8, 3)\n    a larger input, a smaller kernel, or "padding": "same"',
        ),
        (
            [("MaxPooling2D", {"pool_size": 8})],
            (3, 4, 8),
            '[0]: layer "maxpooling2d" (MaxPooling2D): its window (8, 8) is larger than its input (4, 8, 3)\n'
            '    a larger input, fewer pooling layers, or "padding": "same"',
        ),
        (
            [CONV],
            (3,),
            '[0]: layer "conv2d" (Conv2D): needs an input (size, size, channels), and is given (3)',
        ),
        (
            [("Conv2D", {"filters": 4, "kernel_size": 3, "groups": 3})],
            (4, 8, 8),
            '[0]: layer "conv2d" (Conv2D): its 3 groups do not divide both the 4 channels of its input (8, 8, 4)'
            " and its 4 filters",
        ),
        (
            [("Flatten", {}), ("Dense", {"units": 3})],
            (3, None, 8),
            '[1]: layer "dense" (Dense): needs to know how many channels its input (?) has\n'
            "    give the sizes of the network's input, or pool them away before this layer",
        ),
        (
            [("Reshape", {"target_shape": [5, -1]})],
            (3, 4, 4),
            '[0]: layer "reshape" (Reshape): the 48 elements of its input (4, 4, 3) cannot be given the shape (5, -1)',
        ),
        (
            [("Subtract", {})],
            (3, 4, 4),
            '[0]: layer "subtract" (Subtract): merges exactly 2 inputs, and is given 1\n'
            '    name them in "inbound_nodes"',
        ),
        (
            [("Softmax", {"axis": 4})],
            (3, 4, 4),
            '[0]: layer "softmax" (Softmax): axis [4] is not one of the axes of its input (4, 4, 3)',
        ),
        (
            [("BatchNormalization", {"axis": 4})],
            (3, 4, 4),
            '[0]: layer "batchnormalization" (BatchNormalization): axis 4 is not one of the axes of its input'
            " (4, 4, 3)",
        ),
        (
            [("Dense", {"units": 3})],
            None,
            ": the network does not say the shape of its input\n"
            '    give its first layer "batch_input_shape": [null, height, width, channels]',
        ),
        (
            [("Dense", {"units": 3, "input_shape": [8, 8, 3]})],
            (1, 8, 8),
            ": the network's input is (8, 8, 3), channels last, but the samples are (8, 8, 1)\n"
            "    make the channels agree; images are of one channel with grayscale, else of three",
        ),
        (
            [("Dense", {"units": 3, "input_shape": [8, 8, 3]})],
            (3, 8, 9),
            ": the network's input is (8, 8, 3), channels last, but the samples are (8, 9, 3)\n"
            "    write null for the sizes that may vary, or make the samples fit",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_both_shapes(layers, shape, message):
    assert refused(*layers, shape=shape) == f"neural_network.layers{message}"


def merged(class_name, *layers):
    """A network that merges branches from one input (8, 8, 3)."""
    source = [{"class_name": "Input", "config": {"shape": [8, 8, 3]}, "name": "in"}]
    for name, kind, config in layers:
        source.append({"class_name": kind, "config": config, "name": name, "inbound_nodes": [[["in", 0, 0]]]})
    inbound = [[[name, 0, 0] for name, _, _ in layers]]
    return [*source, {"class_name": class_name, "config": {}, "name": "m", "inbound_nodes": inbound}]


@pytest.mark.parametrize(
    ("class_name", "other", "message"),
    [
        ("Add", ("b", "ZeroPadding2D", {}), "its inputs (8, 8, 3) and (10, 10, 3) do not fit together"),
        (
            "Concatenate",
            ("b", "MaxPooling2D", {"strides": 3}),
            "its inputs (8, 8, 3) and (3, 3, 3) differ in more than the axis it joins, -1\n"
            "    sizes that are divisible by all the strides before, or cropping or padding",
        ),
        ("Concatenate", ("b", "Flatten", {}), "its inputs (8, 8, 3) and (192) differ in their number of axes"),
    ],
)
def test_branches_that_do_not_fit(class_name, other, message):
    with pytest.raises(Refused) as error:
        infer(read(merged(class_name, ("a", "ReLU", {}), other), "layers", Path()), None)
    assert str(error.value) == f'layers[3]: layer "m" ({class_name}): {message}'


def test_independent_misfits_are_said_together():
    source = merged("Add", ("a", "Conv2D", {"filters": 1, "kernel_size": 9}), ("b", "MaxPooling2D", {"pool_size": 9}))
    with pytest.raises(Refused) as error:
        infer(read(source, "layers", Path()), None)
    assert [problem.where for problem in error.value.problems] == ["layers[1]", "layers[2]"]


def test_a_shared_layer_cannot_have_two_shapes_of_weights():
    source = [
        {"class_name": "Input", "config": {"shape": [4]}, "name": "in"},
        {"class_name": "Dense", "config": {"units": 3}, "name": "d", "inbound_nodes": [[["in", 0, 0]], [["d", 0, 0]]]},
    ]
    with pytest.raises(Refused) as error:
        infer(read(source, "layers", Path()), None)
    assert str(error.value) == (
        'layers[1]: layer "d" (Dense): it is shared, and cannot be one layer for both (4) and (3)'
    )


def test_names_that_differ_by_a_dot_alone():
    assert refused(("ReLU", {"name": "a.b"}), ("ReLU", {"name": "a/b"}), shape=(3,)) == (
        'neural_network.layers[1]: layer "a/b" (ReLU): another layer is called "a/b" too\n'
        "    give every layer a name of its own"
    )


def test_a_nested_model_wants_its_own_input():
    inner = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Dense", "config": {"units": 2, "input_shape": [5]}}]},
    }
    with pytest.raises(Refused) as error:
        infer(read([inner], "layers", Path()), (4,))
    assert str(error.value).splitlines()[0].startswith("layers: the network's input is (5), channels last")
    outer = [{"class_name": "Dense", "config": {"units": 4}}, inner]
    with pytest.raises(Refused) as error:
        infer(read(outer, "layers", Path()), (4,))
    assert str(error.value) == 'layers[1]: layer "sequential" (Sequential): its input is (5), but it is given (4)'


def test_freezing_reaches_into_nested_models():
    norm = {"class_name": "BatchNormalization", "config": {}, "name": "n"}
    inner = {"class_name": "Sequential", "config": {"layers": [norm], "trainable": False}, "name": "s"}
    dense = {"class_name": "Dense", "config": {"units": 2, "trainable": False}, "name": "d"}
    found = infer(read([inner, dense, {"class_name": "Dense", "config": {"units": 3}}], "layers", Path()), (4,))
    assert [(row.name, row.parameters, row.trainable) for row in found.rows] == [
        ("s/n", 16, 0),
        ("d", 10, 0),
        ("dense", 9, 9),
    ]
    assert (found.parameters, found.trainable, found.layers) == (35, 9, 3)


def test_sizes_that_only_the_data_know():
    found = network(CONV, ("GlobalMaxPooling2D", {}), ("Dense", {"units": 2}), shape=(1, None, None))
    assert [row.output_shape for row in found.rows] == [(None, None, 4), (4,), (2,)]
    assert found.input_shape == (1, None, None)


def test_what_the_last_layer_is():
    assert network(CONV, ("Flatten", {}), shape=(1, 8, 8)).last_layer == "neural_network.layers[1]"


def test_graphviz():
    found = network(
        ("Dense", {"units": 2, "name": 'a "b" \\'}), ("BatchNormalization", {"name": "n/1"}), ("ReLU", {}), shape=(3,)
    )
    assert to_dot(found) == (
        "digraph network {\n"
        "  rankdir=TB;\n"
        '  node [shape=box, fontname="Helvetica"];\n'
        '  layer0 [label="a \\"b\\" \\\\\\nDense\\n(2)\\n8 parameters"];\n'
        '  layer1 [label="n/1\\nBatchNormalization\\n(2)\\n8 parameters, 4 not trainable"];\n'
        '  layer2 [label="relu\\nReLU\\n(2)"];\n'
        "  layer0 -> layer1;\n"
        "  layer1 -> layer2;\n"
        "}\n"
    )


def test_reading_and_inferring_need_no_torch():
    import subprocess
    import sys

    code = "import sys, rml_core.layers.keras_json, rml_core.layers.dot; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
