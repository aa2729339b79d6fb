"""The body of the flow: the phases of a plan in their order, each called through `do`.

Tracked, `do` makes a Prefect task run of each phase; untracked, it calls the functions as they are, and Prefect is
never imported.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.begun import Begun
from flows.console import EpochLines
from flows.cross_sections import Meaning
from flows.places import Places
from flows.plan import Plan, plan
from flows.slice_table import table_of
from flows.training import Do, Loop, as_it_is, run_groups
from rml_core.check import Checked
from rml_core.checkpoints import native
from rml_core.config.paths import resolve
from rml_core.config.problem import Refused, RunFailed
from rml_core.data.masks import CLASS_TARGETS, MASKS, Mapped, check_known, mapping
from rml_core.data.prepared_folders import Gone, in_use
from rml_core.engine import log
from rml_core.engine.claim import claimed
from tasks import devices, ranks
from tasks.interrupt import deferred
from tasks.load import Source, load
from tasks.progress import listening, publish
from tasks.progress import log as say
from tasks.slice import SliceSet, Slicing, slice_
from tasks.transform import transform

if TYPE_CHECKING:
    from flows.attempt import Attempt
    from rml_core.config.paths import AnyPath
    from rml_core.data.prepared import Prepared
    from rml_core.engine.gallery import Gallery
    from rml_core.engine.rank import Setup
    from rml_core.resume import Position

__all__ = ["Outcome", "as_it_is", "execute"]


@dataclass
class Outcome:
    """What a run has left: figures an epoch, samples to look at, and where it wrote. `source`: what the network's
    output is (sigmoid, softmax, logits, ...). `seen`: what the assembled prediction was made of, and what it means.
    `interrupted`: a signal came, and whoever it was delivered to let the process go on."""

    history: list[dict[str, Any]]
    gallery: Gallery
    classes: tuple[str, ...]
    source: str
    places: Places
    seconds: float
    seen: tuple[Prepared, Meaning] | None = None
    interrupted: bool = False


def execute(
    checked: Checked,
    do: Do,
    *,
    resuming: str | None = None,
    scheduler: str | None = None,
    attempt: Attempt | None = None,
) -> Outcome:
    """Run the plan of `checked`, from the newest checkpoint where `resuming`, or the run file, says "auto".

    `attempt`: at a tracked run, which goes on from its own newest checkpoint where an earlier attempt has left one.

    Raises:
        Refused: before any work: another run writes to the same place, a checkpoint does not fit.
        RunFailed: during it.
    """
    began = time.perf_counter()
    for warning in checked.warnings:
        say.warning(f"warning: {warning}")
    devices.wanted(checked.run.file.device)
    do = _saying_where(do)
    places = Places.of(checked)
    lines = EpochLines(checked.run.file.num_epochs, checked.test is not None, places.prediction is not None)
    wait = attempt.wait if attempt is not None and attempt.goes_on else None
    with claimed(places.make(), places.replaced, wait), listening(lines), ExitStack() as held:
        if places.prediction is not None:
            from flows.assembling import refuse_without_room

            refuse_without_room(checked, places)
        section = checked.run.file.checkpoints
        resuming = resuming or (section.resume if section is not None else None)
        position = _own_position(checked, places, attempt.run_id) if attempt is not None and attempt.goes_on else None
        if position is None and resuming is not None:
            position = _position(checked, places)
        planned = plan(checked, position.epoch, position.batch) if position is not None else plan(checked)
        publish(Begun(checked, planned, places))
        if position is not None and not planned.trains:
            say.info(f"nothing is left to train: num_epochs is {checked.run.file.num_epochs}")
        if checked.run.file.data.validation_split is not None and checked.training is not None:
            apart = checked.test.count if checked.test is not None else 0
            say.info(f"{apart} of {apart + checked.training.count} training samples are held out for evaluation")
        prepared, slice_sets = _prepare(checked, planned, _keeping(do, held), scheduler, held)
        if slice_sets:
            publish(table_of(planned, prepared))
        from tasks.build import build

        mapped = _mask_mapping(checked, prepared)
        if position is not None:
            from rml_core.resume import check_masks

            check_masks(position, mapped)
        setup = _setup(checked, places, position, prepared, mapped, attempt)
        if places.debug is not None:
            from rml_core.layers.dot import to_dot

            log.put(places.debug / "network.dot", to_dot(checked.network).encode())
        if checked.training is not None and places.checkpoints is None:
            say.info("the weights will not be kept: checkpoints.save is not set")
        if checked.classes:
            say.info("classes " + ", ".join(f"{name} -> {index}" for index, name in enumerate(checked.classes)))
        what = str(checked.run.source or checked.run.base)
        device = held.enter_context(devices.taken(checked.run.file.device, what, do))
        setup = replace(setup, device=device.device.torch if device is not None else "cpu")
        stage = do(planned.build.name, build, setup, device, *slice_sets)
        if places.checkpoints is not None and position is None:
            native.begin(places.checkpoints, setup.run_id, setup.started)
        if places.logs is not None:
            # Not before now: what stops a run until here leaves the logs of the one before.
            at = (position.epoch, position.batch) if position is not None else (0, 0)
            log.start(places.logs, *at, evaluates=checked.test is not None)
        if places.tensorboard is not None:
            held.enter_context(_watched(checked, places.tensorboard, position, planned))
        with _closing(stage.ranks), deferred(lambda: ranks.stop(stage.ranks)) as interruption:
            file = checked.run.file
            assembling = None
            if places.prediction is not None:
                from flows.assembling import beginning

                assembling = beginning(checked, places, setup, scheduler)
            loop = Loop(
                run_id=setup.run_id,
                optimizer=file.optimizer,
                checkpoints=file.checkpoints,
                early_stopping=file.early_stopping,
                save=places.checkpoints,
                output=places.output,
                logs=places.logs,
                debug=places.debug,
                debug_interval=file.debug_interval,
                assembling=assembling,
            )
            run_groups(loop, planned.groups, stage, do, interruption)
            return Outcome(
                history=ranks.history(stage.ranks),
                gallery=ranks.gallery(stage.ranks),
                classes=checked.classes,
                source=checked.fitted.source if checked.fitted is not None else "",
                places=places,
                seconds=time.perf_counter() - began,
                seen=(prepared["test"], Meaning.of(checked, mapped)) if places.prediction is not None else None,
                interrupted=interruption.signal is not None,
            )


def _saying_where(do: Do) -> Do:
    """What goes wrong in a phase is said with the phase's name, in one line."""

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        with _named(name):
            return do(name, function, *arguments)

    return call


