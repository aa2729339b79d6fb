"""What is done to samples between the file and the network: the table of transforms.

A transform draws its random numbers in `draw`; `apply` is pure. `chain` applies a list of them.
"""

from rml_core.transforms.color import ConvertColor, Normalize
from rml_core.transforms.geometry import CenterCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize, Rotate
from rml_core.transforms.section import TransformSection

TRANSFORMS: dict[str, type[TransformSection]] = {
    "resize": Resize,
    "center_crop": CenterCrop,
    "random_horizontal_flip": RandomHorizontalFlip,
    "random_vertical_flip": RandomVerticalFlip,
    "rotate": Rotate,
    "convert_color": ConvertColor,
    "normalize": Normalize,
}
LATER = ("jitter_crop", "random_zoom", "random_rotate", "random_patches")

__all__ = ["LATER", "TRANSFORMS", "TransformSection"]
