"""What there is to train or test on, from folder listings and headers: no pixels but the first sample's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.config.target import Target
from rml_core.data.files import Form, Found, Item, Role, Shape, channels_first
from rml_core.data.labels import label
from rml_core.data.pairing import pair
from rml_core.data.section import Data
from rml_core.data.shapes import (
    ANY_SIZE,
    Side,
    Takes,
    check_equal,
    input_form,
    layout_problem,
    shape_of,
    target_form,
    through,
    try_first,
)
from rml_core.data.sliced import Part, sliced
from rml_core.slicers.grid import SliceGrid
from rml_core.transforms.chain import Chain

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

WHERE = "neural_network.data"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Survey:
    """The samples of a role, in natural order.

    `inputs`, `targets`: where they lie, one a sample, and how they become arrays. `names`: the samples below the input
    folder, `cats/a.jpg`. `labels`: class indices into `classes`. `sample_shape`: of what the network gets, channels
    first, sizes None where samples differ (batches of one). `target`: None where there are no targets. `warnings`: for
    the log. `grids`: where samples are slices, a grid for each set; `inputs` and `targets` are then the one array that
    all of them are cut from, `names` is empty, and sample number n is slice n of the first set, and so on through the
    sets. `set_shapes`, `set_targets`: `sample_shape` and `target` of each set.
    """

    role: Role
    inputs: tuple[Item, ...]
    names: tuple[str, ...]
    targets: tuple[Item, ...] | None
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    sample_shape: Shape
    target: Target | None
    batch_size: int
    input_form: Form
    target_form: Form | None = None
    warnings: tuple[str, ...] = ()
    grids: tuple[SliceGrid, ...] = ()
    set_shapes: tuple[Shape, ...] = ()
    set_targets: tuple[Target, ...] | None = None

    @property
    def count(self) -> int:
        return sum(grid.count for grid in self.grids) if self.grids else len(self.inputs)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The slice sets in their order; otherwise all samples, without a name."""
        if not self.grids:
            return (Part("", self.sample_shape, self.target),)
        targets = self.set_targets or (None,) * len(self.grids)
        names = (grid.name for grid in self.grids)
        return tuple(map(Part, names, self.set_shapes, targets))

    @property
    def batches(self) -> int:
        """How many batches an epoch has, the last smaller one included; a batch is of one slice set."""
        counts = [grid.count for grid in self.grids] or [self.count]
        return sum(-(-count // self.batch_size) for count in counts)


def survey(
    data: Data,
    role: Role,
    base: AnyPath | str,
    classes: tuple[str, ...] | None = None,
    where: str = WHERE,
    takes: Takes | None = None,
) -> Survey | None:
    """The samples of `role`; None where the section names no inputs for it.

    `base`: what relative paths are against. `classes`: the class names of training (for the test role, or of the
    loaded checkpoint); None: made from the folders. `takes`: what the network gives for samples of a shape, which
    decides whether arrays lack their channel axis. Raises `Refused` with every problem found.
    """
    input_key, target_key = data.path_keys(role)
    if getattr(data, input_key) is None:
        return None
    found, target_found = find(data, role, base, where)
    if data.slicers:
        return _sliced(data, role, found, target_found, where, takes)
    problems: list[Problem] = []

    def add(step: Callable[..., Result], *arguments: object) -> Result | None:
        try:
            return step(*arguments)
        except Refused as refused:
            problems.extend(refused.problems)
            return None

    training = role == "training"
    batch_key, batch_size = data.largest_batch(role)
    side = Side(where, input_key, batch_key, batch_size)
    target_side = replace(side, key=target_key)
    chain = data.input_chain.acting(training)
    form = input_form(data.input_form, found, chain, takes)
    if misplaced := layout_problem(found, form, chain, side, takes):
        # What else there is to say of shapes follows from it.
        raise Refused([misplaced])
    shape = add(shape_of, found, form, chain, side)
    add(try_first, found, form, chain, side)

    targets: tuple[Item, ...] | None = None
    labels: tuple[int, ...] | None = None
    known: tuple[str, ...] | None = None
    target: Target | None = None
    its_form: Form | None = None
    warnings: list[str] = []
    if data.makes_targets:
        made = add(shape_of, found, form, data.target_chain.acting(training), side)
        target = Target("values", made) if made is not None else None
    elif target_found is not None:
        folders, keys = (found.folder, target_found.folder), _keys(found, target_found)
        order = add(pair, found.names, target_found.names, target_side.where, folders, keys)
        if order is not None:
            warnings += _paired_by_order(found, target_found, keys, order)
        if target_found.labels is not None:
            known = add(_classes, target_found, classes, target_side)
            if known is not None and order is not None:
                labels = tuple(target_found.labels[i] for i in order)
                target = Target("labels", (), len(known))
        else:
            output = takes(shape) if takes is not None and shape is not None else None
            its_form = target_form(data.target_form, target_found, output or shape or ())
            target = add(_target_of, target_found, its_form, data.target_chain.acting(training), target_side)
            if order is not None:
                targets = tuple(target_found.items[i] for i in order)
    elif data.targets is not None and not data.targets.of_files:
        tag_key = "training_tag" if training else "test_tag"
        labelled = add(label, found.folder, found.places, data.tag_of(role), tag_key, where, classes)
        if labelled is not None:
            labels, known = labelled
            if labels is None:
                what = f"no file of {found.folder} lies in a folder of a known class"
                warnings.append(f"{what}: inference without labels")
            else:
                target = Target("labels", (), len(known))
    elif data.targets is not None and data.targets.beside_inputs:
        what = f"{found.folder} has no labels for the {role} images"
        if training:
            problems.append(
                Problem(target_side.where, what, remedy=f"put them there, or name their file in {target_key}")
            )
        warnings.append(f"{what}: inference without labels")
    if data.test_output_path is not None and (role == "test" or data.validation_split is not None):
        add(_check_names, found, where)
    if problems:
        raise Refused(dict.fromkeys(problems))
    assert shape is not None
    return Survey(
        role, found.items, found.names, targets, labels, known, shape, target, data.batch_size_of(role), form, its_form,
        tuple(warnings),
    )  # fmt: skip


def _sliced(
    data: Data, role: Role, found: Found, target_found: Found | None, where: str, takes: Takes | None
) -> Survey:
    made = sliced(data, role, found, target_found, where, takes)
    targets = target_found.items if target_found is not None else None
    return Survey(
        role, found.items, (), targets, None, None, made.shape, made.target, data.batch_size_of(role), made.input_form,
        made.target_form, (), made.grids, made.shapes, made.targets,
    )  # fmt: skip


def sample_shape(data: Data, where: str = WHERE) -> Shape:
    """The shape of an input, channels first, as the section alone tells it: None for sizes that the files decide.

    Raises `Refused` where a transform cannot take what comes before it.
    """
    channels = data.inputs.reader.channels(data.input_form)
    if channels is None:
        return (None,)
    chain = data.input_chain.acting(data.input_path is not None)
    shape = through(chain, (None, None, channels), where)
    if data.input_path is not None:
        check_equal(chain, (*ANY_SIZE, channels), where, "batch_size", data.batch_size)
    return channels_first(shape)


def find(data: Data, role: Role, base: AnyPath | str, where: str) -> tuple[Found, Found | None]:
    """The inputs, and the targets where they are files. Raises `Refused` with the problems of both."""
    input_key, target_key = data.path_keys(role)
    path, target_path = getattr(data, input_key), getattr(data, target_key)
    problems: list[Problem] = []
    found = target_found = None
    volumes = bool(data.slicers)
    try:
        found = data.inputs.reader.find(path, base, f"{where}.{input_key}", role, False, volumes)
    except Refused as refused:
        problems += refused.problems
    kind = data.targets
    if kind is not None and kind.of_files and not data.makes_targets:
        try:
            if target_path is not None:
                target_found = kind.reader.find(
                    target_path, base, f"{where}.{target_key}", role, True, bool(data.slicers)
                )
            elif kind.beside_inputs and found is not None:
                target_found = kind.reader.beside(path, base, f"{where}.{input_key}", role)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    assert found is not None
    return found, target_found


def _check_names(found: Found, where: str) -> None:
    """Raises `Refused` where the prediction of one sample would lie in that of another, as `x/y` in `x`."""
    names = set(found.names)
    for name, item in zip(found.names, found.items, strict=True):
        inside = name
        while item.inside and "/" in inside:
            inside = inside.rpartition("/")[0]
            if inside in names:
                what = f"{inside} and {name} cannot both be in an HDF5 file: a dataset is no group"
                raise Refused([Problem(f"{where}.test_output_path", what, "", "rename one of the two")])


def _keys(found: Found, targets: Found) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What inputs and targets pair by: names below the groups that were named, unless more whole ones agree."""
    ways = ((found.keys_below, targets.keys_below), (found.keys, targets.keys))
    return max(ways, key=lambda keys: len(set(keys[0]).intersection(keys[1])))


def _paired_by_order(
    found: Found, targets: Found, keys: tuple[Sequence[str], Sequence[str]], order: Sequence[int]
) -> list[str]:
    for name, key, position in zip(found.names, keys[0], order, strict=True):
        if key != keys[1][position]:
            return [
                f"inputs and targets have different names: they are paired in sorted order, {name} with "
                f"{targets.names[position]}"
            ]
    return []


def _classes(found: Found, known: tuple[str, ...] | None, side: Side) -> tuple[str, ...]:
    """The classes of labels; those that are known from training, which have to be all."""
    assert found.labels is not None
    assert found.classes is not None
    if known is None or len(known) >= len(found.classes):
        return known or found.classes
    largest = max(found.labels)
    if largest >= len(known):
        what = f"class {largest} of {found.items[0].file} was not there in training"
        raise Refused([Problem(side.where, what, f"the classes of training: 0 to {len(known) - 1}")])
    return known


def _target_of(found: Found, form: Form, chain: Chain, side: Side) -> Target:
    shape = shape_of(found, form, chain, side)
    if not form.mask:
        return Target("values", shape)
    if found.headers is None:
        try:
            form.read(found.items[0])
        except RunFailed as error:
            raise Refused([Problem(side.where, str(error))]) from None
    return Target("mask", shape[1:])
