"""Pure numpy and scipy: leads, windows, normalisation, quality. Nothing here knows of files or Ray."""
