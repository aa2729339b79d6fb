import keras
import pytest


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "softmax"])
def test_dense_is_that_of_keras(agree_layer, shape, use_bias, activation):
    agree_layer(keras.layers.Dense(3, use_bias=use_bias, activation=activation), shape)


def test_one_unit_on_one_channel(agree_layer):
    agree_layer(keras.layers.Dense(1), (1,))
