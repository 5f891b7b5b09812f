"""rmsai_ray: archives of bedside-monitor events become embeddings, anomaly scores and tables, on Ray."""

__version__ = "0.1.0"

REVISION = "$Format:%H$"
"""The git revision that ``git archive`` packed this copy from; it writes it in here."""
