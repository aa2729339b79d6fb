import json
from pathlib import Path

import pytest

from rml_core.config.problem import Refused
from rml_core.layers import LAYERS
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

NAMES = ", ".join(LAYERS)


def layer(class_name, name=None, inbound=None, **config):
    item = {"class_name": class_name, "config": config}
    return item | ({"name": name} if name else {}) | ({"inbound_nodes": inbound} if inbound is not None else {})


def refused(source, base=None, shape=None):
    with pytest.raises(Refused) as error:
        infer(read(source, "neural_network.layers", base or Path()), shape)
    return str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"filters": 4, "kernel_size": [3, 3, 3]},
            "kernel_size: [3, 3, 3] does not fit\n    allowed: an integer or a list of 2, at least 1",
        ),
        (
            {"filters": 4, "kernel_size": 3, "stride": 2},
            "stride: unknown key\n    allowed: name, trainable, dtype, batch_input_shape, batch_shape, input_shape,"
            " activity_regularizer, dynamic, activation, use_bias, bias_initializer, bias_regularizer, bias_constraint,"
            " kernel_initializer, kernel_regularizer, kernel_constraint, kernel_size, strides, padding, dilation_rate,"
            ' data_format, filters, groups\n    did you mean "strides"?',
        ),
        (
            {"filters": 4, "kernel_size": 3, "padding": "smae"},
            'padding: unknown padding "smae"\n    allowed: valid, same\n    did you mean "same"?',
        ),
        (
            {"filters": 4, "kernel_size": 3, "padding": "causal"},
            'padding: unknown padding "causal"\n    allowed: valid, same',
        ),
        (
            {"filters": 4, "kernel_size": 3, "data_format": "channels_first"},
            'data_format: "channels_first" is not available yet\n    allowed: "channels_last", null',
        ),
        (
            {"filters": 4, "kernel_size": 3, "kernel_constraint": {"class_name": "MaxNorm", "config": {}}},
            'kernel_constraint: {"class_name": "MaxNorm", "config": {}} is not available yet\n    allowed: null',
        ),
        (
            {"filters": 4, "kernel_size": 3, "dtype": "float64"},
            'dtype: "float64" would change the computation\n    allowed: "float32", null\n'
            '    the precision is chosen for the whole run: "precision"',
        ),
        (
            {"filters": 4, "kernel_size": 3, "dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}},
            'dtype: {"class_name": "Policy", "config": {"name": "mixed_float16"}} would change the computation\n'
            '    allowed: "float32", null\n    the precision is chosen for the whole run: "precision"',
        ),
        ({"kernel_size": 3}, "filters: is missing"),
        ({"filters": 0, "kernel_size": 3}, "filters: 0 does not fit\n    allowed: greater than 0"),
        (
            {"filters": 2, "kernel_size": 3, "batch_input_shape": [8]},
            "batch_input_shape: [8] is not a shape\n"
            "    allowed: [batch, sizes ..., channels], null for what is not known",
        ),
        (
            {"filters": 2, "kernel_size": 3, "activation": {"class_name": "PReLU", "config": {}}},
            'activation: {"class_name": "PReLU", "config": {}} has weights of its own\n'
            "    put it into a layer of its own, after this one",
        ),
        (
            {"filters": 2, "kernel_size": 3, "activation": {"class_name": "LeakyReLU", "config": {"alpha": -1}}},
            "activation.config.negative_slope: -1 does not fit",
        ),
        (
            {"filters": 2, "kernel_size": 3, "activation": {"class_name": "gelu", "config": {"approximate": True}}},
            'activation: {"class_name": "gelu", "config": {"approximate": true}}: arguments of an activation are not'
            " available\n    allowed: a name, or a layer's object",
        ),
        *(
            (
                {"filters": 2, "kernel_size": 3, "activation": given},
                f'activation: "{name}" is a function in Python, and its code is not in the file\n'
                "    the code that built the network says which: write it in its place, as "
                '"relu", or {"class_name": "ReLU", "config": {"max_value": 20}}',
            )
            for name, given in (
                ("<lambda>", "<lambda>"),
                ("__lambda__", {"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}}),
            )
        ),
    ],
)
def test_a_wrong_config_is_said_with_its_path(config, message):
    assert refused([layer("Conv2D", **config)]) == f"neural_network.layers[0].config.{message}"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"class_name": "Conv2d "},
            f'.class_name: unknown layer "Conv2d "\n    allowed: {NAMES}\n    did you mean "Conv2D"?',
        ),
        (
            layer("lambda"),
            f'.class_name: unknown layer "lambda"\n    allowed: {NAMES}\n'
            "    a Lambda holds Python code, which is never run: say the same with layers of the language",
        ),
        (
            layer("LSTM", units=3),
            f'.class_name: unknown layer "LSTM"\n    allowed: {NAMES}\n'
            "    there are no recurrent layers in the language; Conv1D goes along a sequence",
        ),
        (
            layer("MultiHeadAttention"),
            f'.class_name: unknown layer "MultiHeadAttention"\n    allowed: {NAMES}\n'
            "    there are no layers of attention, and none of words, in the language",
        ),
        (
            layer("RandomFlip"),
            f'.class_name: unknown layer "RandomFlip"\n    allowed: {NAMES}\n'
            "    samples are changed before the network: take the layer out, and see data.transforms: "
            "random_horizontal_flip, random_vertical_flip",
        ),
        ({"config": {}}, f".class_name: is missing: the name of a layer\n    allowed: {NAMES}"),
        ({"class_name": 3}, f".class_name: 3 is not the name of a layer\n    allowed: {NAMES}"),
        (3, ": 3 is not a layer\n    allowed: an object"),
        (
            layer("Flatten") | {"inbound_node": []},
            ".inbound_node: unknown key\n    allowed: class_name, config, name, inbound_nodes\n"
            '    did you mean "inbound_nodes"?',
        ),
        ({"class_name": "Flatten", "config": 3}, ".config: 3 does not fit\n    allowed: an object"),
        (
            layer("LeakyReLU", alpha=0.1, negative_slope=0.2),
            '.config.alpha: stands beside "negative_slope"\n    allowed: one of the two',
        ),
        (
            layer("BatchNormalization", axis=[1, 2]),
            ".config.axis: [1, 2] is not available\n    allowed: one axis: -1, the channels",
        ),
        (
            layer("Conv2DTranspose", filters=2, kernel_size=3, strides=2, output_padding=2),
            ".config.output_padding: 2 does not fit\n    allowed: less than the strides, [2, 2]",
        ),
        (
            layer("Conv2DTranspose", filters=2, kernel_size=3, groups=2),
            ".config.groups: 2: this layer has no groups\n    allowed: 1",
        ),
        (
            layer("UpSampling2D", interpolation="cubic"),
            '.config.interpolation: unknown interpolation "cubic"\n'
            '    allowed: nearest, bilinear, bicubic, lanczos3, lanczos5, area\n    did you mean "bicubic"?',
        ),
        (
            layer("ZeroPadding2D", padding=[1, 2, 3]),
            ".config.padding: [1, 2, 3] does not fit\n"
            "    allowed: an integer, or a list of 2: integers, or [before, after]",
        ),
        (
            layer("Reshape", target_shape=[-1, -1]),
            ".config.target_shape: [-1, -1] is not a shape\n    allowed: a list of sizes, of which one may be -1",
        ),
        (layer("Dropout", rate=1.5), ".config.rate: 1.5 does not fit\n    allowed: less than or equal to 1"),
        (
            layer("Softmax", axis="x"),
            '.config.axis: "x" is not an axis\n'
            "    allowed: an integer, or a list of integers, as Keras counts: -1 is channels",
        ),
    ],
)
def test_a_wrong_layer(item, message):
    assert refused([item]) == f"neural_network.layers[0]{message}"


