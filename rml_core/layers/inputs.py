"""Where a network begins."""

from __future__ import annotations

from typing import Any

from rml_core.layers.section import LayerSection, Null, Off, SampleShape, Shape


class InputLayer(LayerSection):
    shape: SampleShape = None
    batch_size: int | None = None
    sparse: Off = False
    ragged: Off = False
    optional: Off = False
    type_spec: Null = None
    input_dtype: Any = None

    @property
    def declared_shape(self) -> Shape | None:
        return self.shape or super().declared_shape
