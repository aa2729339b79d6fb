"""A Dask cluster that asks SLURM for workers while there is work, and gives them back: `python cluster.py [MOST]`.

Prints the scheduler's address, for `--scheduler`, and stays until it is ended. What a worker's job asks SLURM for
stands in `jobqueue.yaml`. Needs `pip install dask-jobqueue`.
"""

from __future__ import annotations

import signal
import sys

from dask_jobqueue import SLURMCluster  # type: ignore[import-not-found, import-untyped, attr-defined, unused-ignore]


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    with SLURMCluster() as cluster:
        cluster.adapt(minimum_jobs=0, maximum_jobs=most)
        print(cluster.scheduler_address, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
