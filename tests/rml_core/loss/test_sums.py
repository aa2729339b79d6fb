import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.target import IGNORED
from rml_core.loss.sums import chosen, sums_of_classes, sums_of_values


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 5),
    levels=st.sampled_from([2, 1000]),
    ignored=st.sampled_from([None, IGNORED, 0, 1]),
)
def test_they_are_those_of_one_hot_targets(seed, channels, levels, ignored):
    """Few levels make many channels equal: argmax then takes the first."""
    rng = np.random.default_rng(seed)
    p = torch.tensor(rng.integers(0, levels, (2, channels, 5)) / levels, requires_grad=True)
    target = torch.tensor(rng.integers(IGNORED if ignored == IGNORED else 0, max(channels, 2), (2, 5)))
    kept = (torch.ones_like(target) if ignored is None else target != ignored)[:, None]
    first = 1 if channels == 1 else 0
    one_hot = (target[:, None] == torch.arange(first, first + channels).view(1, -1, 1)) * kept
    ours, expected = sums_of_classes(p, target, ignored), sums_of_values(p * kept, one_hot)
    for mine, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, wanted)
    factors = torch.tensor(rng.uniform(-1, 1, (2, channels)))
    gradients = [torch.autograd.grad((factors * torch.stack(sums[:2])).sum(), p)[0] for sums in (ours, expected)]
    torch.testing.assert_close(*gradients)
    best = p.detach().argmax(1)
    there = [bool(((best == channel) & kept[:, 0].bool()).any()) for channel in range(channels)]
    assert chosen(p.detach(), kept[:, 0].bool()).tolist() == there
    if ignored is None:
        assert chosen(p.detach(), None).tolist() == there
