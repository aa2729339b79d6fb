"""Random numbers depend on the seed and the place, on nothing else."""

import numpy as np

from rml_core.config.seed import Generators, derive, generator


def test_the_numbers_of_a_place_never_change():
    assert derive(0, "order", 1) == 4004135407344543170
    assert generator(0, "order", 1).permutation(6).tolist() == generator(0, "order", 1).permutation(6).tolist()


def test_other_places_have_other_numbers():
    places = [(seed, name, epoch) for seed in range(5) for name in ("order", "transform") for epoch in range(5)]
    assert len({derive(seed, name, epoch) for seed, name, epoch in places}) == len(places)
    assert derive(0, "a", "b") != derive(0, "ab")


def test_generators_give_what_a_new_one_gives_at_every_place():
    generators = Generators()
    for place in [("transform", 1, 0), ("transform", 1, 1), ("order", 2), ("transform", 1, 0)]:
        one, other = generators.at(3, *place), generator(3, *place)
        for draw in (
            lambda rng: rng.random(5),
            lambda rng: rng.integers(0, 9, 3, dtype=np.uint32),
            lambda rng: rng.integers(0, [4, 7], (3, 2), endpoint=True),
            lambda rng: rng.permutation(9),
            lambda rng: rng.random(3, np.float32),
        ):
            np.testing.assert_array_equal(draw(one), draw(other))
