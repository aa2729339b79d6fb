"""A campaign of kills: `python tests/production/chaos.py --kills 100 [--seed 7] [--kind NAME ...]`.

A real service, short runs side by side, and somebody who kills at random moments: a flow's process, a worker, the
server, a Dask worker, all of them at once; or cancels. Each run has to end well by itself or after `prefect flow-run
retry`, and to leave what an undisturbed run leaves, bit by bit. Prints a tally; exit status 1 where anything is
otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from chaos_runs import BATCHES, EPOCHS, Run, differences, make_data, same, section

__all__ = ["BATCHES", "EPOCHS", "Run", "campaign", "make_data", "same", "section", "tally"]

SIDE_BY_SIDE = 3
PATIENCE = 600.0
ENVIRONMENT = {"RML_RETRIES": "3"}
# As `prefect flow-run retry` sets it.
RETRY = {"type": "SCHEDULED", "name": "Scheduled", "message": "Retried via CLI"}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Campaign:
    """A service, a Dask cluster and undisturbed runs to compare with."""

    def __init__(self, service: Any, home: Path, seed: int) -> None:
        self.service, self.home = service, home
        self.random = random.Random(seed)
        self.data = make_data(home / "data")
        self.dask: list[subprocess.Popen[bytes]] = []
        self.scheduler = ""
        self.number = 0
        # Seconds for which the server is away.
        self.away = 10.0
        self.references: dict[bool, Run] = {}

    # What happens to a run: each gives the seconds that the server may be away.
    def kill_flow(self, run: Run) -> None:
        self._signal_flow(run, signal.SIGKILL)

    def end_flow(self, run: Run) -> None:
        self._signal_flow(run, signal.SIGTERM)

    def kill_worker(self, run: Run) -> None:
        self._signal(self.worker(), signal.SIGKILL)

    def end_worker(self, run: Run) -> None:
        self._signal(self.worker(), signal.SIGTERM)

    def kill_server(self, run: Run) -> None:
        self._signal(self.server(), signal.SIGKILL)

    def end_server(self, run: Run) -> None:
        self._signal(self.server(), signal.SIGTERM)

    def kill_dask_worker(self, run: Run) -> None:
        """A nanny's child, which it replaces."""
        parents = psutil.Process(self.dask[1].pid).children(recursive=True)
        for process in [each for each in parents if "resource_tracker" not in " ".join(each.cmdline())]:
            self._signal(process.pid, signal.SIGKILL)

    def end_dask_worker(self, run: Run) -> None:
        """As a cluster does that wants its machine back, and gives another one."""
        old = self.dask[1]
        self.dask[1] = self._start_dask_worker()
        self._signal(old.pid, signal.SIGTERM)
        old.wait(PATIENCE)

    def kill_dask_scheduler(self, run: Run) -> None:
        self._signal(self.dask[0].pid, signal.SIGKILL)
        self.dask[0].wait()
        self.dask[0] = self._start_scheduler()

    def cancel_by_command(self, run: Run) -> None:
        self.service.run("prefect", "flow-run", "cancel", run.id)

    def cancel_in_ui(self, run: Run) -> None:
        """As the button does."""
        state = {"type": "CANCELLING", "name": "Cancelling", "message": "Set through the Prefect UI"}
        # Another disaster may have taken the server.
        self._patiently(lambda: self.service.call(f"/flow_runs/{run.id}/set_state", {"state": state, "force": False}))

    def kill_worker_then_cancel(self, run: Run) -> None:
        self.kill_worker(run)
        self.cancel_in_ui(run)

    def kill_worker_and_flow(self, run: Run) -> None:
        self.kill_worker(run)
        self.kill_flow(run)

    def kill_everything(self, run: Run) -> None:
        for pid in (self.server(), self.worker()):
            self._signal(pid, signal.SIGKILL)
        self.kill_flow(run)
        if run.volume:
            self.kill_dask_worker(run)

    def server_away(self, run: Run) -> None:
        """Nobody starts it again for a while."""
        from flows.service.state import State
        from flows.service.supervisor import Supervisor

        supervisor = Supervisor(State(self.service.state))
        supervisor.stop("server")
        time.sleep(self.away)
        supervisor.start("server")

    def declare_crashed(self, run: Run) -> None:
        """As the automation does that hears no heartbeat."""
        state = {"type": "CRASHED", "name": "Crashed", "message": "No sign of life from its process"}
        self._patiently(lambda: self.service.call(f"/flow_runs/{run.id}/set_state", {"state": state, "force": False}))

    def server(self) -> int:
        return self._pid("flows.service.server server start")

    def worker(self) -> int:
        return self._pid("flows.service.worker cpu")

    def _pid(self, command: str) -> int:
        """The supervisor's child with these words in its command line, as soon as it is there."""
        until = time.monotonic() + PATIENCE
        supervisor = int((self.service.state / "supervisord.pid").read_text())
        while time.monotonic() < until:
            for process in psutil.Process(supervisor).children():
                with suppress(psutil.Error):
                    if command in " ".join(process.cmdline()):
                        return process.pid
            time.sleep(0.1)
        raise TimeoutError(command)

    def _signal_flow(self, run: Run, number: signal.Signals) -> None:
        for process in self.service.processes(run.id):
            self._signal(process.pid, number)

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def start_dask(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.scheduler = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.dask = [self._start_scheduler(), self._start_dask_worker()]

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        port = self.scheduler.rpartition(":")[2]
        return self._dask("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def _start_dask_worker(self) -> subprocess.Popen[bytes]:
        return self._dask("worker", self.scheduler, "--nworkers", "2", "--nthreads", "1", "--no-dashboard")

    def _dask(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        log = (self.home / f"dask-{arguments[0]}.log").open("ab")
        return subprocess.Popen(
            command, env=self.service.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
        )

    def close(self) -> None:
        for process in self.dask:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def submit(self, kind: str = "", volume: bool = False) -> Run:
        self.number += 1
        folder = self.home / f"run{self.number}"
        folder.mkdir()
        parameters = {"scheduler": self.scheduler} if volume else {}
        began = time.monotonic()
        run_id = self._patiently(lambda: self.service.submit(section(self.data, folder, volume), **parameters))
        return Run(run_id, folder, volume, kind, began)

    def reference(self, volume: bool) -> Run:
        """An undisturbed run, once."""
        if volume not in self.references:
            if volume and not self.dask:
                self.start_dask()
            run = self.submit(volume=volume)
            state = self.ended(run)
            if state["state_type"] != "COMPLETED":
                raise AssertionError(f"the undisturbed run: {state['state']}\n{self.service.log(run.id)}")
            self.references[volume] = run
        return self.references[volume]

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """The server may be away."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def ended(self, run: Run, patience: float = PATIENCE) -> dict[str, Any]:
        """The run when it has ended for good: crashed ones are started again by an automation."""
        until = time.monotonic() + patience
        since: float | None = None
        while True:
            found = self._patiently(lambda: self.service.flow_run(run.id))
            if found["state_type"] in ENDED:
                final = found["state_type"] != "CRASHED"
                since = since or time.monotonic()
                # An automation, or its worker, is to start it again.
                if final or time.monotonic() - since > 60:
                    run.seconds = time.monotonic() - run.began
                    return dict(found)
            else:
                since = None
            if time.monotonic() > until:
                run.wrong.append(f"is {found['state_name']} after {patience:.0f} s")
                return dict(found)
            time.sleep(0.3)

    def moment(self) -> tuple[int, int]:
        """Somewhere in the run; one in eight comes as soon as its process is there."""
        if self.random.random() < 1 / 8:
            return 0, 0
        return self.random.randint(1, EPOCHS - 1), self.random.randint(1, BATCHES - 1)

    def disturb(self, run: Run, moment: tuple[int, int]) -> None:
        """Let it happen as soon as the run has reached (epoch, batch); (0, 0): when its process is there."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if run.at() >= moment if moment > (0, 0) else self.service.processes(run.id):
                break
            time.sleep(0.02)
        run.position, run.saved, run.acted = run.at(), run.newest(), time.time()
        getattr(self, run.kind)(run)

    def disturb_all(self, runs: list[Run]) -> None:
        """Each at a moment of its own, and at last wait until all have ended."""
        threads = [threading.Thread(target=self.disturb, args=(run, self.moment())) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for run in runs:
            self.finish(run)

    def finish(self, run: Run) -> None:
        """Wait until it has ended, have it go on where that is up to the user, and look at what it has left."""
        state = self.ended(run)
        cancelled = "cancel" in run.kind
        if cancelled and state["state_type"] not in ("CANCELLED", "COMPLETED"):
            run.wrong.append(f"was cancelled and is {state['state_name']}")
        while state["state_type"] in ENDED and state["state_type"] != "COMPLETED" and run.retries < 2:
            run.retries += 1
            self.gone(run)
            self._patiently(
                lambda: self.service.call(f"/flow_runs/{run.id}/set_state", {"state": RETRY, "force": True})
            )
            state = self.ended(run)
        if state["state_type"] != "COMPLETED":
            text = self._patiently(lambda: self.service.log(run.id))
            run.wrong.append(f"ends {state['state_name']}: {state['state']['message']}\n{text}")
            return
        self.gone(run)
        run.wrong += differences(run, self.reference(run.volume))
        self.count_redone(run)

    def gone(self, run: Run) -> None:
        until = time.monotonic() + 90
        while self.service.processes(run.id):
            if time.monotonic() > until:
                run.wrong.append("its process is still there")
                return
            time.sleep(0.1)

    def count_redone(self, run: Run) -> None:
        """From where it went on, as its log says: not before the newest checkpoint that there was."""
        # What happened to others, as to a worker that they share, may have had it begin again before.
        said = self._patiently(lambda: self.service.log(run.id, since=run.acted)).splitlines()
        texts = [line for line in said if line.startswith("resuming ")]
        if not texts or run.position == (0, 0):
            if run.saved and any("it starts as it did at first" in line for line in said):
                run.wrong.append(f"has begun anew, with a checkpoint of epoch {run.saved}")
            return
        words = texts[0].rpartition("(after ")[2].rstrip(")").split()
        went_on = (int(words[1]), BATCHES) if words[0] == "epoch" else (int(words[4]), int(words[1]))
        at = (run.position[0] - went_on[0]) * BATCHES + run.position[1] - went_on[1]
        run.redone = max(at, 0)
        if went_on < (run.saved, BATCHES):
            run.wrong.append(f"went on after {went_on}, with a checkpoint of epoch {run.saved}")

    def stray(self) -> list[str]:
        """What nobody needs any more, and what the cache has that is not whole."""
        wrong = []
        cache = Path(self.service.environment["XDG_CACHE_HOME"]) / "rml" / "prepared"
        for path in cache.rglob("*"):
            if path.name.startswith(".") or "tmp" in path.name or path.suffix == ".unfinished":
                wrong.append(f"stray: {path}")
        return wrong


KINDS = [
    "kill_flow",
    "end_flow",
    "kill_worker",
    "end_worker",
    "kill_server",
    "end_server",
    "kill_dask_worker",
    "end_dask_worker",
    "cancel_by_command",
    "cancel_in_ui",
    "kill_worker_then_cancel",
    "kill_worker_and_flow",
    "kill_everything",
    "declare_crashed",
    "server_away",
]


def put_up(home: Path) -> Any:
    """The service of the tests' own fixture."""
    spec = importlib.util.spec_from_file_location("production", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["production"] = module
    spec.loader.exec_module(module)
    return module._put_up(home, "--gpu-runs", "0", "--cpu-runs", str(SIDE_BY_SIDE), environment=ENVIRONMENT)


@contextmanager
def campaign(home: Path, seed: int, put_up: Callable[[Path], Any] = put_up) -> Iterator[Campaign]:
    with ExitStack() as stack:
        service = stack.enter_context(put_up(home / "service"))
        found = Campaign(service, home, seed)
        stack.callback(found.close)
        yield found


def tally(runs: list[Run], references: dict[bool, Run]) -> str:
    lines = [f"{'kind':26}{'runs':>6}{'by itself':>11}{'by retry':>10}{'wrong':>7}{'lost s':>9}{'epochs redone':>15}"]
    for kind in sorted({run.kind for run in runs}, key=KINDS.index):
        each = [run for run in runs if run.kind == kind]
        lost = sum(run.seconds - references[run.volume].seconds for run in each) / len(each)
        redone = sum(run.redone for run in each) / BATCHES / len(each)
        alone = sum(not run.retries for run in each)
        wrong = sum(bool(run.wrong) for run in each)
        lines.append(f"{kind:26}{len(each):>6}{alone:>11}{len(each) - alone:>10}{wrong:>7}{lost:>9.1f}{redone:>15.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=KINDS, help="these alone")
    parser.add_argument("--away", type=float, default=10.0, help="seconds for which the server is away")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    given = parser.parse_args()
    kinds = given.kind or KINDS
    home = Path(tempfile.mkdtemp(prefix="rml-chaos-"))
    runs: list[Run] = []
    began = time.monotonic()
    stray: list[str] = []
    # Told to end, it takes its service down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with campaign(home, given.seed) as found:
        found.away = given.away
        due = [kinds[index % len(kinds)] for index in range(given.kills)]
        found.random.shuffle(due)
        for kind in {any("dask" in each for each in due), False}:
            print(f"undisturbed: {found.reference(kind).seconds:.1f} s", flush=True)
        while due:
            some, due = due[:SIDE_BY_SIDE], due[SIDE_BY_SIDE:]
            these = [found.submit(kind, volume="dask" in kind) for kind in some]
            found.disturb_all(these)
            for run in these:
                outcome = "; ".join(run.wrong) or ("by retry" if run.retries else "by itself")
                print(f"{len(runs) + 1}: {run.kind} at {run.position}: {outcome} ({run.seconds:.1f} s)", flush=True)
                runs.append(run)
        stray = found.stray()
        print(tally(runs, found.references))
    print("\n".join(stray))
    bad = sum(bool(run.wrong) for run in runs) + len(stray)
    print(f"{len(runs)} kills in {time.monotonic() - began:.0f} s with seed {given.seed}: {bad or 'no'} deviations")
    if not given.keep and not bad:
        shutil.rmtree(home)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
