"""Watching a lake: drift against a reference, and alerts that are told once."""
