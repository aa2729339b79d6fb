"""Checks across sections, and against files and shapes: every problem, once, before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rml_core import apps
from rml_core.checkpoints.content import no_file
from rml_core.checkpoints.table import format_of
from rml_core.config import remote
from rml_core.config.paths import problem_of_log, problem_of_writing, resolve
from rml_core.config.problem import Problem, Refused
from rml_core.config.target import Target
from rml_core.data import outfile
from rml_core.data.files import Shape
from rml_core.data.shapes import Takes
from rml_core.data.sliced import Part, padded_to_fit, shapes_without_data
from rml_core.data.split import split
from rml_core.data.survey import WHERE, Survey, sample_shape, survey
from rml_core.engine.log import LogFiles
from rml_core.layers.graph import Graph, Network, infer
from rml_core.loss.fit import fit
from rml_core.loss.section import Fitted
from rml_core.run import ROOT, Run, RunFile, lacking
from rml_core.slicers.section import named

Result = TypeVar("Result")


@dataclass(frozen=True)
class Learned:
    """What the data of an earlier training were: names of classes, and the raw mask values that stand for classes."""

    classes: tuple[str, ...] | None
    mask_values: tuple[int, ...] | None


@dataclass(frozen=True)
class Checked:
    """A run of which everything that can be known without work is known to be right.

    `training` and `test` are None where the run has no such phase, or where the data was left alone. `target` is
    None for inference alone.
    """

    run: Run
    app: str
    training: Survey | None
    test: Survey | None
    network: Network
    target: Target | None
    fitted: Fitted | None
    learned: Learned | None
    warnings: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of labels, in the order of their indices."""
        for each in (self.training, self.test):
            if each is not None and each.classes is not None:
                return each.classes
        return ()

    @property
    def transforms_first(self) -> bool:
        """Preloaded samples are kept as the leading deterministic transforms leave them; slices are never kept."""
        data = self.run.file.data
        if data.slicers:
            return False
        of_files = data.targets is not None and data.targets.of_files
        chains = [data.input_chain, *([data.target_chain] if of_files else [])]
        return data.preload and any(chain.leading for chain in chains)


def check(run: Run, app: str | None = None) -> Checked:
    """Hold the sections of `run` against each other, against the data files and against the network's shapes.

    Reads headers, not data.

    Raises:
        Refused: with every problem.
    """
    file = run.file
    collected = Collected()
    name = collected.of(apps.named, app)
    _sections(run, name, collected)
    collected.problems += lacking(file)
    learned = collected.of(_learned, run) if file.data.input_path is None else None
    takes = taking(run.graph)
    training = collected.of(survey, file.data, "training", run.base, None, WHERE, takes)
    classes = training.classes if training is not None else learned.classes if learned is not None else None
    test = collected.of(survey, file.data, "test", run.base, classes, WHERE, takes)
    if training is not None and file.data.validation_split is not None:
        fraction, size = file.data.validation_split, file.data.test_batch_size
        training, test = collected.of(split, training, fraction, file.seed, size) or (None, None)
    found = [each for each in (training, test) if each is not None]
    if training is not None and test is not None and (problem := _channels(training, test)) is not None:
        collected.problems.append(problem)
        found = [training]
    networks = _networks(run, found, collected)
    network = networks.get(found[0].sample_shape) if found else None
    fits, taken = [], list(outfile.other_file(file.data, run.base, _other_files(run)))
    for each in found:
        collected.problems += _targets(each, file)
        for part in each.parts:
            own = networks[part.shape]
            if own is not None and part.target is not None and file.loss is not None:
                shape, last = own.output_shape, own.last_activation
                fits.append(collected.of(fit, file.loss, shape, part.target, last, f"{ROOT}.loss", each.classes or ()))
        own = networks[each.parts[0].shape]
        if network is not None and own is not None:
            collected.problems += _same_weights(network, own)
        taken += outfile.read_too(file.data, each, run.base)
        if each.role == "test" and file.data.hdf5_outfile is not None:
            made = [(part, own) for part in each.parts if (own := networks[part.shape]) is not None]
            collected.problems += outfile.problems(file.data, [_made(run, part, own) for part, own in made])
    if not taken and (problem := outfile.no_place(file.data, run.base)) is not None:
        taken = [problem]
    collected.problems += taken
    if training is not None and test is not None:
        collected.problems += _watched(file, test)
    if network is not None:
        collected.problems += collected.of(_fits, run, network) or []
    collected.end()
    assert name is not None
    assert network is not None
    fitted = fits[0] if fits else None
    warnings = [warning for each in found for warning in each.warnings]
    warnings += fitted.warnings if fitted is not None else ()
    warnings += _soft(file, found)
    best = training is not None and file.checkpoints is not None and file.checkpoints.best
    if best and (test is None or test.target is None):
        warnings.append(f"{ROOT}.checkpoints.best: no epoch is the best without test targets to judge it by")
    if training is None and network.parameters and (file.checkpoints is None or file.checkpoints.load is None):
        warnings.append(f"{ROOT}.checkpoints.load: is missing: nothing is trained, and the weights stay as they begin")
    target = next((each.target for each in found if each.target is not None), None)
    return Checked(run, name, training, test, network, target, fitted, learned, tuple(warnings))