@contextmanager
def _named(phase: str) -> Iterator[None]:
    try:
        yield
    except Refused:
        raise
    except RunFailed as failed:
        raise type(failed)(f"{phase}: {failed}") from failed
    except Exception as error:
        text = " ".join(str(error).split())
        raise RunFailed(f"{phase}: {type(error).__name__}: {text}") from error


def _watched(checked: Checked, folder: Path, position: Position | None, planned: Plan) -> AbstractContextManager[None]:
    """What TensorBoard is to show goes to `folder`."""
    from flows.tensorboard_log import written

    epoch, batch = (position.epoch, position.batch) if position is not None else (0, 0)
    return written(folder, epoch, batch, planned.batches["train"], checked.test is not None)


def _keeping(do: Do, held: ExitStack) -> Do:
    """Prepared samples that a phase gives are not removed by anybody until `held` lets go of them: also those of a
    phase that Prefect has taken from its cache, which was not called."""

    def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            given = do(name, function, *arguments)
            if function is slice_:
                return given
            try:
                held.enter_context(in_use(Path(given.folder)))
                return given
            except Gone:
                # Somebody has cleaned up since Prefect was asked: they are made again.
                continue

    return call


def _prepare(
    checked: Checked, planned: Plan, do: Do, scheduler: str | None, held: ExitStack
) -> tuple[dict[str, Prepared], list[SliceSet]]:
    """The samples of each role, ready for the ranks, and the slice sets that they are cut in."""
    prepared: dict[str, Prepared] = {}
    slice_sets: list[SliceSet] = []
    surveys = {"training": checked.training, "test": checked.test}
    for role, phase in planned.load.items():
        survey = surveys[role]
        assert survey is not None
        # A copy each: Prefect takes an object that two phases have for data that flows between them.
        source = Source(survey, checked.run.file.data.model_copy(), scheduler, held)
        if role in planned.transform:
            loaded = do(phase.name, load, source.listed_only())
            prepared[role] = do(planned.transform[role].name, transform, source, loaded)
        else:
            prepared[role] = do(phase.name, load, source)
        for number, sliced in enumerate(planned.slice.get(role, ())):
            slice_sets.append(do(sliced.name, slice_, Slicing(source, number), prepared[role]))
    # Once, where training and test are cut from one volume.
    for warning in dict.fromkeys(warning for each in prepared.values() for warning in each.warnings):
        say.warning(f"warning: {warning}")
    return prepared, slice_sets


