"""What is new since the last round of retraining: in the run file, in the data, and in how it is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.champion import DATA, Champions, Round, Row
from flows.data_identity import Changes, Holdings
from rml_core.resume import text_of
from rml_core.run import ROOT, Run

# What of a run file says how it runs and where it writes, but not what is learned.
APART = ("outfile", "debug", "debug_interval", "device", "tensorboard")
APART_DATA = ("test_output_path", "hdf5_outfile", "hdf5_precision", "hdf5_output", "overlap_blend", "preload")
APART_CHECKPOINTS = ("save", "resume", "interval", "keep")


def learned_identity(run: Run) -> str:
    """The digest of a run file, but for what does not change what is learned; the network's JSON counts, and not the
    name of its file."""
    section = json.loads(text_of(run))[ROOT]
    kept = {key: value for key, value in section.items() if key not in APART}
    kept["data"] = {key: value for key, value in section["data"].items() if key not in APART_DATA}
    saving = section.get("checkpoints") or {}
    kept["checkpoints"] = {key: value for key, value in saving.items() if key not in APART_CHECKPOINTS}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def last_data(champions: Champions, history: list[Row]) -> Holdings | None:
    """What the data held in the last round that came to its end."""
    if not history:
        return None
    try:
        return Holdings.from_json((champions.round_path(history[-1]["round"]) / DATA).read_text())
    except (OSError, ValueError):
        return None


def other(began: Round, now: Holdings, run_file: str) -> str:
    """What is no longer as it was when the round began to train; "": all of it is. Test data do not count: they are
    looked at anew when it has trained."""
    try:
        data = Holdings.from_json((began.path / DATA).read_text()).of("training").digest()
    except (OSError, ValueError):
        data = ""
    found = {"the training data": data != now.of("training").digest(), "the run file": began.run_file != run_file}
    return " and ".join(what for what, is_other in found.items() if is_other)


def is_same(last: Row, wanted: Mapping[str, Any]) -> bool:
    return all(last.get(key) == value for key, value in wanted.items())


def is_lost(champion: Path | None, history: list[Row]) -> bool:
    """There was a champion, or should be one, whose file is gone."""
    return "lost" in history[-1] or (champion is None and any(row["promoted"] for row in history))


def nothing_new(last: Row, now: Holdings) -> str:
    since = f"round {last['round']} ({last['ended']})"
    return f"nothing new since {since}: the same run file, and the same {now.count('')} files"


def said(seen: Mapping[str, Changes], history: list[Row], wanted: Mapping[str, Any], champion: Path | None) -> str:
    """What is new, in a line."""
    if not history:
        return "the first one"
    found = [f"{side}: {each}" for side, each in seen.items() if each]
    others = {"run_file": "the run file", "metric": "the metric", "margin": "the margin"}
    found += [f"{what} is another" for key, what in others.items() if history[-1].get(key) != wanted[key]]
    if is_lost(champion, history):
        found.append("a champion's file is gone")
    return "; ".join(found) or "nothing new, and it trains all the same"
