"""A rank: one training process's network, optimizer and random state, and what can be asked of it.

Who holds a rank, and in which process, is not known here. What goes in and out is small and can be pickled;
samples and checkpoints go by their paths.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rml_core.checkpoints import native
from rml_core.config.limits import memory_limit
from rml_core.config.target import Target
from rml_core.data.batches import AHEAD_BYTES, batches
from rml_core.data.masks import Mapped
from rml_core.data.neighbours import MOST_BYTES
from rml_core.data.prepared import Prepared
from rml_core.data.samples import Samples
from rml_core.data.slices import Slices
from rml_core.data.source import Source
from rml_core.engine import debug, epoch, state, weights
from rml_core.engine.evaluation import Evaluated, Take, evaluate
from rml_core.engine.gallery import Gallery
from rml_core.engine.memory import keep_what_is_freed, most_held_mb
from rml_core.engine.metrics import metrics_for
from rml_core.engine.precision import Precision, device_named
from rml_core.engine.progress import Blocks, Progress
from rml_core.engine.step import Training
from rml_core.layers.build import build
from rml_core.layers.graph import Network
from rml_core.loss import Fitted, LossSection
from rml_core.optimizer import OptimizerSection

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

# Of what a run may hold (`memory_limit`): the decoded chunks of volumes that are trained on in any order, of those that
# are evaluated from one end to the other, batches that are made ahead, and what all threads read at
# once for them. An assembly takes the rest, and what chunks to train on take: these are let go of for it.
CACHE_SHARES = {"training": 2, "test": 5}
AHEAD_SHARE = COMMON_SHARE = 16


@dataclass(frozen=True)
class Setup:
    """Everything a rank is built from. `training` and `test` are handles of prepared samples. `flow_run`: the id of the
    tracked run that this one is; a run that goes on from another one's checkpoint keeps that one's `run_id`."""

    run_id: str
    app: str
    started: float
    run_file: str
    network: Network
    loss: LossSection | None
    fitted: Fitted | None
    target: Target | None
    optimizer: OptimizerSection | None
    training: Prepared | None
    test: Prepared | None
    mask_mapping: Mapped
    shuffle: bool
    seed: int
    precision: str
    device: str
    threads: int
    train_log: Path | None = None
    weights: AnyPath | None = None
    resume: AnyPath | None = None
    flow_run: str | None = None
    rank: int = 0
    world_size: int = 1


class Rank:
    """The live state. Calls come one at a time; `stop` alone may come from another thread or a signal handler."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.device = device_named(setup.device, setup.rank)
        if self.device.type == "cpu":
            keep_what_is_freed()
        self.precision = Precision.named(setup.precision)
        self.epoch, self.batch = 0, 0
        self.history: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.gallery = Gallery()
        self._sums = epoch.Sums()
        self._random: dict[str, Any] | None = None
        self._stop = threading.Event()
        network = build(setup.network, setup.seed)
        if setup.weights is not None and setup.resume is None:
            self.said += weights.load(setup.weights, network, setup.network)
        # Convolutions of images are faster with the channels last in memory; the numbers are the same.
        if len(setup.network.input_shape) == 3:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.to(self.device, self.precision.dtype)
        self.penalty = self.network.penalty
        if self.penalty is not None:
            self.penalty.watching = True
        self.objective = None
        if setup.loss is not None and setup.target is not None and setup.fitted is not None:
            self.objective = setup.loss.build(setup.fitted, setup.network.output_shape, setup.target)
        self.training: Training | None = None
        if setup.training is not None:
            assert setup.optimizer is not None
            assert self.objective is not None
            optimizer = setup.optimizer.build(self.network.parameters(), self.precision.scaled)
            clip_norm = setup.optimizer.clip_norm
            self.training = Training.of(
                self.network, self.objective, optimizer, self.precision, self.device, clip_norm, self.penalty
            )
        self._elapsed_before, self._began = 0.0, time.perf_counter()
        self._samples = {
            role: self._source(prepared)
            for role, prepared in (("training", setup.training), ("test", setup.test))
            if prepared is not None
        }
        if setup.resume is not None:
            self._restore(native.read(setup.resume, "neural_network.checkpoints.save"))
        self._began = time.perf_counter()

    def _source(self, prepared: Prepared) -> Source:
        setup = self.setup
        ignored = getattr(setup.loss, "ignore_index", None)
        if not prepared.grids:
            return Samples(prepared, setup.mask_mapping, ignored)
        assembled = prepared.role == "test" and prepared.data.hdf5_outfile is not None
        return Slices(
            prepared,
            setup.mask_mapping,
            ignored,
            channels=setup.network.output_shape[0] if assembled else None,
            cache_bytes=memory_limit() // CACHE_SHARES[prepared.role],
            common_bytes=min(MOST_BYTES, memory_limit() // COMMON_SHARE // max(setup.threads, 1)),
        )

    # --- what a run asks for

    def stop(self) -> None:
        """End the pass that is under way at its next batch."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def close(self) -> None:
        """Let go of the samples' files."""
        for source in self._samples.values():
            source.close()

    def elapsed(self) -> float:
        """Seconds of training until now, those before a resume included."""
        return self._elapsed_before + time.perf_counter() - self._began

    def warnings(self) -> list[str]:
        """What the passes until now have shown of the samples, each once."""
        said = []
        for source in self._samples.values():
            said += source.warnings
            source.warnings.clear()
        return said

    def measured(self) -> dict[str, float]:
        """What stands beside an epoch's figures: `time_s`, and the most memory held."""
        return {"time_s": round(self.elapsed(), 6), **most_held_mb(self.device)}

    def train_epoch(self, number: int, report: Callable[[Progress], None]) -> epoch.Sums:
        """Train epoch `number` to its end, or until `stop`; a resumed epoch goes on behind its last batch."""
        setup, training = self.setup, self.training
        assert training is not None
        assert setup.optimizer is not None
        assert setup.training is not None
        rate = self.learning_rate(number)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        # Dropout draws from torch's generators.
        state.begin_epoch(setup.seed, number, setup.rank, self.device, self._random)
        self._random = None
        source = batches(
            self._samples["training"],
            batch_size=setup.training.batch_size,
            epoch=number,
            seed=setup.seed,
            training=True,
            shuffle=setup.shuffle,
            threads=setup.threads,
            start=self._sums.batch,
            rank=setup.rank,
            world_size=setup.world_size,
            ahead_bytes=min(AHEAD_BYTES, memory_limit() // AHEAD_SHARE),
        )
        with closing(source):
            sums = epoch.train(
                training,
                source,
                epoch=number,
                count=setup.training.batches,
                sums=self._sums,
                accumulate=setup.optimizer.accumulate,
                elapsed=self.elapsed,
                stop=self._stop.is_set,
                report=report,
                log=setup.train_log if setup.rank == 0 else None,
                broken=self._samples["training"].broken,
            )
        if sums.stopped:
            self.epoch, self.batch = number, sums.batch
        else:
            self.epoch, self.batch = number, 0
            self._sums = epoch.Sums()
        return replace(sums)

    def learning_rate(self, number: int) -> float:
        """The rate of epoch `number`."""
        assert self.setup.optimizer is not None
        return self.setup.optimizer.learning_rate_of(number)

    def evaluate(
        self,
        number: int,
        output: AnyPath | None,
        report: Callable[[Blocks], None] | None = None,
        take: Take | None = None,
    ) -> Evaluated:
        """One pass over the test samples; `output`: the HDF5 file for predictions, which `take` is given too. `report`
        is told how far it is, where samples are slices."""
        setup = self.setup
        assert setup.test is not None
        count = setup.test.count
        if take is not None and "training" in self._samples:
            self._samples["training"].forget()

        def tell(done: int, size: int, seconds: float) -> None:
            assert report is not None
            report(Blocks(f"evaluate epoch {number}", done, count, size, seconds))

        self.gallery = Gallery(setup.test.count)
        source = batches(
            self._samples["test"],
            batch_size=setup.test.batch_size,
            epoch=number,
            seed=setup.seed,
            training=False,
            shuffle=False,
            threads=setup.threads,
            rank=setup.rank,
            world_size=setup.world_size,
            ahead_bytes=min(AHEAD_BYTES, memory_limit() // AHEAD_SHARE),
        )
        objective, metric = None, None
        if setup.test.target is not None and setup.target is not None and setup.fitted is not None:
            objective = self.objective
            ignored = setup.loss.ignored(setup.target) if setup.loss is not None else None
            names = setup.test.classes if setup.target.kind == "labels" else setup.mask_mapping
            metric = metrics_for(setup.network.output_shape, setup.target, setup.fitted.source, ignored, names)
        with closing(source):
            return evaluate(
                self.network,
                objective,
                metric,
                source,
                device=self.device,
                precision=self.precision,
                names=self._samples["test"].names,
                places=self._samples["test"].places,
                output=output,
                gallery=self.gallery,
                stop=self._stop.is_set,
                penalty=self.penalty.fixed() if self.penalty is not None else None,
                report=tell if report is not None and setup.test.grids else None,
                take=take,
            )

    def record(self, row: dict[str, Any]) -> None:
        """Add to, or complete, the epoch's row in the history that checkpoints carry."""
        if self.history and self.history[-1]["epoch"] == row["epoch"]:
            self.history.pop()
        self.history.append(row)

    def debug_statistics(self, path: Path) -> None:
        """Write the statistics of every parameter and of its gradient in the last batch, as JSON."""
        debug.write(self.network, path)

    def save(self, path: AnyPath) -> None:
        """Write the whole state as a checkpoint; it appears under its name only when whole.

        Raises:
            RunFailed: weights that nothing can go on from, or a full disk; earlier checkpoints are as they were.
        """
        assert self.training is not None
        content = state.saved_state(
            self.setup,
            self.network,
            self.training,
            epoch=self.epoch,
            batch=self.batch,
            elapsed=self.elapsed(),
            sums=self._sums,
            history=self.history,
        )
        native.write(content, path)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.epoch, self.batch = saved["epoch"], saved["batch"]
        rate = self.learning_rate(self.epoch) if self.setup.optimizer is not None else 0.0
        state.restore(saved, self.network, self.training, rate)
        self.history = json.loads(saved["history"])
        self._elapsed_before = saved["elapsed"]
        if self.batch:
            self._sums = epoch.Sums(**saved["sums"])
            self._random = saved["random"]
