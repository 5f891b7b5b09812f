"""Fills folders and buckets with archives: simulated ones, and imported recordings."""
