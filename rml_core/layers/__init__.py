"""The `layers` section: a network as Keras's JSON describes it, and the table of its layers."""

from __future__ import annotations

from rml_core.layers.activations import (
    ELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Swish,
    Tanh,
)
from rml_core.layers.convolution import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
)
from rml_core.layers.dense import Dense
from rml_core.layers.depthwise import (
    DepthwiseConv1D,
    DepthwiseConv2D,
    DepthwiseConv3D,
    SeparableConv1D,
    SeparableConv2D,
)
from rml_core.layers.dropout import Dropout, SpatialDropout1D, SpatialDropout2D, SpatialDropout3D, StochasticDepth
from rml_core.layers.inputs import InputLayer
from rml_core.layers.merging import (
    Add,
    Average,
    Concatenate,
    CustomScaleLayer,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    TFOpLambda,
)
from rml_core.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
)
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
    Cropping1D,
    Cropping2D,
    Cropping3D,
    Flatten,
    Permute,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)
from rml_core.layers.scaling import LayerScale, Normalization, Rescaling
from rml_core.layers.section import LayerSection

LAYERS: dict[str, type[LayerSection]] = {
    "Input": InputLayer,
    "InputLayer": InputLayer,
    "Dense": Dense,
    "Conv1D": Conv1D,
    "Conv2D": Conv2D,
    "Conv3D": Conv3D,
    "DepthwiseConv1D": DepthwiseConv1D,
    "DepthwiseConv2D": DepthwiseConv2D,
    "DepthwiseConv3D": DepthwiseConv3D,
    "SeparableConv1D": SeparableConv1D,
    "SeparableConv2D": SeparableConv2D,
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
    "InstanceNormalization": InstanceNormalization,
    "LayerNormalization": LayerNormalization,
    "GroupNormalization": GroupNormalization,
    "Dropout": Dropout,
    "SpatialDropout1D": SpatialDropout1D,
    "SpatialDropout2D": SpatialDropout2D,
    "SpatialDropout3D": SpatialDropout3D,
    "StochasticDepth": StochasticDepth,
    "Flatten": Flatten,
    "Reshape": Reshape,
    "Permute": Permute,
    "UpSampling1D": UpSampling1D,
    "UpSampling2D": UpSampling2D,
    "UpSampling3D": UpSampling3D,
    "ZeroPadding1D": ZeroPadding1D,
    "ZeroPadding2D": ZeroPadding2D,
    "ZeroPadding3D": ZeroPadding3D,
    "Cropping1D": Cropping1D,
    "Cropping2D": Cropping2D,
    "Cropping3D": Cropping3D,
    "Add": Add,
    "Subtract": Subtract,
    "Multiply": Multiply,
    "Divide": Divide,
    "TrueDivide": Divide,
    "Average": Average,
    "Maximum": Maximum,
    "Minimum": Minimum,
    "Concatenate": Concatenate,
    "CustomScaleLayer": CustomScaleLayer,
    "TFOpLambda": TFOpLambda,
    "Activation": Activation,
    "ReLU": ReLU,
    "LeakyReLU": LeakyReLU,
    "PReLU": PReLU,
    "ELU": ELU,
    "Softmax": Softmax,
    "Log_Softmax": LogSoftmax,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
    "Swish": Swish,
    "Rescaling": Rescaling,
    "Normalization": Normalization,
    "LayerScale": LayerScale,
}

_IN_TRANSFORMS = "samples are changed before the network: take the layer out, and see data.transforms"
_RECURRENT = "there are no recurrent layers in the language; Conv1D goes along a sequence"
_ATTENTION = "there are no layers of attention, and none of words, in the language"

# Keras's layers that cannot be in the language, and what to do about one.
REMEDIES = {
    "Lambda": "a Lambda holds Python code, which is never run: say the same with layers of the language",
    "RandomFlip": f"{_IN_TRANSFORMS}: random_horizontal_flip, random_vertical_flip",
    "RandomRotation": f"{_IN_TRANSFORMS}: random_rotate",
    "RandomZoom": f"{_IN_TRANSFORMS}: random_zoom",
    "RandomCrop": f"{_IN_TRANSFORMS}: jitter_crop",
    "Resizing": f"{_IN_TRANSFORMS}: resize",
    "CenterCrop": f"{_IN_TRANSFORMS}: center_crop",
    **dict.fromkeys(
        ("RandomTranslation", "RandomContrast", "RandomBrightness", "RandomHeight", "RandomWidth"),
        f"{_IN_TRANSFORMS} for what there is of the kind",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "CuDNNLSTM", "CuDNNGRU", "ConvLSTM2D"), _RECURRENT
    ),
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention", "Embedding"), _ATTENTION),
}
