"""HDF5 archives: the format as data, reader, validator, simulator, importers."""
