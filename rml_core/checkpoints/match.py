"""Which weight of a file goes to which layer of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rml_core.checkpoints import keras_h5, keras_v3
from rml_core.checkpoints.keras_layout import Unfit, in_torch
from rml_core.checkpoints.stored import Held, Outline, Stored, Wanted
from rml_core.config.problem import Problem, Refused, listed

if TYPE_CHECKING:
    from torch import Tensor, nn

# Buffers that torch's layers keep and that no output depends on.
COUNTERS = ("num_batches_tracked",)

ABSENT = "not found in model"

# How many names a message has at most.
SHOWN = 12
# So many layers of either side are named where none of them meet.
FEW = 4

Key = tuple[str, ...]


def load_into(
    module: nn.Module,
    stored: Stored,
    layers: Iterable[Wanted],
    outlines: Sequence[Outline] = (),
    where: str = "neural_network.checkpoints.load",
    file: str = "the file",
) -> list[str]:
    """Copy `stored` into the layers of the same name; a layer is filled or skipped as a whole.

    `layers`: those of the network that `module` is, `outlines`: its entries, in the order of its file. `file`: what
    messages call what `stored` comes from.

    Returns what is to be said: a line for each layer of the file that is skipped or for a weight that the file does
    not have, and a count at the end. Raises `Refused` where no layer fits.
    """
    state = module.state_dict()
    own = {path: layer for path, layer in _by_path(layers, outlines).items() if _of(layer, state)}
    held, lines = _named(stored, own, outlines)
    fitting: dict[str, Tensor] = {}
    loaded: set[str] = set()
    for each, layer in _met(held, own):
        try:
            if layer is None:
                raise Unfit(ABSENT)
            values = _values(each, stored, layer, _of(layer, state))
        except Unfit as unfit:
            lines.append(f"Skipping layer {each.name}: {unfit}")
            continue
        fitting |= {f"{layer.key}.{name}": value for name, value in values.items()}
        missing = [name for name in _of(layer, state) if name not in values and name not in COUNTERS]
        lines += [f"Layer {layer.name}: {name} is not in the file, it stays as it was" for name in missing]
        loaded.add(layer.name)
    if not loaded:
        named = [line for line in lines if not line.endswith(f": {ABSENT}")]
        raise Refused([_nothing_fits(held, own, where, file, named)])
    module.load_state_dict(fitting, strict=False)
    rest = [layer.name for layer in own.values() if layer.name not in loaded]
    left = f"; as they began: {_some(rest)}" if rest else ""
    counts = f"Loaded {len(loaded)} of the network's {len(own)} layers with weights, skipped {len(held) - len(loaded)}"
    return [*lines, counts + left]


def check_names(
    stored: Stored,
    layers: Iterable[Wanted],
    outlines: Sequence[Outline],
    where: str = "neural_network.checkpoints.load",
    file: str = "the file",
) -> Problem | None:
    """The problem of a file in which no layer bears the name of one of the network's, told from the names alone: the
    values of `stored` may be None. None: there are such names, or the file's layers may be taken by class and order."""
    own = _by_path((layer for layer in layers if layer.weights), outlines)
    held: Sequence[Held] = stored.held
    if any(each.place for each in held) and (not all(each.path for each in held) or len(held) == len(own)):
        return None
    if stored.keras and held and not held[0].place:
        held = [layer for each in held for layer in keras_h5.layers_of(each, own)]
    if any(layer is not None for _, layer in _met(held, own)):
        return None
    return _nothing_fits(held, own, where, file, [])


def _nothing_fits(
    held: Sequence[Held], own: Mapping[Key, Wanted], where: str, file: str, said: Sequence[str]
) -> Problem:
    """`said`: why layers of the same name do not fit."""
    what = f"nothing in {file} fits a layer of the network"
    allowed = f"weights of {_some([layer.name for layer in own.values()], FEW)}"
    remedy = f"the file has {_some([each.name for each in held], FEW)}: "
    remedy += "load another one" + ("; those of the same name differ" if said else ", or give the layers its names")
    more = [f"... and {len(said) - FEW} more"] if len(said) > FEW else []
    return Problem(where, what, allowed, "\n    ".join([remedy, *said[:FEW], *more]))


