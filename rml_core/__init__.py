"""What a run file means and how it is carried out: sections, checks and the engine; no Prefect, no Dask."""

import os

# A thread of torch's that waits for another one spins for milliseconds, which on a busy machine keeps the other one
# from its core: steps took up to ten times as long. So it soon sleeps instead; torch reads this when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
