"""What the server does by itself when something happens: one table, registered by `rml up`.

Each entry is an automation as Prefect's interface takes it (`prefect.automations`): a function without arguments,
because making one imports Prefect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flows.service import notify, survival

AUTOMATIONS: tuple[Callable[[], Any], ...] = (
    survival.lost_heartbeat,
    survival.crashed,
)

# What tells a webhook, where there is one: given the block that has its address.
NOTIFICATIONS: tuple[Callable[[UUID], Any], ...] = (
    notify.failed,
    notify.crashed,
    notify.too_long,
    notify.promoted,
)
