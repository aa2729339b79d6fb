"""Apply the leading deterministic transforms once, to samples that are kept."""

from __future__ import annotations

from rml_core.data.prepared import Prepared, prepare
from tasks.cluster import mapper
from tasks.load import Source, prepared_samples


def transform(source: Source, loaded: Prepared) -> Prepared:
    """Decode what `loaded` lists and keep it as the leading transforms leave it: no larger copy is ever stored.

    Raises:
        RunFailed: files that do not decode, a full disk.
    """
    with mapper(source.scheduler) as on_cluster:
        return prepare(source.survey, source.data, prepared_samples(), on_cluster, source.held)
