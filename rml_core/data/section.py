"""The data section of the run file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field
from pydantic_core import InitErrorDetails, PydanticCustomError

from rml_core.config.names import Keyed, OneOf, wrong
from rml_core.config.paths import FolderText, PathText
from rml_core.config.problem import listed
from rml_core.config.section import FromList, Place, Section, keys_of
from rml_core.data import inpainting, slicing
from rml_core.data.files import Form, Role
from rml_core.data.table import DATA_TYPES, LATER, LATER_KEYS, DataType
from rml_core.slicers.section import SliceSection
from rml_core.transforms import LATER as LATER_TRANSFORMS
from rml_core.transforms import TRANSFORMS, TransformSection
from rml_core.transforms.chain import Chain

Type = Annotated[str, OneOf("data type", *DATA_TYPES, later=LATER)]
Transforms = Annotated[
    tuple[Annotated[TransformSection, Keyed("transform", TRANSFORMS, LATER_TRANSFORMS)], ...], FromList
]
BatchSize = Annotated[int, Field(ge=1)]


Tag = Annotated[str, Field(min_length=1, pattern="^[^/]+$")]


def _publish_aliases(schema: dict[str, Any]) -> None:
    schema["properties"]["testing_tag"] = {**schema["properties"]["test_tag"], "title": "Testing Tag"}


class Data(Section):
    """Where samples come from, and what is done to them before the network gets them."""

    model_config = ConfigDict(json_schema_extra=_publish_aliases)

    input_type: Type | None = Field(None, examples=["images"])
    """What the inputs are."""
    target_type: Type | None = Field(None, examples=["labels"])
    """What the targets are. None: there are none."""
    type: Type | None = None
    """What inputs and targets both are."""
    input_path: PathText | None = Field(None, examples=["pictures/train"])
    """Training inputs: a folder, searched recursively, or a file. None: no training."""
    target_path: PathText | None = None
    """Training targets, where they are files of their own."""
    test_input_path: PathText | None = Field(None, examples=["pictures/test"])
    """Test inputs. None: no evaluation."""
    test_target_path: PathText | None = None
    """Test targets, where they are files of their own. None: inference only."""
    test_output_path: FolderText | None = None
    """The folder for inference results, `output_<epoch>.h5`. None: they are not saved."""
    validation_split: float | None = Field(None, gt=0, lt=1)
    """The fraction of the training samples that is held out for evaluation, drawn from the seed; of labels, the same
    fraction of each class. None: none. Not together with `test_input_path` or `slicers`."""
    batch_size: BatchSize = Field(64, examples=[16])
    """Training samples a batch, over all processes."""
    test_batch_size: BatchSize = 64
    """Test samples a batch, over all processes."""
    preload: bool = Field(False, examples=[True])
    """Read and decode everything once, before training."""
    grayscale: bool = False
    """Read inputs and targets as one channel."""
    input_grayscale: bool = False
    """Read inputs as one channel."""
    target_grayscale: bool = False
    """Read targets as one channel."""
    target_is_mask: bool = False
    """Targets are classes, not values: nearest-neighbour everywhere, never scaled."""
    transforms: Transforms = ()
    """What is done to inputs and targets alike, with the same random draw, in this order."""
    input_transforms: Transforms = ()
    """What is done to inputs, after `transforms`."""
    target_transforms: Transforms = ()
    """What is done to targets, after `transforms`."""
    training_tag: Tag | None = None
    """Labels: the class is the folder right below this component of a training file's path."""
    test_tag: Tag | None = Field(None, validation_alias=AliasChoices("test_tag", "testing_tag"))
    """Labels: the class is the folder right below this component of a test file's path."""
    shuffle: bool = True
    """A new training order every epoch, from the seed."""
    slicers: Annotated[tuple[SliceSection, ...], FromList] = ()
    """How one big array of `numpy`, `hdf5` or `zarr` is cut into samples, a set after the other; targets are cut alike.
    None: each array or file is a sample."""
    hdf5_outfile: FolderText | None = None
    """The HDF5 file that predictions of test slices are assembled into, one dataset a slice set, of the input's shape.
    Needs `slicers` and `test_input_path`, and no transform that moves pixels, random ones in training included:
    assemble with a run of its own that loads the checkpoint."""
    hdf5_precision: Annotated[str, OneOf("precision", "single", "half")] = "single"
    """Floating-point numbers of the assembled file: 32 or 16 bits."""
    hdf5_output: Annotated[str, OneOf("output", "values", "argmax")] = "values"
    """What the assembled file holds: the network's values, or the class (uint8, one channel; 255 where no slice
    is). The file's attribute `classes` has the value that each class has in the masks, where it is another."""
    overlap_blend: Annotated[str, OneOf("blend", "mean", "gaussian")] = "mean"
    """How the predictions of overlapping slices become one: their mean, or with Gaussian weights around each centre."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[tuple[Place, PydanticCustomError]]:
        for key, problem in _contradictions(given):
            yield (key,), problem
        yield from slicing.contradictions(given)

    @classmethod
    def _with_keys(cls, error: Any) -> InitErrorDetails:
        if error["type"] == "extra_forbidden" and error["loc"][0] in LATER_KEYS and len(error["loc"]) == 1:
            problem = wrong("is not available yet", listed(keys_of(cls)))
            return InitErrorDetails(type=problem, loc=error["loc"], input=error["input"])
        return super()._with_keys(error)

    @property
    def inputs(self) -> DataType:
        return DATA_TYPES[self._input_name]

    @property
    def targets(self) -> DataType | None:
        return DATA_TYPES[self._target_name] if self._target_name else None

    @property
    def _input_name(self) -> str:
        return self.input_type or self.type or ""

    @property
    def _target_name(self) -> str | None:
        return self.target_type or self.type or (self.input_type if self.makes_targets else None)

    @property
    def input_form(self) -> Form:
        return Form(self._input_name, self.input_gray)

    @property
    def target_form(self) -> Form:
        """For targets that are files of their own."""
        return Form(self._target_name or "", self.target_gray, self.target_is_mask)

    @property
    def input_gray(self) -> bool:
        return self.grayscale or self.input_grayscale

    @property
    def target_gray(self) -> bool:
        return self.grayscale or self.target_grayscale

    @property
    def evaluates(self) -> bool:
        """Whether there are samples to evaluate on."""
        return self.test_input_path is not None or self.validation_split is not None

    @property
    def makes_targets(self) -> bool:
        """Whether a transform makes the targets out of the inputs."""
        return any(transform.makes_targets for transform in self.transforms)

    @property
    def input_chain(self) -> Chain:
        return Chain.of(
            self.transforms, self.input_transforms, "input_transforms", mask=False, scale=self.inputs.scaled
        )

    @property
    def target_chain(self) -> Chain:
        """For targets that are files of their own, or made of the inputs."""
        return Chain.of(
            self.transforms,
            self.target_transforms,
            "target_transforms",
            mask=self.target_is_mask,
            scale=self.targets is not None and self.targets.scaled,
            targets=True,
        )

    def path_keys(self, role: Role) -> tuple[str, str]:
        return ("input_path", "target_path") if role == "training" else ("test_input_path", "test_target_path")

    def batch_size_of(self, role: Role) -> int:
        return self.batch_size if role == "training" else self.test_batch_size

    def largest_batch(self, role: Role) -> tuple[str, int]:
        """The key and the size of the largest batch that the files of `role` are in; a split makes both of them."""
        if role == "training" and self.validation_split is None:
            return "batch_size", self.batch_size
        if role == "test":
            return "test_batch_size", self.test_batch_size
        return max(("batch_size", self.batch_size), ("test_batch_size", self.test_batch_size), key=lambda size: size[1])

    def tag_of(self, role: Role) -> str | None:
        return self.training_tag if role == "training" else self.test_tag


def _contradictions(given: Mapping[str, Any]) -> Iterator[tuple[str, PydanticCustomError]]:
    """(key, problem) for what the keys of a section say together; wrong names and types are not its business."""

    def names(key: str) -> bool:
        return given.get(key) is not None

    def type_of(key: str) -> DataType | None:
        name = given.get(key)
        return DATA_TYPES.get(name.casefold()) if isinstance(name, str) else None

    as_inputs = listed(name for name, kind in DATA_TYPES.items() if kind.as_input)
    if names("type"):
        for key in ("input_type", "target_type"):
            if names(key):
                yield key, wrong('stands beside "type", which means both', "", f'leave out "{key}" or "type"')
    elif not names("input_type"):
        yield "input_type", wrong("is missing", as_inputs, 'or give "type" where inputs and targets are of one type')
    inputs = type_of("input_type") or type_of("type")
    for key in ("input_type", "type"):
        kind = type_of(key)
        if kind and not kind.as_input:
            yield key, wrong(f'"{given[key]}" can be targets only', as_inputs)
    if not names("input_path") and not names("test_input_path"):
        yield (
            "input_path",
            wrong("is missing", "", "give input_path to train, test_input_path to evaluate or infer, or both"),
        )
    if names("validation_split"):
        if names("test_input_path"):
            remedy = "leave out validation_split, or test_input_path"
            yield "validation_split", wrong("stands beside test_input_path: there are test samples already", "", remedy)
        elif not names("input_path"):
            yield (
                "validation_split",
                wrong("there is no input_path that it could split", "", "give one, or leave it out"),
            )
    for key in ("test_target_path", "test_output_path"):
        split = key == "test_output_path" and names("validation_split")
        if names(key) and not names("test_input_path") and not split:
            yield key, wrong("there is no test_input_path that it could belong to", "", f"give one, or leave out {key}")
    if names("target_path") and not names("input_path"):
        yield "target_path", wrong("there is no input_path that it could belong to", "", "give one, or leave it out")
    if inputs and not inputs.grayscale:
        for key in ("grayscale", "input_grayscale"):
            if given.get(key) is True:
                yield key, wrong("is for images only", "", f"leave out {key}")
    yield from _target_contradictions(given, names("target_type") or names("type"), type_of)
    yield from inpainting.contradictions(given)


def _target_contradictions(given: Mapping[str, Any], any_type: bool, type_of: Any) -> Iterator[tuple[str, Any]]:
    targets: DataType | None = type_of("target_type") or type_of("type")
    if any_type and targets is None:
        return
    if inpainting.maker(given) is not None:
        targets = targets or type_of("input_type")
    about_files = ("target_path", "test_target_path", "target_transforms", "target_is_mask", "target_grayscale")
    about_labels = ("training_tag", "test_tag", "testing_tag")
    for key in (*about_files, *about_labels):
        if not given.get(key):
            continue
        if targets is None:
            yield key, wrong("there is no target_type", listed(DATA_TYPES), f"give one, or leave out {key}")
        elif key in about_files and not targets.of_files:
            yield (
                key,
                wrong("does not go with labels, which are the names of the inputs' folders", "", f"leave out {key}"),
            )
        elif key in about_labels and targets.of_files:
            yield key, wrong("is for labels only", "", f"leave out {key}")
        elif key == "target_grayscale" and not targets.grayscale:
            yield key, wrong("is for images only", "", f"leave out {key}")
    inputs = type_of("input_type") or type_of("type")
    if targets and not targets.of_files and inputs and not inputs.in_folders:
        name = given.get("input_type") or given.get("type")
        yield (
            "target_type",
            wrong(f"the samples of {name} lie in no folders of classes", f'"target_type": "{name}"'),
        )
