"""What other programs call things, and what they are called here: for the hints of messages; none is taken as it is."""

from __future__ import annotations

from collections.abc import Sequence

# Small letters, without "_" and "-": names here, of which those are offered that may stand in the place in question.
MEANT: dict[str, tuple[str, ...]] = {
    # keys
    "epochs": ("num_epochs",),
    "lr": ("learning_rate",),
    "epsilon": ("eps",),
    "decay": ("weight_decay",),
    "clipnorm": ("clip_norm",),
    "model": ("layers",),
    "network": ("layers",),
    "fromlogits": ("source",),
    # losses
    "categoricalcrossentropy": ("NLL",),
    "sparsecategoricalcrossentropy": ("NLL",),
    "crossentropy": ("NLL",),
    "crossentropyloss": ("NLL",),
    "softmaxcrossentropy": ("NLL",),
    "binarycrossentropy": ("BCE",),
    "bcewithlogitsloss": ("BCE",),
    "meansquarederror": ("MSE",),
    "iou": ("Jaccard",),
    # transforms
    "randomcrop": ("jitter_crop", "center_crop"),
    "randomresizedcrop": ("jitter_crop", "random_zoom"),
    "horizontalflip": ("random_horizontal_flip",),
    "verticalflip": ("random_vertical_flip",),
    "randomrotation": ("random_rotate",),
    "rescale": ("normalize",),
}

# Keys for which nothing stands here, and why nothing has to.
NEEDLESS = {
    "metrics": "accuracy and more are logged by themselves: leave it out",
    "verbose": "progress is shown by itself: leave it out",
    "numclasses": "the last layer's outputs say how many classes there are: leave it out",
}


def plain(name: object) -> str:
    """`name` as the tables here have it."""
    return str(name).casefold().replace("_", "").replace("-", "")


def meant(given: object, names: Sequence[str]) -> list[str]:
    """Those of `names` that are what other programs call `given`."""
    return [name for name in MEANT.get(plain(given), ()) if name in names]
