"""What is told of a run when its work begins: what is known of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.places import Places
    from flows.plan import Plan
    from rml_core.check import Checked


@dataclass(frozen=True)
class Begun:
    """An event: the run that is `checked` begins to do what is `planned`, and writes to `places`."""

    checked: Checked
    planned: Plan
    places: Places

    @property
    def first(self) -> int:
        """The first epoch of which something is done."""
        return self.planned.groups[0].epochs[0].number if self.planned.groups else 1

    def epochs_with(self, number: int) -> tuple[int, int]:
        """The first and the last epoch of the phase that trains epoch `number`."""
        return self._together.get(number, (number, number))

    def is_group(self, name: str) -> bool:
        """The phase `name` takes several epochs."""
        return any(group.phase is not None and group.phase.name == name for group in self.planned.groups)

    @cached_property
    def _together(self) -> dict[int, tuple[int, int]]:
        return {
            epoch.number: (group.epochs[0].number, group.epochs[-1].number)
            for group in self.planned.groups
            if group.phase is not None
            for epoch in group.epochs
        }
