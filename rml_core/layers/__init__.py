"""The `layers` section: a network as Keras's JSON describes it, and the table of its layers."""

from __future__ import annotations

from rml_core.layers.activations import Activation, LeakyReLU, ReLU, Softmax
from rml_core.layers.convolution import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
)
from rml_core.layers.dense import Dense
from rml_core.layers.dropout import Dropout, SpatialDropout1D, SpatialDropout2D, SpatialDropout3D
from rml_core.layers.inputs import InputLayer
from rml_core.layers.merging import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from rml_core.layers.normalization import BatchNormalization
from rml_core.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from rml_core.layers.reshaping import (
    Flatten,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)
from rml_core.layers.section import LayerSection

LAYERS: dict[str, type[LayerSection]] = {
    "Input": InputLayer,
    "InputLayer": InputLayer,
    "Dense": Dense,
    "Conv1D": Conv1D,
    "Conv2D": Conv2D,
    "Conv3D": Conv3D,
    "Conv1DTranspose": Conv1DTranspose,
    "Conv2DTranspose": Conv2DTranspose,
    "Conv3DTranspose": Conv3DTranspose,
    "MaxPooling1D": MaxPooling1D,
    "MaxPooling2D": MaxPooling2D,
    "MaxPooling3D": MaxPooling3D,
    "AveragePooling1D": AveragePooling1D,
    "AveragePooling2D": AveragePooling2D,
    "AveragePooling3D": AveragePooling3D,
    "GlobalMaxPooling1D": GlobalMaxPooling1D,
    "GlobalMaxPooling2D": GlobalMaxPooling2D,
    "GlobalMaxPooling3D": GlobalMaxPooling3D,
    "GlobalAveragePooling1D": GlobalAveragePooling1D,
    "GlobalAveragePooling2D": GlobalAveragePooling2D,
    "GlobalAveragePooling3D": GlobalAveragePooling3D,
    "BatchNormalization": BatchNormalization,
    "Dropout": Dropout,
    "SpatialDropout1D": SpatialDropout1D,
    "SpatialDropout2D": SpatialDropout2D,
    "SpatialDropout3D": SpatialDropout3D,
    "Flatten": Flatten,
    "Reshape": Reshape,
    "UpSampling1D": UpSampling1D,
    "UpSampling2D": UpSampling2D,
    "UpSampling3D": UpSampling3D,
    "ZeroPadding1D": ZeroPadding1D,
    "ZeroPadding2D": ZeroPadding2D,
    "ZeroPadding3D": ZeroPadding3D,
    "Add": Add,
    "Subtract": Subtract,
    "Multiply": Multiply,
    "Average": Average,
    "Maximum": Maximum,
    "Minimum": Minimum,
    "Concatenate": Concatenate,
    "Activation": Activation,
    "ReLU": ReLU,
    "LeakyReLU": LeakyReLU,
    "Softmax": Softmax,
}

LATER = (
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConv3D",
    "SeparableConv1D",
    "SeparableConv2D",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "Permute",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "PReLU",
    "ELU",
    "Log_Softmax",
    "Sigmoid",
    "Tanh",
    "Swish",
)
