"""What a run file means and how it is carried out: sections, checks and the engine; no Prefect, no Dask."""

import os

# A thread of torch's that waits for another one spins, which on a busy machine keeps the other one from its core:
# ten times slower steps were measured. It sleeps instead; torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
