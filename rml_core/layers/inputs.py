"""Where a network begins."""

from __future__ import annotations

from rml_core.layers.section import LayerSection, Null, Off, SampleShape, Shape


class InputLayer(LayerSection):
    """Where the network begins; may say the input's shape."""

    shape: SampleShape = None
    """The input's shape without the batch, [sizes ..., channels]; null for what the data decides."""
    batch_size: int | None = None
    sparse: Off = False
    ragged: Off = False
    optional: Off = False
    type_spec: Null = None

    @property
    def declared_shape(self) -> Shape | None:
        return self.shape or super().declared_shape