def check_without_data(run: Run, app: str | None = None) -> None:
    """Hold the sections against each other, and the network's shapes where the run file tells them.

    Raises:
        Refused: with every problem.
    """
    collected = Collected()
    _sections(run, collected.of(apps.named, app), collected)
    network = None
    if run.file.data.slicers:
        network = _of_slices(run, collected)
    else:
        sample = collected.of(sample_shape, run.file.data)
        if sample is not None and None not in sample:
            network = collected.of(infer, run.graph, sample)
        elif run.graph.input_shape is not None:
            network = collected.of(infer, run.graph, None)
    if network is not None:
        collected.problems += collected.of(_fits, run, network) or []
    collected.end()


def _of_slices(run: Run, collected: Collected) -> Network | None:
    """The network for the first slice set, as far as the run file tells what slices are like."""
    data, declared = run.file.data, run.graph.input_shape
    parts = collected.of(shapes_without_data, data, declared[-1] if declared is not None else None, WHERE)
    if not parts:
        return collected.of(infer, run.graph, None) if declared is not None and parts is not None else None
    networks = [(part, _network(run, part, collected)) for part in parts]
    collected.problems += outfile.problems(data, [_made(run, part, own) for part, own in networks if own is not None])
    return networks[0][1]


def _made(run: Run, part: Part, network: Network) -> outfile.Made:
    takes, padded = taking(run.graph), None
    if network.output_shape[1:] != part.shape[1:]:
        padded = padded_to_fit(run.file.data, part, lambda shape: (takes(shape) or ())[1:] == shape[1:])
    return outfile.Made(part.name, part.shape, network.output_shape, padded)


def taking(graph: Graph) -> Takes:
    """What the network of `graph` makes of samples of a shape; None where it does not take them."""

    @cache
    def takes(shape: Shape) -> Shape | None:
        try:
            return infer(graph, shape).output_shape
        except Refused:
            return None

    return takes


def check_resume(given: str | None) -> None:
    """Raises `Refused` where the flow's parameter `resume` is neither "auto" nor left out."""
    if given not in (None, "auto"):
        raise Refused([Problem("--resume", f'"{given}" does not fit', "auto, or left out to start anew")])


