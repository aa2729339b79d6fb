"""The page of a run in Prefect's UI: what its artifacts show, kept up to date while it works."""
