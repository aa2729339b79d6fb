"""What there is to train or test on, from folder listings and headers: no pixels but the first sample's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rml_core.config import remote
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.config.target import Target
from rml_core.data import images
from rml_core.data.labels import label
from rml_core.data.pairing import find_files, pair
from rml_core.data.section import Data, Role
from rml_core.transforms.chain import Chain
from rml_core.transforms.section import DoesNotFit, Shape, known, size_of

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

WHERE = "neural_network.data"

# A size that no transform is too large for, where only the order of the transforms counts.
ANY_SIZE = (1 << 20, 1 << 20)

# So many damaged files a report names.
NAMED = 20


@dataclass(frozen=True)
class _Side:
    """Where problems of inputs or targets are reported, and how many samples must be of one size."""

    section: str
    key: str
    batch_key: str
    batch_size: int

    @property
    def where(self) -> str:
        return f"{self.section}.{self.key}"


@dataclass(frozen=True)
class Survey:
    """The samples of a role, in natural order.

    `inputs`, `targets`: absolute paths, or URLs, one a sample. `names`: the samples below the input folder,
    `cats/a.jpg`. `labels`: class indices into `classes`. `sample_shape`: (C, H, W) of what the network gets, H and W
    None where samples differ (batches of one). `target`: None where there are no targets. `warnings`: for the log.
    """

    role: Role
    inputs: tuple[str, ...]
    names: tuple[str, ...]
    targets: tuple[str, ...] | None
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    sample_shape: tuple[int | None, ...]
    target: Target | None
    batch_size: int
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.inputs)

    @property
    def batches(self) -> int:
        """How many batches an epoch has, the last smaller one included."""
        return -(-self.count // self.batch_size)


def survey(
    data: Data, role: Role, base: AnyPath, classes: tuple[str, ...] | None = None, where: str = WHERE
) -> Survey | None:
    """The samples of `role`; None where the section names no inputs for it.

    `base`: what relative paths are against. `classes`: the class names of training (for the test role, or of the
    loaded checkpoint); None: made from the folders. Raises `Refused` with every problem found.
    """
    input_key, target_key = data.path_keys(role)
    input_path, target_path = getattr(data, input_key), getattr(data, target_key)
    if input_path is None:
        return None
    problems: list[Problem] = []
    sides = []
    for key, path in ((input_key, input_path), (target_key, target_path)):
        try:
            sides.append(path and find_files(resolve(path, base), f"{where}.{key}", images.is_image, "images"))
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    (folder, names), target_side = sides
    inputs = _absolute(folder, names)
    targets: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    known_classes: tuple[str, ...] | None = None
    target: Target | None = None
    warnings: list[str] = []

    def add(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Refused as refused:
            problems.extend(refused.problems)
            return None

    batch_size = data.batch_size_of(role)
    training = role == "training"
    chain = data.input_chain.acting(training)
    batch_key = "batch_size" if role == "training" else "test_batch_size"
    side = _Side(where, input_key, batch_key, batch_size)
    shape = add(lambda: _shape_of(inputs, chain, 1 if data.input_gray else 3, side))
    add(lambda: _try_first(inputs[0], chain, data.input_gray, side))
    if data.makes_targets:
        target = add(lambda: _made_target(data.target_chain.acting(training), inputs, data, side))
    elif target_side:
        target_folder, target_names = target_side
        order = add(lambda: pair(names, target_names, f"{where}.{target_key}", (folder, target_folder)))
        if order is not None:
            targets = _absolute(target_folder, [target_names[i] for i in order])
            warnings += _paired_by_order(names, target_names, order)
        every = _absolute(target_folder, target_names)
        target_chain = data.target_chain.acting(training)
        target = add(lambda: _target_of(data, target_chain, every, _Side(where, target_key, batch_key, batch_size)))
    elif data.targets is not None and not data.targets.of_files:
        tag_key = "training_tag" if role == "training" else "test_tag"
        found = add(lambda: label(folder, names, data.tag_of(role), tag_key, where, classes))
        if found is not None:
            labels, known_classes = found
            if labels is None:
                warnings.append(f"no file of {folder} lies in a folder of a known class: inference without labels")
            else:
                target = Target("labels", (), len(known_classes))
    if problems:
        raise Refused(dict.fromkeys(problems))
    sample_shape = (shape[2], shape[0], shape[1])
    return Survey(
        role, inputs, tuple(names), targets, labels, known_classes, sample_shape, target, batch_size, tuple(warnings)
    )


def sample_shape(data: Data, where: str = WHERE) -> tuple[int | None, ...]:
    """(C, H, W) of an input as the section alone tells it: None for sizes that the files decide.

    Raises `Refused` where a transform cannot take what comes before it.
    """
    chain = data.input_chain.acting(data.input_path is not None)
    channels = 1 if data.input_gray else 3
    height, width, depth = _through(chain, (None, None, channels), where)
    if data.input_path is not None:
        _check_equal(chain, (*ANY_SIZE, channels), where, "batch_size", data.batch_size)
    return depth, height, width


def _absolute(folder: AnyPath, names: Sequence[str]) -> tuple[str, ...]:
    text = remote.text_of(folder)
    return tuple(remote.below(text, name) for name in names)


def _paired_by_order(inputs: Sequence[str], targets: Sequence[str], order: Sequence[int]) -> list[str]:
    for name, position in zip(inputs, order, strict=True):
        if Path(name).with_suffix("") != Path(targets[position]).with_suffix(""):
            return [
                f"inputs and targets have different names: they are paired in sorted order, {name} with "
                f"{targets[position]}"
            ]
    return []


def _made_target(chain: Chain, inputs: Sequence[str], data: Data, side: _Side) -> Target:
    """Targets that a transform makes of the inputs."""
    height, width, channels = _shape_of(inputs, chain, 1 if data.input_gray else 3, side)
    return Target("values", (channels, height, width))


def _target_of(data: Data, chain: Chain, paths: Sequence[str], side: _Side) -> Target:
    channels = 1 if data.target_is_mask or data.target_gray else 3
    height, width, depth = _shape_of(paths, chain, channels, side)
    if not data.target_is_mask:
        return Target("values", (depth, height, width))
    try:
        images.decode_mask(paths[0], data.target_gray)
    except RunFailed as error:
        raise Refused([Problem(side.where, str(error))]) from None
    return Target("mask", (height, width))


def _shape_of(paths: Sequence[str], chain: Chain, channels: int, side: _Side) -> Shape:
    """The shape of all samples after the transforms; sizes are read only where no transform makes them equal."""
    shape = _through(chain, (None, None, channels), side.section)
    if known(shape) and not chain.asks_sizes((None, None, channels)):
        return shape
    sizes, failures = images.sizes(paths)
    if failures:
        raise Refused(_failures(failures, side.where))
    first_of: dict[tuple[int, int], str] = {}
    for path, size in zip(paths, sizes, strict=True):
        if size is not None:
            first_of.setdefault(size, path)
    problems: list[Problem] = []
    shapes: dict[Shape, str] = {}
    for (height, width), path in first_of.items():
        try:
            shapes.setdefault(_through(chain, (height, width, channels), side.section, path), path)
            _check_equal(chain, (height, width, channels), side.section, side.batch_key, side.batch_size)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(list(dict.fromkeys(problems))[:NAMED])
    if len(shapes) > 1 and side.batch_size > 1:
        (one, path), (other, other_path) = list(shapes.items())[:2]
        what = f"sizes differ: {path} gives {size_of(one)}, {other_path} {size_of(other)}"
        remedy = 'add a transform that makes them equal, as {"resize": [Sx, Sy]}, or set ' + f"{side.batch_key} to 1"
        raise Refused([Problem(side.where, what, "samples of one size", remedy)])
    if len(shapes) == 1:
        return next(iter(shapes))
    heights, widths = ({shape[axis] for shape in shapes} for axis in (0, 1))
    return (
        heights.pop() if len(heights) == 1 else None,
        widths.pop() if len(widths) == 1 else None,
        next(iter(shapes))[2],
    )


def _failures(failures: Sequence[str], where: str) -> list[Problem]:
    problems = [Problem(where, failure) for failure in failures[:NAMED]]
    if len(failures) > NAMED:
        problems.append(Problem(where, f"{len(failures) - NAMED} more files cannot be decoded"))
    return problems


def _through(chain: Chain, shape: Shape, section: str, path: str = "") -> Shape:
    try:
        return chain.shape(shape)
    except DoesNotFit as error:
        what = f"{error}: {path}" if path else str(error)
        raise Refused([Problem(f"{section}.{error.path}", what, "", error.remedy)]) from None


def _check_equal(chain: Chain, shape: Shape, section: str, batch_key: str, batch_size: int) -> None:
    """Refuses batches of samples whose sizes are drawn."""
    step = chain.unequal(shape) if batch_size > 1 else None
    if step is not None:
        what = f"gives each sample a size of its own, and a batch has {batch_size} samples"
        remedy = f'add {{"resize": [Sx, Sy]}} behind it, or set {batch_key} to 1'
        raise Refused([Problem(f"{section}.{step.key}", what, "samples of one size", remedy)])


def _try_first(path: str, chain: Chain, gray: bool, side: _Side) -> None:
    """Decode and transform one sample where a conversion may not take the depth of the files."""
    colours = [step for step in chain.steps if not step.transform.on_masks and not step.transform.on_floats]
    try:
        if not colours:
            images.size(path)
            return
        array = images.decode(path, gray)
    except RunFailed as error:
        raise Refused([Problem(side.where, str(error))]) from None
    import cv2

    try:
        chain.finish(chain.lead(array), None, {}, training=False)
    except cv2.error:
        what = f"does not take the samples as they are here: {array.shape[2]} channels of {array.dtype} in {path}"
        raise Refused([Problem(f"{side.section}.{colours[0].path}.convert_color", what)]) from None
    except DoesNotFit:
        return  # said with its size already
