"""What a run file means and how it is carried out: sections, checks and the engine; no Prefect, no Dask."""