def test_every_problem_is_said_at_once():
    source = [layer("Conv2D", filters=-1, kernel_size=3), layer("Dense"), layer("Flaten")]
    assert [line for line in refused(source).splitlines() if not line.startswith(" ")] == [
        "neural_network.layers[0].config.filters: -1 does not fit",
        "neural_network.layers[1].config.units: is missing",
        'neural_network.layers[2].class_name: unknown layer "Flaten"',
    ]


@pytest.mark.parametrize("name", LAYERS)
def test_class_names_in_any_case(name):
    one, other = (refused([layer(spelling, nonsense=1)]) for spelling in (name.upper(), name.lower()))
    assert one == other
    assert "neural_network.layers[0].config.nonsense: unknown key" in one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, 'neural_network.layers: "model.json" does not exist\n    looked for {base}/model.json'),
        (
            "[1,",
            'neural_network.layers: "model.json" cannot be read as JSON: Expecting value: line 1 column 4 (char 3)\n'
            "    allowed: what Keras's model.to_json() writes, or a whole model: .h5, .keras",
        ),
        (
            "3",
            "model.json: 3 is not a network\n    allowed: a list of layers, a model object, or the path of a JSON file",
        ),
        ('[{"class_name": "Dense"}]', "model.json: [0].config.units: is missing"),
        (
            '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}]}}',
            "model.json: config.layers[0].config.units: is missing",
        ),
        (
            '{"class_name": "Sequental", "config": []}',
            'model.json: class_name: unknown model "Sequental"\n    allowed: Sequential, Functional, Model\n'
            '    did you mean "Sequential"?',
        ),
        (
            '{"class_name": "Model", "config": {}}',
            'model.json: config: {} is not a model\'s config\n    allowed: an object with "layers"',
        ),
        ("[]", "model.json: there are no layers\n    allowed: at least one"),
    ],
)
def test_a_file_and_what_may_be_wrong_with_it(tmp_path, text, message):
    if text is not None:
        (tmp_path / "model.json").write_text(text)
    assert refused("model.json", tmp_path) == message.replace("{base}", str(tmp_path))


