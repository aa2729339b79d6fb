import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.loss import extension


def by_definition(errors, of_class):
    """Sets of wrong pixels, from the worst one on: each error times the growth of the set's Jaccard loss."""
    there, wrong, before, total = set(np.flatnonzero(of_class)), set(), 0.0, 0.0
    for pixel in np.argsort(-errors, kind="stable"):
        wrong.add(int(pixel))
        jaccard = len(wrong) / len(wrong | there)
        total += errors[pixel] * (jaccard - before)
        before = jaccard
    return total


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10000), pixels=st.integers(1, 12), rows=st.integers(1, 3), share=st.sampled_from([0, 0.5, 1])
)
def test_it_is_its_definition(seed, pixels, rows, share):
    """With ties, errors of 0, rows without a pixel of the class and rows of nothing else."""
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 4, (rows, pixels)) * rng.uniform(0.1, 3)
    of_class = rng.uniform(size=(rows, pixels)) < share
    values, growth = extension.extension(torch.tensor(errors), torch.tensor(of_class), True)
    expected = [by_definition(*row) for row in zip(errors, of_class, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-14)
    # It is linear where the order stays.
    np.testing.assert_allclose((growth.numpy() * errors).sum(1), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_long_rows_are_sorted_alike(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(3, 200, generator=generator, dtype=dtype)
    of_class = torch.rand(3, 200, generator=generator) < 0.3
    at_once = extension.extension(errors, of_class, True)
    monkeypatch.setattr(extension, "BY_RADIX", 100)
    one_by_one = extension.extension(errors, of_class, True)
    assert all(torch.equal(*pair) for pair in zip(at_once, one_by_one, strict=True))


def test_single_precision_is_enough_for_many_pixels():
    """Differences of the Jaccard loss from pixel to pixel are below what float32 has room for."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1, 40_000, generator=generator)
    of_class = torch.rand(1, 40_000, generator=generator) < 0.01
    narrow, wide = (extension.extension(errors.to(t), of_class, True) for t in (torch.float32, torch.float64))
    assert narrow[0].item() == pytest.approx(wide[0].item(), rel=1e-6)
    torch.testing.assert_close(narrow[1].double(), wide[1], rtol=1e-6, atol=0)
