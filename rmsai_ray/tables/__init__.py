"""The lake: schemas, Parquet parts, ledger and manifest, LanceDB, queries."""
