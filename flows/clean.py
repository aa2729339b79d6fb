"""The flow `rml` of the deployment `rml/clean`: what `rml clean` does, by a schedule."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows import attempt, cleaning
from flows.rml import log_to_server
from rml_core.config.problem import collect
from tasks.progress import log

# A network's file is named by its content.
NETWORK = re.compile(r"[0-9a-f]{24}\.json")
YET_TO_END = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
PAGE = 200


@flow(name="rml", persist_result=False)
def clean(older_than: str = cleaning.DAYS, larger_than: str | None = None, dry_run: bool = False) -> None:
    """Remove prepared samples that are old or too much, and what killed runs have left.

    Args:
        older_than: What was not used for so long goes, as 30d or 12h.
        larger_than: What was not used for longest goes until the rest takes no more, as 20GB.
        dry_run: Only say what would go.
    """
    log_to_server()
    with attempt.made():
        given: dict[str, Any] = {"larger": None}
        collect(
            lambda: given.update(older=cleaning.seconds(older_than, "older_than")),
            lambda: given.update(larger=cleaning.size(larger_than, "larger_than") if larger_than else None),
        )
        done = cleaning.clean(given["older"], given["larger"], networks_in_use=networks_in_use, dry_run=dry_run)
        for line in done.lines(dry_run):
            log.info(line)


def networks_in_use() -> set[str]:
    """Names of the networks in the parameters of deployments, of their schedules, and of runs that are yet to end."""
    found: set[str] = set()
    runs = {"flow_runs": {"state": {"type": {"any_": list(YET_TO_END)}}}}
    with get_client(sync_client=True) as client:
        for path, body in (("/deployments/filter", {}), ("/flow_runs/filter", runs)):
            for entry in _pages(client, path, body):
                found |= set(NETWORK.findall(json.dumps([entry.get("parameters"), entry.get("schedules")])))
    return found


def _pages(client: SyncPrefectClient, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        page = client._client.post(path, json={**body, "limit": PAGE, "offset": offset})
        page.raise_for_status()
        entries = page.json()
        yield from entries
        offset += len(entries)
        if len(entries) < PAGE:
            return
