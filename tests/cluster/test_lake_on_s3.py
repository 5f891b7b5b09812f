"""The same answers from ``s3://`` as from a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store
from rmsai_ray.tables.filters import WindowFilter
from rmsai_ray.tables.lake import list_models, open_lake
from rmsai_ray.tables.queries import anomalies, stats
from rmsai_ray.tables.search import similar
from rmsai_ray.tables.usage import storage
from tests.lake_builder import MODEL_A, MODEL_B, PLANTED, build_lake


def test_lake_on_s3_answers_as_the_same_lake_in_a_folder(tmp_path: Path, s3_uri: str) -> None:
    build_lake(tmp_path)
    store = Store(s3_uri)
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file():
            store.put(str(file.relative_to(tmp_path)), file.read_bytes())

    assert list_models(s3_uri) == [MODEL_A, MODEL_B]
    here, there = open_lake(str(tmp_path), MODEL_A), open_lake(s3_uri, MODEL_A)
    assert stats(there) == stats(here)
    pd.testing.assert_frame_equal(anomalies(there), anomalies(here))
    pd.testing.assert_frame_equal(storage(there), storage(here))
    where = WindowFilter(condition="normal")
    pd.testing.assert_frame_equal(
        similar(there, PLANTED[0], where=where), similar(here, PLANTED[0], where=where)
    )


def test_no_lake_on_s3_is_bad_input(s3_uri: str) -> None:
    with pytest.raises(ConfigError, match="backfill"):
        open_lake(s3_uri)
