"""Shapes that are worked out without torch are those that come out, for known sizes and for sizes left open."""

from pathlib import Path

import hypothesis.strategies as st
import torch
from hypothesis import assume, given, settings

from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

small = st.integers(1, 4)
padding = st.sampled_from(["valid", "same", 0, 1, 2])


def windows(kind, rank, **more):
    keys = {"kernel_size": small, "strides": st.integers(1, 3), "dilation_rate": st.integers(1, 2), "padding": padding}
    return st.tuples(st.just(f"{kind}{rank}D"), st.just(rank), st.fixed_dictionaries(keys | more))


def pairs(kind, key, rank):
    each = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=rank, max_size=rank)
    return st.tuples(st.just(f"{kind}{rank}D"), st.just(rank), st.fixed_dictionaries({key: each}))


LAYERS = st.integers(1, 3).flatmap(
    lambda rank: st.one_of(
        windows("Conv", rank, filters=st.just(4)),
        windows("DepthwiseConv", rank, depth_multiplier=st.integers(1, 2)),
        windows("SeparableConv", min(rank, 2), filters=small),
        windows("Conv", 1, filters=st.just(4), padding=st.just("causal")),
        pairs("ZeroPadding", "padding", rank),
        pairs("Cropping", "cropping", rank) if rank > 1 else pairs("Cropping", "cropping", 2),
        st.tuples(
            st.just("Permute"),
            st.just(rank),
            st.fixed_dictionaries({"dims": st.permutations(range(1, rank + 2))}),
        ),
    )
)


@settings(max_examples=150, deadline=None)
@given(layer=LAYERS, sizes=st.lists(st.integers(3, 9), min_size=3, max_size=3))
def test_the_shape_that_is_worked_out_is_the_one_that_comes_out(layer, sizes):
    class_name, rank, config = layer
    source = [{"class_name": class_name, "name": "layer", "config": config}]
    shape = (3, *sizes[:rank])
    try:
        network = infer(read(source, "layers", Path()), shape)
    except Refused:
        assume(False)
    x = torch.randn(2, *shape)
    y = build(network, 0)(x)
    assert tuple(y.shape[1:]) == network.output_shape
    if class_name == "Permute":
        return
    graph = infer(read(source, "layers", Path()), (3, *[None] * rank))
    assert graph.output_shape == (network.output_shape[0], *[None] * rank)
    assert torch.equal(build(graph, 0)(x), y)