class Collected:
    """Problems of one check after the other."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def of(self, step: Callable[..., Result], *arguments: Any) -> Result | None:
        """The result of `step`, None where it is refused."""
        try:
            return step(*arguments)
        except Refused as refused:
            self.problems.extend(refused.problems)
            return None

    def end(self) -> None:
        if self.problems:
            raise Refused(dict.fromkeys(self.problems))


def _sections(run: Run, app: str | None, collected: Collected) -> None:
    file = run.file
    if app is not None:
        collected.problems += apps.APPS[app].problems(
            trains=file.data.input_path is not None,
            evaluates=file.data.evaluates,
            optimizer=file.optimizer,
            loss=file.loss,
            early_stopping=file.early_stopping,
        )
    collected.problems += _files(run)


def _targets(found: Survey, file: RunFile) -> list[Problem]:
    if found.role == "training" and found.target is None:
        what = "is missing: training needs targets"
        if file.data.targets is None:
            remedy = '"labels" where the folders are the classes; otherwise what the files in target_path are'
            if file.data.slicers:
                remedy = "what the array in target_path is; it is cut as the inputs are"
            return [Problem(f"{ROOT}.data.target_type", what, remedy=remedy)]
        place = "file" if file.data.slicers else "folder"
        return [Problem(f"{ROOT}.data.target_path", what, remedy=f"name the {place} that has them")]
    if found.role == "test" and found.target is not None and file.loss is None and file.data.input_path is None:
        key = "target_type" if found.target.kind == "labels" else "test_target_path"
        named = "random_patches" if file.data.makes_targets else f"{ROOT}.data.{key}"
        remedy = f"add a loss, or leave {named} out"
        return [Problem(f"{ROOT}.loss", "is missing: test targets need one", remedy=remedy)]
    return []


def _soft(file: RunFile, found: list[Survey]) -> list[str]:
    """A loss of classes takes values between them, which masks are read as where the run file does not say masks."""
    kind, loss = file.data.targets, file.loss
    if loss is None or not loss.of_classes or kind is None or not kind.scaled or file.data.makes_targets:
        return []
    if all(each.target is None or each.target.kind != "values" for each in found):
        return []
    what = f"{loss.function} takes the targets for values in [0, 1] (of 8 bits, 255 is 1)"
    return [f"{ROOT}.data.target_is_mask: is not set: {what}; if they are classes, set it to true"]


def _watched(file: RunFile, test: Survey) -> list[Problem]:
    """What `early_stopping` waits for has to be measured, or every run ends after `patience` epochs."""
    where, stopping = f"{ROOT}.early_stopping", file.early_stopping
    if stopping is None:
        return []
    if test.target is None:
        remedy = "give test targets, or leave early_stopping out"
        return [
            Problem(where, "watches the loss or the accuracy of test samples, and these have no targets", "", remedy)
        ]
    if stopping.metric == "accuracy" and test.target.kind == "values":
        return [Problem(f"{where}.metric", "there is no accuracy where the targets are values", "loss")]
    return []


def _channels(training: Survey, test: Survey) -> Problem | None:
    """Training and test slices are cut from arrays of as many channels, or no network takes both."""
    one, other = training.sample_shape[0], test.sample_shape[0]
    if not training.grids or one == other:
        return None
    what = f"{test.inputs[0]} has {other} channels, and the training array {training.inputs[0]} has {one}"
    return Problem(f"{ROOT}.data.test_input_path", what, "as many channels in both")


def _networks(run: Run, found: list[Survey], collected: Collected) -> dict[Shape, Network | None]:
    """The network for the samples of each part of `found`, and for all samples of a role, of whatever size they are;
    None where it is refused."""
    parts = {part.shape: part for each in found for part in each.parts}
    networks = {shape: _network(run, part, collected) for shape, part in parts.items()}
    for each in found:
        first, *others = ((part, networks[part.shape]) for part in each.parts)
        told = [problem for other in others for problem in _other_weights(each, first, other)]
        collected.problems += told
        if not told and None not in (networks[part.shape] for part in each.parts):
            networks[each.sample_shape] = collected.of(infer, run.graph, each.sample_shape)
    return networks


def _network(run: Run, part: Part, collected: Collected) -> Network | None:
    """The network for the samples of `part`; where it takes slices with some padding alone, that is said too."""
    network, takes = collected.of(infer, run.graph, part.shape), taking(run.graph)
    if network is None and part.name:
        padded = padded_to_fit(run.file.data, part, lambda shape: takes(shape) is not None)
        if padded is not None:
            number = named(run.file.data.slicers).index(part.name)
            what = f"the network does not take slices {part.shape} of {part.name}"
            remedy = f"it does with {padded}"
            collected.problems.append(Problem(f"{ROOT}.data.slicers[{number}]", what, remedy=remedy))
    return network


def _other_weights(
    found: Survey, first: tuple[Part, Network | None], other: tuple[Part, Network | None]
) -> Iterator[Problem]:
    """Slices of two sets go through a network unless a layer's weights depend on the size."""
    (part, network), (its, own) = first, other
    if network is None or own is None or (layer := _differing(network, own)) is None:
        return
    what = (
        f'layer "{layer}" needs other weights for slices {its.shape} of {its.name} than for {part.shape} of {part.name}'
    )
    remedy = "pad the sets to one size with padded_sizes, or end the network with a global pooling"
    number = [part.name for part in found.parts].index(its.name)
    yield Problem(f"{ROOT}.data.slicers[{number}].sizes", what, "slices of one size in all sets", remedy)


def _differing(one: Network, other: Network) -> str | None:
    """The name of the first layer whose weights are of other shapes."""
    for layer, its in zip(one.unique, other.unique, strict=True):
        if layer.sizes != its.sizes:
            return layer.name
    return None