def test_the_same_network_in_all_its_wrappings(tmp_path):
    layers = [layer("Dense", "a", units=3, batch_input_shape=[None, 4]), layer("Dense", "b", units=2)]
    whole = {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": layers},
        "keras_version": "2.9.0",
        "backend": "tensorflow",
    }
    (tmp_path / "list.json").write_text(json.dumps(layers))
    (tmp_path / "model.json").write_text(json.dumps(whole))
    (tmp_path / "twice.json").write_text(json.dumps(json.dumps(whole)))
    old = {"class_name": "Sequential", "config": layers, "keras_version": "2.1.2"}
    for source in (layers, whole, old, "list.json", "model.json", "twice.json", str(tmp_path / "model.json")):
        network = infer(read(source, "layers", tmp_path), None)
        assert [row.name for row in network.rows] == ["a", "b"]
        assert (network.parameters, network.layers, network.output_shape) == (23, 2, (2,))


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ([layer("Flatten")], 2),
        ({"class_name": "Sequential", "config": [layer("Flatten")], "keras_version": "2.15.0"}, 2),
        ({"class_name": "Sequential", "config": [layer("Flatten")], "keras_version": "3.4.1"}, 3),
        ({"class_name": "Sequential", "config": [layer("Flatten")], "module": "keras"}, 3),
        ({"class_name": "Sequential", "config": [layer("Flatten")]}, 2),
    ],
)
def test_the_version_of_keras_that_wrote_it(source, version):
    assert read(source, "layers", Path()).keras_version == version


@pytest.mark.parametrize(
    ("first", "shape"),
    [
        (layer("Dense", units=1, batch_input_shape=[None, 4]), (4,)),
        (layer("Dense", units=1, batch_shape=[8, 3, 4]), (3, 4)),
        (layer("Dense", units=1, input_shape=[None, 4]), (None, 4)),
        (layer("Input", shape=[5, 4]), (5, 4)),
        (layer("InputLayer", batch_input_shape=[None, 5, 4]), (5, 4)),
        (layer("InputLayer", batch_shape=[None, None, 4]), (None, 4)),
        (layer("Dense", units=1), None),
    ],
)
def test_where_the_shape_of_the_input_may_stand(first, shape):
    assert read([first, layer("Activation", activation="relu")], "layers", Path()).input_shape == shape


def test_layers_without_a_name_are_numbered():
    source = [
        layer("Dense", units=2),
        layer("Dense", "dense_1", units=2),
        layer("Dense", units=2),
        layer("ReLU", "a/b"),
    ]
    assert [entry.name for entry in read(source, "layers", Path()).entries] == ["dense", "dense_1", "dense_2", "a/b"]


def functional(*layers, **ends):
    return {"class_name": "Functional", "config": {"layers": list(layers), **ends}}


IN = layer("InputLayer", "in", [], batch_input_shape=[None, 4])