def _mask_mapping(checked: Checked, prepared: dict[str, Prepared]) -> Mapped:
    """Which raw values of the masks stand for the classes; a value unseen in training is refused."""
    if checked.target is None or checked.target.kind != "mask":
        return None
    outputs = checked.network.output_shape[0] or 2
    what = MASKS if checked.target.shape else CLASS_TARGETS
    ignored = getattr(checked.run.file.loss, "ignore_index", None)
    training, test = prepared.get("training"), prepared.get("test")
    if training is not None:
        values = dict(training.mask_values)
        if checked.run.file.data.validation_split is not None and test is not None:
            # Those that are held out are training masks as well: which ones the seed draws decides on no class.
            values = dict(test.mask_values) | values
        with _named("load training"):
            mapped = mapping(values, outputs, ignored, what)
        if mapped is not None:
            say.info("mask values " + ", ".join(f"{value} -> {index}" for index, value in enumerate(mapped)))
    elif checked.learned is not None:
        mapped = checked.learned.mask_values
    else:
        assert test is not None
        with _named("load test"):
            mapped = mapping(dict(test.mask_values), outputs, ignored, what)
    if test is not None and test.target is not None:
        with _named("load test"):
            check_known(dict(test.mask_values), mapped, outputs, ignored, what)
    return mapped


def _setup(
    checked: Checked,
    places: Places,
    position: Position | None,
    prepared: dict[str, Prepared],
    mapped: Mapped,
    attempt: Attempt | None,
) -> Setup:
    from rml_core.engine.rank import Setup
    from rml_core.resume import text_of

    file = checked.run.file
    weights = file.checkpoints.load if file.checkpoints is not None else None
    flow_run = attempt.run_id if attempt is not None else None
    return Setup(
        run_id=position.run_id if position is not None else flow_run or uuid.uuid4().hex,
        flow_run=flow_run,
        app=checked.app,
        started=position.started if position is not None else time.time(),
        run_file=text_of(checked.run),
        network=checked.network,
        loss=file.loss,
        fitted=checked.fitted,
        target=checked.target,
        optimizer=file.optimizer,
        training=prepared.get("training"),
        test=prepared.get("test"),
        mask_mapping=mapped,
        shuffle=file.data.shuffle,
        seed=file.seed,
        precision=file.precision,
        device=file.device,
        threads=ranks.threads(),
        train_log=places.logs.train if places.logs is not None else None,
        weights=resolve(weights, checked.run.base) if weights is not None else None,
        resume=position.path if position is not None else None,
    )


def _position(checked: Checked, places: Places) -> Position | None:
    """Where the newest checkpoint stands; None: there is none to resume from."""
    if places.checkpoints is None:
        say.warning("nothing to resume: checkpoints.save is not set, or the run does not train")
        return None
    position = _found(checked, places.checkpoints)
    if position is None:
        say.info(f"nothing to resume in {places.checkpoints}: the run starts anew")
    else:
        _say_resuming(position)
    return position


def _own_position(checked: Checked, places: Places, run_id: str) -> Position | None:
    """Where the newest checkpoint of the run `run_id` stands; None: it has left none, or another run has written to
    the same place since."""
    if places.checkpoints is None:
        return None
    from rml_core import resume

    position = _found(checked, places.checkpoints, run_id)
    if position is None:
        say.info(f"this run has left no checkpoint in {places.checkpoints}: it starts as it did at first")
    elif resume.is_overwritten(position, places.checkpoints, places.logs):
        say.warning(
            f"another run has written to the same place since {position.path} was saved: this run starts as it did "
            "at first"
        )
        return None
    else:
        _say_resuming(position)
    return position


def _found(checked: Checked, folder: AnyPath, of: str | None = None) -> Position | None:
    from rml_core import resume

    samples = checked.training.count if checked.training is not None else 0
    position, said = resume.find(checked.run, folder, checked.classes, samples, of)
    for line in said:
        say.warning(line)
    return position


def _say_resuming(position: Position) -> None:
    at = f"batch {position.batch} of epoch {position.epoch}" if position.batch else f"epoch {position.epoch}"
    say.info(f"resuming {position.path} (after {at})")


@contextmanager
def _closing(handle: ranks.Ranks) -> Iterator[None]:
    try:
        yield
    finally:
        ranks.close(handle)
