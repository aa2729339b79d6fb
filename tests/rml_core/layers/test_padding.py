import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.layers.padding import extent, same, transposed, transposed_crop, windows

SIZES = st.integers(1, 30)
SMALL = st.integers(1, 7)


@given(length=SIZES, kernel=SMALL, stride=SMALL, dilation=st.integers(1, 3))
@settings(deadline=None, max_examples=200)
def test_same_makes_room_for_one_window_a_stride_and_no_more(length, kernel, stride, dilation):
    reach = extent(kernel, dilation)
    before, after = same(length, reach, stride)
    number = windows(length, reach, stride, "same")
    assert number == len(range(0, length, stride))
    assert after - before in (0, 1)
    assert (number - 1) * stride + reach <= length + before + after
    assert before == after == 0 or (number - 1) * stride + reach == length + before + after


@given(length=SIZES, kernel=SMALL, stride=SMALL, padding=st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_windows_are_counted_as_torch_counts(length, kernel, stride, padding):
    number = windows(length, kernel, stride, padding)
    if length + 2 * padding < kernel:
        assert number < 1
    else:
        x = torch.zeros(1, 1, length)
        assert number == torch.nn.functional.conv1d(x, torch.zeros(1, 1, kernel), None, stride, padding).shape[-1]


@given(length=SIZES, kernel=SMALL, stride=SMALL, padding=st.sampled_from(["same", "valid"]), data=st.data())
@settings(deadline=None, max_examples=200)
def test_transposed_lengths_are_those_of_keras(length, kernel, stride, padding, data):
    from keras.src.backend.common.backend_utils import compute_conv_transpose_output_shape

    extra = data.draw(st.one_of(st.none(), st.integers(0, stride - 1)))
    dilation = data.draw(st.integers(1, 3)) if stride == 1 else 1
    theirs = compute_conv_transpose_output_shape(
        (1, length, 1), (kernel,), 1, stride, padding, extra, dilation_rate=dilation
    )
    assert transposed(length, extent(kernel, dilation), stride, padding, extra) == theirs[1]


@given(length=SIZES, kernel=SMALL, stride=SMALL, padding=st.integers(0, 2), data=st.data())
@settings(deadline=None, max_examples=100)
def test_a_transposed_convolution_with_explicit_padding_is_torchs(length, kernel, stride, padding, data):
    extra = data.draw(st.integers(0, stride - 1))
    before, after = transposed_crop(kernel, stride, padding, extra)
    size = transposed(length, kernel, stride, padding, extra)
    assert (before, before - after) == (padding, extra)
    if size > 0:
        x, weight = torch.zeros(1, 1, length), torch.zeros(1, 1, kernel)
        assert size == torch.nn.functional.conv_transpose1d(x, weight, None, stride, padding, extra).shape[-1]


def test_unknown_lengths_stay_unknown():
    assert windows(None, 3, 2, "same") is None
    assert transposed(None, 3, 2, "same", None) is None
