"""The run file as a flow: its plan, its execution with or without Prefect, and the commands."""
