"""Samples of a prepared role, opened in the rank: each one, or many at once where only arithmetic is left to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rml_core.config.problem import RunFailed
from rml_core.config.seed import Generators, generator
from rml_core.data.files import Item, held_shape
from rml_core.data.floats import end, ended
from rml_core.data.masks import Mapped, to_classes
from rml_core.data.prepared import Prepared
from rml_core.data.source import Room, Source
from rml_core.data.store import Reader
from rml_core.transforms.floats import Ending
from rml_core.transforms.section import size_of

# Where only arithmetic is left and a batch has fewer numbers, handing it to a thread costs more than making it.
INLINE = 1 << 19


def order(count: int, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """The samples of `epoch` in the order of training, int64 (count,)."""
    return generator(seed, "order", epoch).permutation(count) if shuffle else np.arange(count)


class Samples(Source):
    """What `prepared` stands for. `mapped`, `ignore_index`: how raw mask values become classes (`masks.mapping`).

    `alike`: all are of one shape; otherwise each is `alone` in its batch. Safe to use from several threads.
    """

    def __init__(self, prepared: Prepared, mapped: Mapped = None, ignore_index: int | None = None) -> None:
        self.prepared, self.data = prepared, prepared.data
        self.count = prepared.count
        self.names = self.places = prepared.names
        self.warnings: list[str] = []
        self._input_chain, self._target_chain = self.data.input_chain, self.data.target_chain
        chains = (self._input_chain, self._target_chain)
        self._draws = {
            training: any(step.transform.random for chain in chains for step in chain.remaining(training))
            for training in (False, True)
        }
        self._own = threading.local()
        # Targets that are made of the inputs begin as these do.
        self._of_inputs = self.data.makes_targets
        self._mapped, self._ignore_index = mapped, ignore_index
        self._input_files, self._target_files = prepared.inputs, prepared.targets
        self._labels = None if prepared.labels is None else np.asarray(prepared.labels, np.int64)
        folder = Path(prepared.folder)
        self._inputs = Reader(folder, "inputs") if prepared.preloaded else None
        self._targets = Reader(folder, "targets") if prepared.preloaded and self._target_files else None
        self.input_shape = held_shape(prepared.sample_shape)
        self._target_shape: tuple[Any, ...] = prepared.target.shape if prepared.target else ()
        self.alike = None not in self.input_shape and None not in self._target_shape
        self._gathered = {training: self._gatherable(training) for training in (False, True)}

    @cached_property
    def floats(self) -> int:
        """How many numbers a sample is in a batch; 0 where samples differ."""
        return int(np.prod([size or 0 for size in self.input_shape]))

    def parts(
        self, batch_size: int, seed: int, epoch: int, training: bool, shuffle: bool, start: int
    ) -> Iterator[np.ndarray]:
        sequence = order(self.count, epoch, seed, shuffle and training)
        return (sequence[at : at + batch_size] for at in range(start * batch_size, len(sequence), batch_size))

    def is_quick(self, training: bool, batch_size: int) -> bool:
        return self.gathers(training) and batch_size * self.floats <= INLINE

    def gathers(self, training: bool) -> bool:
        """Whether batches are cut from arrays that are there, with nothing but arithmetic left to do."""
        return self._gathered[training]

    def room(self, indices: np.ndarray) -> Room | None:
        if not self.alike:
            return None
        count, target = len(indices), self.prepared.target
        inputs: np.ndarray = np.empty((count, *self.input_shape), np.float32)
        if target is None:
            return Room(inputs, None)
        if target.kind == "values":
            return Room(inputs, np.empty((count, *held_shape(target.shape)), np.float32))
        return Room(inputs, np.empty((count, *self._target_shape), np.int64))

    def alone(self, indices: np.ndarray, seed: int, epoch: int, training: bool) -> Room:
        if len(indices) != 1:
            raise ValueError(f"samples of different shapes cannot be a batch of {len(indices)}")
        array, target = self.sample(int(indices[0]), seed, epoch, training)
        if target is not None and self._target_is_values:
            target = ended(self._target_chain.ending(training), target)
        array = ended(self._input_chain.ending(training), array)
        return Room(array[None], None if target is None else np.asarray(target)[None])

    def fill(self, indices: np.ndarray, room: Room, seed: int, epoch: int, training: bool) -> None:
        inputs, targets, _ = room
        if self.gathers(training):
            self._gather(indices, inputs, targets, training)
            return
        ending, target_ending = self._input_chain.ending(training), self._target_chain.ending(training)
        for row, index in enumerate(indices):
            array, target = self.sample(int(index), seed, epoch, training)
            if array.shape != inputs.shape[1:]:
                raise RunFailed(self._changed(int(index), array.shape, inputs.shape[1:]))
            end(ending, array, inputs[row])
            if targets is None:
                continue
            if np.shape(target) != targets.shape[1:]:
                raise RunFailed(self._changed(int(index), np.shape(target), targets.shape[1:]))
            if self._target_is_values:
                end(target_ending, target, targets[row])
            else:
                targets[row] = target

    def sample(self, index: int, seed: int, epoch: int, training: bool) -> tuple[np.ndarray, Any]:
        """Sample `index` as it is in `epoch`, held, but for the endings of the chains: the input, and its target: a
        class index, class indices without a channel axis, or values; None where there is none. Raises `RunFailed`
        naming the file."""
        rng = None
        if self._draws[training]:
            # What is random in evaluation is the same in every epoch.
            rng = self._generators().at(seed, "transform", epoch if training else "evaluation", index)
        draws: dict[int | str, Any] = {}
        item = self._input_files[index]
        try:
            led = self._inputs[index] if self._inputs else self._decoded_input(item)
            array = self._input_chain.finish(led, rng, draws, training)
            if self._labels is not None:
                return array, self._labels[index]
            if self._of_inputs:
                return array, self._target_chain.finish(led, rng, draws, training)
            if self._target_files is None:
                return array, None
            item = self._target_files[index]
            target = self._targets[index] if self._targets else self._decoded_target(item)
            target = self._target_chain.finish(target, rng, draws, training)
        except RunFailed:
            raise
        except Exception as error:  # whatever OpenCV or numpy says of this sample
            raise RunFailed(f"{item}: cannot be transformed: {' '.join(str(error).split())}") from error
        if self.data.target_is_mask:
            return array, to_classes(_channel(target), self._mapped, self._ignore_index)
        return array, target

    def passed(self) -> None:
        pass

    def forget(self) -> None:
        pass

    def close(self) -> None:
        pass

    def broken(self, indices: np.ndarray) -> str:
        found = []
        for index in map(int, indices):
            array, target = self.sample(index, 0, 0, training=False)
            if not np.isfinite(array).all():
                found.append(self._input_files[index])
            elif self._target_files is not None and not np.isfinite(target).all():
                found.append(self._target_files[index])
        if not found:
            return ""
        has = "has" if len(found) == 1 else f"and {len(found) - 1} more of the batch have"
        return f"{found[0]} {has} numbers that are nan or infinite: mend them or leave them out"

    def _generators(self) -> Generators:
        """This thread's own."""
        if not hasattr(self._own, "generators"):
            self._own.generators = Generators()
        return self._own.generators

    def _decoded_input(self, item: Item) -> np.ndarray:
        return self._input_chain.lead(self.prepared.input_form.read(item))

    def _decoded_target(self, item: Item) -> np.ndarray:
        assert self.prepared.target_form is not None
        return self._target_chain.lead(self.prepared.target_form.read(item))

    def _changed(self, index: int, given: tuple[int, ...], expected: tuple[int, ...]) -> str:
        files = [self._input_files[index], *([self._target_files[index]] if self._target_files else [])]
        images = len(given) == len(expected) == 3
        one, other = (size_of(shape) if images else str(shape) for shape in (given, expected))
        return f"{', '.join(map(str, files))}: gives {one}, not {other} as before: has the file changed?"

    @property
    def _target_is_values(self) -> bool:
        return self.prepared.target is not None and self.prepared.target.kind == "values"

    def _gatherable(self, training: bool) -> bool:
        sides = [(self._input_chain, self._inputs)]
        if self._target_files is not None:
            sides.append((self._target_chain, self._targets))
        return all(
            reader is not None and reader.alike is not None and chain.gathers(training) for chain, reader in sides
        )

    def _gather(self, indices: np.ndarray, inputs: np.ndarray, targets: np.ndarray | None, training: bool) -> None:
        assert self._inputs is not None
        assert self._inputs.alike is not None
        _end_many(self._input_chain.ending(training), self._inputs.alike.take(indices, axis=0), inputs)
        if targets is None:
            return
        if self._labels is not None:
            self._labels.take(indices, out=targets)
            return
        assert self._targets is not None
        assert self._targets.alike is not None
        raw = self._targets.alike.take(indices, axis=0)
        if self.data.target_is_mask:
            classes = raw[..., 0] if raw.ndim == 4 else raw[:, 0]
            targets[...] = to_classes(classes, self._mapped, self._ignore_index)
        else:
            _end_many(self._target_chain.ending(training), raw, targets)


def _channel(mask: np.ndarray) -> np.ndarray:
    """The one channel of a held mask."""
    return mask[..., 0] if mask.ndim == 3 else mask[0, ...]


def _end_many(ending: Ending, arrays: np.ndarray, out: np.ndarray) -> None:
    """`end` of (N, ...)."""
    if arrays.ndim == 4:
        ending.apply_into(arrays, out)
    else:
        out[...] = np.moveaxis(ending.apply(np.moveaxis(arrays, 1, -1)), -1, 1)
