import pytest
import torch

from rml_core.config.target import IGNORED
from rml_core.loss.likelihood import log_likelihood


@pytest.mark.parametrize("shape", [(), (11,), (4, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("ignored", [None, IGNORED, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_it_is_torchs_log_softmax_at_the_targets_class(numbers, some_labels, shape, ignored, dtype):
    logits = numbers(6, 3, *shape, scale=5).to(dtype).requires_grad_()
    t = some_labels(3, 6, *shape, ignored=ignored == IGNORED)
    picked = log_likelihood(logits, t, ignored)
    wide = logits.to(torch.promote_types(dtype, torch.float32)).log_softmax(1)
    expected = wide.gather(1, t.clamp(min=0).unsqueeze(1)).squeeze(1) * (t != (-2 if ignored is None else ignored))
    torch.testing.assert_close(picked, expected)
    factors = numbers(*t.shape, seed=2).to(picked.dtype)
    gradients = [torch.autograd.grad((factors * each).sum(), logits)[0] for each in (picked, expected)]
    torch.testing.assert_close(*gradients)
