"""Random numbers depend on the seed and the place, on nothing else."""

from rml_core.config.seed import derive, generator


def test_the_numbers_of_a_place_never_change():
    assert derive(0, "order", 1) == 4004135407344543170
    assert generator(0, "order", 1).permutation(6).tolist() == generator(0, "order", 1).permutation(6).tolist()


def test_other_places_have_other_numbers():
    places = [(seed, name, epoch) for seed in range(5) for name in ("order", "transform") for epoch in range(5)]
    assert len({derive(seed, name, epoch) for seed, name, epoch in places}) == len(places)
    assert derive(0, "a", "b") != derive(0, "ab")
