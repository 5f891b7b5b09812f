"""Real names, or pseudonyms under one key: never two of these in one lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store
from rmsai_ray.tables.privacy_mark import check_mark, mark_lake, read_mark


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_an_empty_lake_takes_either(lake: Store) -> None:
    check_mark(lake, None)
    check_mark(lake, "a" * 16)
    assert read_mark(lake) is None


def test_a_marked_lake_takes_its_own_key_alone(lake: Store) -> None:
    mark_lake(lake, "a" * 16)
    mark_lake(lake, "a" * 16)
    assert read_mark(lake) == "a" * 16
    with pytest.raises(ConfigError, match="pseudonymise=False: the lake has pseudonyms under the key aaaa"):
        check_mark(lake, None)
    with pytest.raises(ConfigError, match="this one is bbbb"):
        mark_lake(lake, "b" * 16)


@pytest.mark.parametrize("key", ["archives/model=m/manifest.parquet", "ledger/model=m/1.json", "windows/a"])
def test_rows_with_real_names_stay_among_themselves(lake: Store, key: str) -> None:
    lake.put(key, b"1")
    mark_lake(lake, None)
    with pytest.raises(ConfigError, match="rows with real names"):
        mark_lake(lake, "a" * 16)
    assert read_mark(lake) is None
