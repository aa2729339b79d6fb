"""The flow of the deployment `rml/evaluate`: a checkpoint on new data."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows import attempt, stores
from flows.evaluation import Given, evaluation, figures_of
from flows.page.shown import page
from flows.parameters import refuse_base
from flows.phases import execute
from flows.rml import AsTasks, RunFile, log_to_server
from rml_core.config.limits import memory_limit
from rml_core.config.problem import collect
from tasks.cluster import check_address
from tasks.ranks import threads


@flow(name="rml", persist_result=False)
def evaluate(
    checkpoint: str | None = None,
    test_input_path: str | None = None,
    test_target_path: str | None = None,
    neural_network: RunFile | None = None,
    outfile: str | None = None,
    test_output_path: str | None = None,
    hdf5_outfile: str | None = None,
    test_batch_size: int | None = None,
    app: str | None = None,
    base: str | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint on other samples than it was tested with; gives its figures.

    Args:
        checkpoint: A file that checkpoints.save left, or a champion.
        test_input_path: The samples, as in a run file.
        test_target_path: Their targets, where they are files of their own; without targets there is inference alone.
        neural_network: A run file, where the checkpoint's own will not do; what trains in it is left out.
        outfile: Base name of the log files.
        test_output_path: The folder for predictions, a dataset a sample.
        hdf5_outfile: The file that predictions of slices are assembled into.
        test_batch_size: Samples a batch.
        app: What the run is for: dnn.
        base: The folder that relative paths are against; left out, paths have to be absolute.
        scheduler: The address of a Dask cluster; left out, threads of the flow's process.
    """
    log_to_server()
    with page("prefect deployment run rml/evaluate --params FILE") as shown, attempt.made() as now:
        stores.use()
        collect(threads, memory_limit, lambda: check_address(scheduler), lambda: refuse_base(base))
        given = Given(
            checkpoint, test_input_path, test_target_path, test_batch_size, outfile, test_output_path, hdf5_outfile
        )
        checked = evaluation(given, neural_network, base, app)
        outcome = execute(checked, AsTasks(), scheduler=scheduler, attempt=now)
        shown.done(outcome)
    return figures_of(outcome)
