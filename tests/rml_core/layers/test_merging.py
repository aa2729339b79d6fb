import keras
import pytest

PAIRWISE = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]
# Each beside an input of (4, 6, 3).
OTHERS = [(4, 6, 3), (1, 6, 3), (4, 1, 1), (3,), (6, 1)]


def branches(x, count):
    return [keras.layers.Dense(x.shape[-1], name=f"branch{i}")(x) for i in range(count)]


def brought_to(x, shape):
    """A layer whose output has `shape`, from an input (4, 6, 3)."""
    y = keras.layers.GlobalMaxPooling2D()(x)
    if shape == (4, 6, 3):
        return keras.layers.Dense(3)(x)
    size = 1
    for n in shape:
        size *= n
    return keras.layers.Reshape(shape)(keras.layers.Dense(size)(y))


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("shape", OTHERS)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_inputs_broadcast_as_in_keras(agree, name, shape, swapped):
    x = keras.Input((4, 6, 3))
    inputs = [x, brought_to(x, shape)]
    y = getattr(keras.layers, name)()(inputs[::-1] if swapped else inputs)
    agree(keras.Model(x, y))


@pytest.mark.parametrize("name", ["Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
def test_three_inputs(agree, name):
    x = keras.Input((4, 3))
    y = keras.layers.Activation("relu")(getattr(keras.layers, name)()(branches(x, 3)))
    agree(keras.Model(x, y))


@pytest.mark.parametrize("axis", [-1, 1, 2, 3, -2, -3])
def test_concatenation_along_each_axis(agree, axis):
    x = keras.Input((4, 6, 3))
    agree(keras.Model(x, keras.layers.Concatenate(axis=axis)(branches(x, 2))))


def test_concatenation_of_features(agree):
    x = keras.Input((5,))
    agree(keras.Model(x, keras.layers.Concatenate()([keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)])))


def test_the_same_tensor_twice(agree):
    x = keras.Input((5,))
    y = keras.layers.Dense(4)(x)
    agree(keras.Model(x, keras.layers.Activation("relu")(keras.layers.Add()([y, y]))))
