"""The slicers of the data section: how one big array is cut into samples."""
