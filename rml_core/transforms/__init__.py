"""What is done to samples between the file and the network: the table of transforms.

A transform draws its random numbers in `draw`; `apply` is pure. `chain` applies a list of them.
"""

from rml_core.transforms.color import ConvertColor, Normalize
from rml_core.transforms.geometry import CenterCrop, JitterCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize
from rml_core.transforms.patches import RandomPatches
from rml_core.transforms.section import TransformSection
from rml_core.transforms.warps import RandomRotate, RandomZoom, Rotate

TRANSFORMS: dict[str, type[TransformSection]] = {
    "resize": Resize,
    "center_crop": CenterCrop,
    "jitter_crop": JitterCrop,
    "random_horizontal_flip": RandomHorizontalFlip,
    "random_vertical_flip": RandomVerticalFlip,
    "random_zoom": RandomZoom,
    "rotate": Rotate,
    "random_rotate": RandomRotate,
    "convert_color": ConvertColor,
    "normalize": Normalize,
    "random_patches": RandomPatches,
}
LATER: tuple[str, ...] = ()

__all__ = ["LATER", "TRANSFORMS", "TransformSection"]