@pytest.mark.parametrize(
    ("layers", "ends", "message"),
    [
        (
            [
                IN,
                layer("InputLayer", "too", [], batch_input_shape=[None, 4]),
                layer("Add", "a", [[["in", 0, 0], ["too", 0, 0]]]),
            ],
            {},
            'config.layers: the network has several inputs: "in", "too"\n    allowed: one input',
        ),
        (
            [IN, layer("ReLU", "a", [[["in", 0, 0, {}]]]), layer("ReLU", "b", [[["in", 0, 0, {}]]])],
            {"output_layers": [["a", 0, 0], ["b", 0, 0]]},
            'config.output_layers: the network has several outputs: "a", "b"\n    allowed: one output',
        ),
        (
            [IN, layer("ReLU", "a", [[["in", 0, 0, {}]]]), layer("ReLU", "b", [[["in", 0, 0, {}]]])],
            {},
            'config.layers: the network has several outputs: "a", "b"\n    allowed: one output\n'
            '    join them, or leave out what leads nowhere: "inbound_nodes" names what feeds a layer',
        ),
        (
            [IN, layer("ReLU", "a", [[["b", 0, 0]]]), layer("ReLU", "b", [[["a", 0, 0]]])],
            {},
            'config.layers: these layers wait for each other: "a", "b"',
        ),
        (
            [IN, layer("ReLU", "relu", [[["inn", 0, 0]]])],
            {},
            'config.layers[1].inbound_nodes[0][0]: there is no layer "inn"\n    did you mean "in"?',
        ),
        (
            [IN, layer("ReLU", "a", [[["in", 0, 1]]])],
            {},
            'config.layers[1].inbound_nodes[0][0]: 1 is not an output of "in", which has one\n    allowed: 0',
        ),
        (
            [IN, layer("ReLU", "a", [[["in", 3, 0]]])],
            {},
            'config.layers[0].inbound_nodes: "in" has no call 3, which another layer uses\n    allowed: 0',
        ),
        (
            [IN, layer("BatchNormalization", "a", [[["in", 0, 0, {"training": 1}]]])],
            {},
            'config.layers[1].inbound_nodes[0][0]: a call with the arguments {"training": 1} is not available\n'
            '    allowed: {}, {"training": false}',
        ),
        (
            [IN, layer("ReLU", "a", "in")],
            {},
            'config.layers[1].inbound_nodes: "in" is not a list\n'
            '    allowed: what Keras writes: [[["layer", 0, 0, {}]]]',
        ),
        (
            [IN, layer("ReLU", "a", [{"args": ["in"], "kwargs": {}}])],
            {},
            'config.layers[1].inbound_nodes[0].args[0]: "in" is not the output of a layer\n'
            "    allowed: __keras_tensor__",
        ),
        (
            [IN, layer("ReLU", "a", [[["in", 0, 0, {"y": 3}]]])],
            {},
            'config.layers[1]: layer "a" (ReLU): takes the outputs of layers, and is given 3.0',
        ),
        (
            [IN, layer("Add", "a", [[["in", 0, 0, {"y": 1}], ["in", 0, 0]]])],
            {},
            'config.layers[1]: layer "a" (Add): takes one input beside a number, and is given 2',
        ),
        (
            [
                IN,
                {**functional(IN, layer("ReLU", "b", [[["in", 0, 0]]]), name="inner"), "name": "inner"}
                | {"inbound_nodes": [[["in", 0, 0, {"y": 2}]]]},
            ],
            {},
            'config.layers[1]: layer "inner" (Functional): takes the output of one layer, and is given 2',
        ),
        (
            [IN, layer("Subtract", "a", [[["in", 0, 0, {"y": 1, "x": 3}]]])],
            {},
            'config.layers[1]: layer "a" (Subtract): merges exactly 2 inputs, and is given 3\n'
            '    name them in "inbound_nodes"',
        ),
        (
            [IN, layer("ReLU", "in", [[["in", 0, 0]]])],
            {},
            'config.layers[1].name: another layer is called "in" too\n    give every layer a name of its own',
        ),
        (
            [IN, layer("ReLU", "a")],
            {"input_layers": [["a", 0, 0]]},
            'config.input_layers: [["a", 0, 0]] is not the input\n    allowed: "in"',
        ),
        (
            [IN, layer("ReLU", "a")],
            {"trainable": 3},
            "config.trainable: 3 does not fit\n    allowed: true, false",
        ),
        (
            [IN, layer("ReLU", "a")],
            {"layer": []},
            "config.layer: unknown key\n    allowed: name, layers, input_layers, output_layers, trainable\n"
            '    did you mean "layers"?',
        ),
    ],
)
def test_wrong_connections(layers, ends, message):
    assert refused(functional(*layers, **ends)) == f"neural_network.layers.{message}"


@pytest.mark.parametrize(
    "inbound",
    [
        [[["in", 0, 0, {}], ["a", 0, 0, {}]]],
        [[["in", 0, 0], ["a", 0, 0]]],
        [
            {
                "args": [
                    [
                        {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}
                        for name in ("in", "a")
                    ]
                ],
                "kwargs": {"training": None},
            }
        ],
    ],
)
@pytest.mark.parametrize(
    "ends", [{}, {"output_layers": ["b", 0, 0]}, {"output_layers": [["b", 0, 0]], "input_layers": {"x": ["in", 0, 0]}}]
)
def test_connections_in_their_spellings(inbound, ends):
    source = functional(IN, layer("Dense", "a", [["in", 0, 0, {}]], units=4), layer("Add", "b", inbound), **ends)
    network = infer(read(source, "layers", Path()), None)
    assert network.rows[2].inbound == ("in", "a")


def test_layers_may_be_listed_before_what_feeds_them():
    source = functional(
        layer("Dense", "b", [[["a", 0, 0]]], units=2), layer("Dense", "a", [[["in", 0, 0]]], units=3), IN
    )
    assert [row.name for row in infer(read(source, "layers", Path()), None).rows] == ["in", "a", "b"]