def _by_path(layers: Iterable[Wanted], outlines: Sequence[Outline]) -> dict[Key, Wanted]:
    named = {layer.name: layer for layer in layers}
    paths = {"/".join(path): path for path in _leaves(outlines, ())}
    return {paths.get(name, (name,)): layer for name, layer in named.items()}


def _leaves(outlines: Iterable[Outline], before: Key) -> Iterable[Key]:
    for outline in outlines:
        path = (*before, outline.name)
        if outline.inside is None:
            yield path
        else:
            yield from _leaves(outline.inside, path)


def _of(layer: Wanted, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layer's part of the module's state."""
    names = [slot.attribute for slot in layer.weights] + list(COUNTERS)
    return {name: state[f"{layer.key}.{name}"] for name in names if f"{layer.key}.{name}" in state}


def _named(stored: Stored, own: Mapping[Key, Wanted], outlines: Sequence[Outline]) -> tuple[Sequence[Held], list[str]]:
    """The file's layers with their names, and what is to be said of those.

    Where the names tell nothing, Keras 3 takes classes and order.
    """
    held: Sequence[Held] = stored.held
    if stored.keras and held and not held[0].place:
        held = [layer for each in held for layer in keras_h5.layers_of(each, own)]
    if not any(each.place for each in held):
        return held, []
    told = all(each.path for each in held)
    if told and any(layer is not None for _, layer in _met(held, own)):
        return held, []
    by_place = keras_v3.named(held, outlines)
    if told and not (len(by_place) == len(held) == len(own) and _all_fit(by_place, stored, own)):
        return held, []
    why = "has no layer of the network's names" if told else "has no names"
    return by_place, [f"The file {why}: its layers are taken by class and order, as Keras does"]


def _all_fit(held: Iterable[Held], stored: Stored, own: Mapping[Key, Wanted]) -> bool:
    try:
        for each in held:
            in_torch(each, stored, own[each.path])
    except (Unfit, KeyError):
        return False
    return True


def _met(held: Sequence[Held], own: Mapping[Key, Wanted]) -> list[tuple[Held, Wanted | None]]:
    """Each layer of the file, and the network's layer that it is.

    That is the one of the same name; else the only one of which one name ends with the other, because the file, or the
    network, is a model inside the other (`vgg16/conv`, and `module.conv` of torch's wrappers).
    """
    keys = {layer.key: layer for layer in own.values()}
    found = [keys.get("/".join(each.path).replace(".", "/")) for each in held]
    taken = {layer.name for layer in found if layer is not None}
    free = [path for path, layer in own.items() if layer.name not in taken]
    inner: list[Key | None] = [None] * len(held)
    for index, each in enumerate(held):
        if found[index] is None and each.path:
            ends = [path for path in free if _ends(path, each.path)]
            inner[index] = ends[0] if len(ends) == 1 else None
    claims = Counter(inner)
    for index, path in enumerate(inner):
        if path is not None and claims[path] == 1:
            found[index] = own[path]
    return list(zip(held, found, strict=True))


def _ends(one: Key, other: Key) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def _values(held: Held, stored: Stored, layer: Wanted, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What goes to the attributes of the layer's module. Raises `Unfit`."""
    if stored.keras:
        return in_torch(held, stored, layer)
    values = {}
    for name, value in held.weights:
        if name not in own:
            if name in COUNTERS:
                continue
            raise Unfit(f"weight {name} not found in model")
        if value.shape != own[name].shape:
            raise Unfit(f"shape {tuple(value.shape)} does not fit {tuple(own[name].shape)}")
        values[name] = value
    return values


def _some(names: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return listed(names[:most]) + more
