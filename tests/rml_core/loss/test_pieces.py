import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.target import IGNORED, Target
from rml_core.loss import pieces


@settings(deadline=None, max_examples=60)
@given(samples=st.integers(1, 9), pixels=st.integers(1, 40), room=st.integers(1, 50))
def test_every_pixel_is_in_one_piece(samples, pixels, room):
    times = np.zeros((samples, pixels), int)
    before, pieces.PIXELS = pieces.PIXELS, room
    try:
        for place in pieces.pieces(torch.zeros(samples, pixels)):
            times[place] += 1
            assert times[place].size <= room
    finally:
        pieces.PIXELS = before
    assert (times == 1).all()


@pytest.mark.parametrize("name", ["Dice", "Jaccard", "Focal"])
@pytest.mark.parametrize("target", ["mask", "labels"])
@pytest.mark.parametrize("room", [7, 50])
@pytest.mark.parametrize("last", [False, True])
def test_pieces_give_what_all_at_once_gives(built, numbers, some_labels, monkeypatch, name, target, room, last):
    """Parts of a sample, and several samples a piece; with the channels last in memory, as networks of images have."""
    shape = (4, 5) if target == "mask" else ()
    logits, t = numbers(13, 3, *shape), some_labels(3, 13, *shape, ignored=bool(shape))
    if last:
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    logits.requires_grad_()
    keys = {} if shape else {"ignore_index": 0}
    found = []
    for pixels in (10**6, room):
        monkeypatch.setattr(pieces, "PIXELS", pixels)
        value = built(name, "logits", (3, *shape), Target(target, shape), **keys)(logits, t)
        found.append((value, torch.autograd.grad(value, logits)[0]))
    assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-12)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-10, atol=1e-14)
    assert found[0][1].stride() == logits.stride()


def test_what_is_ignored_is_looked_for_where_it_costs_nothing():
    target = torch.tensor([0, 1, IGNORED])
    assert pieces.seen_ignored(target, IGNORED) == IGNORED
    assert pieces.seen_ignored(target[:2], IGNORED) is None
    assert pieces.seen_ignored(target[:2].to("meta"), IGNORED) == IGNORED
