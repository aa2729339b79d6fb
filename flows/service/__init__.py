"""The service of one machine: a Prefect server and its workers, kept alive by a supervisor, in one folder."""
