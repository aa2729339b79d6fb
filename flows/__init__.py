"""The run file as a flow: its plan, its execution with or without Prefect, and the commands."""

import os

# Before Prefect is imported, which reads it once: on a machine that has much to do the temporary server takes longer
# than the 20 seconds that Prefect waits for it.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
