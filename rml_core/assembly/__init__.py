"""From predictions of slices, one after the other, to one HDF5 file with a dataset a slice set."""
