"""Whatever stands in the place of a network, the answer is a list of problems."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rml_core.config.problem import Refused
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 3, "activation": "softmax", "use_bias": True}}
LIST = [
    {
        "class_name": "Conv2D",
        "config": {"filters": 4, "kernel_size": [3, 3], "padding": "same", "batch_input_shape": [None, 8, 8, 1]},
    },
    {"class_name": "BatchNormalization", "config": {"axis": [3], "momentum": 0.9}},
    {"class_name": "MaxPooling2D", "config": {"pool_size": 2}},
    {"class_name": "Conv2DTranspose", "config": {"filters": 2, "kernel_size": 3, "strides": 2, "output_padding": 1}},
    {"class_name": "ZeroPadding2D", "config": {"padding": [[1, 0], [0, 1]]}},
    {"class_name": "UpSampling2D", "config": {"size": 2, "interpolation": "bilinear"}},
    {"class_name": "Reshape", "config": {"target_shape": [-1, 2]}},
    {"class_name": "Flatten", "config": {}},
    DENSE,
]
INNER = {
    "class_name": "Functional",
    "config": {
        "name": "inner",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8]}, "name": "x", "inbound_nodes": []},
            {"class_name": "Dense", "config": {"units": 8}, "name": "a", "inbound_nodes": [[["x", 0, 0, {}]]]},
            {"class_name": "Add", "config": {}, "name": "b", "inbound_nodes": [[["x", 0, 0, {}], ["a", 0, 0, {}]]]},
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["b", 0, 0]],
    },
    "name": "inner",
    "inbound_nodes": [[["in", 0, 0, {}]], [["inner", 1, 0, {}]]],
}
MODEL = {
    "class_name": "Functional",
    "config": {
        "name": "outer",
        "trainable": True,
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8]}, "name": "in", "inbound_nodes": []},
            INNER,
            {
                "class_name": "Concatenate",
                "config": {"axis": -1},
                "name": "c",
                "inbound_nodes": [[["inner", 1, 0, {}], ["inner", 2, 0, {}]]],
            },
            {**DENSE, "name": "d", "inbound_nodes": [[["c", 0, 0, {}]]]},
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["d", 0, 0]],
    },
    "keras_version": "2.15.0",
    "backend": "tensorflow",
}
KERAS_3 = {
    "module": "keras",
    "class_name": "Functional",
    "config": {
        "layers": [
            {
                "module": "keras.layers",
                "class_name": "InputLayer",
                "config": {"batch_shape": [None, 8], "name": "in"},
                "registered_name": None,
                "name": "in",
                "inbound_nodes": [],
            },
            {
                **DENSE,
                "name": "d",
                "inbound_nodes": [
                    {
                        "args": [
                            {
                                "class_name": "__keras_tensor__",
                                "config": {"shape": [None, 8], "keras_history": ["in", 0, 0]},
                            }
                        ],
                        "kwargs": {},
                    }
                ],
            },
        ],
        "input_layers": ["in", 0, 0],
        "output_layers": ["d", 0, 0],
    },
}
GOOD = [LIST, MODEL, KERAS_3]

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**40)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["Dense", "same", "in", "d", "inner"]),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["class_name", "config", "args", "name"]), inside, max_size=3
        )
    ),
    max_leaves=5,
)


def places(value, so_far=()):
    yield so_far
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*so_far, key))


@st.composite
def broken(draw):
    """A good network with some of its parts replaced, dropped, doubled or renamed."""
    value = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places(value) if place] or [()]))
        if not path:
            return draw(JUNK)
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        change = draw(st.sampled_from(["replace", "drop", "double", "rename"]))
        if change == "drop":
            del parent[key]
        elif change == "double" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change == "rename" and isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = parent.pop(key)
        else:
            parent[key] = draw(JUNK)
    return value


def answer(source):
    try:
        network = infer(read(source, "neural_network.layers", Path()), None)
        assert network.rows is not None
        assert isinstance(network.last_activation, str)
    except Refused as refused:
        problems = refused.problems
    else:
        return
    assert problems
    for problem in problems:
        assert problem.where.startswith("neural_network.layers")
        assert problem.what


def test_the_good_ones_are_good():
    for source in GOOD:
        infer(read(source, "layers", Path()), None)


@given(broken())
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_a_broken_network_is_refused_or_read(source):
    answer(source)


@given(JUNK)
@settings(deadline=None, max_examples=100)
def test_junk(source):
    if not isinstance(source, str):
        answer(source)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "nul", '"[]', "\x00", '{"class_name": 1e999}'])
def test_a_file_of_nonsense(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(Refused):
        read("model.json", "neural_network.layers", tmp_path)


def test_nesting_beyond_reason():
    source = [DENSE]
    for _ in range(5000):
        source = [{"class_name": "Sequential", "config": {"layers": source}}]
    with pytest.raises(Refused) as refused:
        read(source, "neural_network.layers", Path())
    assert str(refused.value) == "neural_network.layers: models are nested too deeply"


def test_a_thousand_layers_in_a_row_and_as_many_connections(tmp_path):
    layers = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4]}, "name": "0"}]
    layers += [
        {
            "class_name": "Add",
            "config": {},
            "name": str(i),
            "inbound_nodes": [[[str(i - 1), 0, 0], [str(i // 2), 0, 0]]],
        }
        for i in range(1, 2000)
    ]
    layers[1]["inbound_nodes"] = [[["0", 0, 0]]]
    (tmp_path / "model.json").write_text(json.dumps(layers))
    graph = read("model.json", "layers", tmp_path)
    assert infer(graph, None).output_shape == (4,)


def test_a_bare_list_whose_input_is_not_there():
    source = [
        {"class_name": "Flatten", "config": {"name": "f"}, "inbound_nodes": [[["input_1", 0, 0, {}]]]},
        {"class_name": "Dense", "config": {"units": 2}},
    ]
    with pytest.raises(Refused) as refused:
        read(source, "layers", Path())
    assert str(refused.value) == (
        'layers[0].inbound_nodes[0][0]: there is no layer "input_1"\n'
        '    if it is the input, put {"class_name": "InputLayer", "config": {"name": "input_1"}} before the first '
        'layer, or leave out "inbound_nodes" there'
    )