def _same_weights(training: Network, test: Network) -> list[Problem]:
    """Samples of another size go through a network unless a layer's weights depend on the size."""
    layer = _differing(training, test)
    if layer is None:
        return []
    given, wanted = test.input_shape, training.input_shape
    resize = f'{{"resize": [{wanted[2]}, {wanted[1]}]}}' if None not in wanted else "a resize"
    problem = Problem(
        f"{ROOT}.data.test_input_path",
        f'layer "{layer}" needs other weights for test samples {given} than for training samples {wanted}',
        "samples of one size",
        f"add {resize} to the transforms, or end the network with a global pooling",
    )
    return [problem]


def _files(run: Run) -> list[Problem]:
    """Files that the run file names outside of the data."""
    problems = _written(run)
    section = run.file.checkpoints
    if section is None or section.load is None:
        return problems
    return problems + _weights(run, section.load)


def _written(run: Run) -> list[Problem]:
    """What cannot be written where the run file is, below which its paths are."""
    file, problems = run.file, []
    save = file.checkpoints.save if file.checkpoints is not None else None
    for key, given, problem_of in (
        ("outfile", file.outfile, problem_of_log),
        ("data.test_output_path", file.data.test_output_path, problem_of_writing),
        ("data.hdf5_outfile", file.data.hdf5_outfile, problem_of_writing),
        ("checkpoints.save", save, problem_of_writing),
    ):
        if given is not None:
            problems.append(problem_of(remote.text_of(resolve(given, run.base)), f"{ROOT}.{key}"))
    return [problem for problem in problems if problem is not None]


def _other_files(run: Run) -> Iterator[outfile.Other]:
    """The files of a run that are not data: it reads them, or writes them."""
    file, layers, base = run.file, run.mapping[ROOT]["layers"], run.base
    if run.source is not None:
        yield outfile.Other(run.source, "is read: it is the run file")
    if isinstance(layers, str):
        yield outfile.Other(resolve(layers, base), "is read: the layers are in it")
    if file.outfile is not None:
        for log in vars(LogFiles.beside(Path(str(resolve(file.outfile, base))))).values():
            yield outfile.Other(log, "is written, too: it goes with outfile")
    if file.data.test_output_path is not None:
        folder = resolve(file.data.test_output_path, base)
        yield outfile.Other(folder, "is written, too: test_output_path has such names", r"output_[0-9]+\.h5")
    section = file.checkpoints
    if section is not None and section.load is not None:
        yield outfile.Other(resolve(section.load, base), "is read: the weights are loaded from it")
    if section is not None and section.save is not None:
        folder, names = resolve(section.save, base), r"model_checkpoint_([0-9]+|best|interrupted)\.pt"
        yield outfile.Other(folder, "is written, too: checkpoints.save has such names", names)


def _weights(run: Run, load: str) -> list[Problem]:
    where, path = f"{ROOT}.checkpoints.load", resolve(load, run.base)
    try:
        there = remote.kind(path)
        if there == "file":
            format_of(path, where)
            return []
    except Refused as refused:
        return list(refused.problems)
    except OSError as error:
        return [Problem(where, f"{path} cannot be read: {error.strerror}")]
    return [no_file(path, where, there)]


def _fits(run: Run, network: Network) -> list[Problem]:
    """The problem of a file with weights that are those of another network, as far as names tell it."""
    section = run.file.checkpoints
    path = resolve(section.load, run.base) if section is not None and section.load is not None else None
    if not isinstance(path, Path) or not path.is_file():
        return []
    from rml_core.engine.weights import problem_of

    try:
        problem = problem_of(path, network)
    except OSError:
        # Said with the other files.
        return []
    return [problem] if problem is not None else []


def _learned(run: Run) -> Learned | None:
    """What the loaded checkpoint knows, where a run only evaluates; None: it is none of ours, or there is none."""
    section = run.file.checkpoints
    if section is None or section.load is None:
        return None
    path = resolve(section.load, run.base)
    try:
        if remote.kind(path) != "file":
            return None
        # Reading it takes torch: only the few runs that need to know pay for the import.
        from rml_core.checkpoints.torch_files import header

        saved = header(path, f"{ROOT}.checkpoints.load")
    except OSError:
        # Said with the other files.
        return None
    if saved is None:
        return None
    values = saved["mask_values"]
    return Learned(tuple(saved["classes"]) or None, tuple(values) if values is not None else None)
