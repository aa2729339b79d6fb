"""From files to batches: the data section and its types.

`section` (what the JSON may say), `survey` (which files, headers only), `prepared` (what is left on disk before
training), `samples` (one sample), `batches` (order and prefetch).
"""

from rml_core.data.section import Data
from rml_core.data.table import DATA_TYPES, LATER

__all__ = ["DATA_TYPES", "LATER", "Data"]
