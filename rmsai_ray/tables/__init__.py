"""The lake: schemas, Parquet parts, ledger and manifest, LanceDB, queries."""

import os

# Lance reads it when it is loaded. Its warnings (an index with an empty partition, …) ask nothing of a user.
os.environ.setdefault("LANCE_LOG", "error")
