"""What a later run does with archives and options that changed: only what it must, in both stores."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import pyarrow as pa
import pytest

from benchmarks.lake_check import KEYS, Tables, compare_rows, model_ids, read_tables
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from tests.cluster.corpus import SEED, digests, run, simulate, untrained

NUM_ARCHIVES, NUM_EVENTS = 3, 2
LATE = "PT9999_2026-11.h5"
"""Half of it is there when the first run looks."""


@dataclass(frozen=True)
class State:
    """The lake after one run."""

    models: dict[str, Tables]
    digests: dict[str, str]

    @property
    def first(self) -> Tables:
        """The rows of the model that was there first."""
        return next(iter(self.models.values()))


@pytest.fixture(scope="module")
def history(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    """One lake's states, by what was done before the run that led to each."""
    folder = tmp_path_factory.mktemp("changes")
    archives = simulate(str(folder / "archives"), NUM_ARCHIVES, NUM_EVENTS)
    config = BackfillConfig(archives=archives.uri, lake=str(folder / "lake"), detectors="none")
    states: dict[str, State] = {}

    def after(name: str, **options: object) -> None:
        run(config, **options)
        names = list(next(reversed(states.values())).models) if states else []
        names += [model for model in model_ids(config.lake) if model not in names]
        states[name] = State({m: read_tables(config.lake, m) for m in names}, digests(config.lake))

    _, late = simulate_archive(9, NUM_EVENTS, seed=SEED)
    archives.put(LATE, late[: len(late) // 2])
    after("first")
    touched, copied, changed = sorted(info.key for info in archives.list())[:NUM_ARCHIVES]
    os.utime(Path(archives.uri, touched), (0, 0))
    archives.put(f"elsewhere/{copied}", archives.get(copied))
    after("touched and copied")
    archives.put(changed, change_one_event(archives.get(changed)))
    archives.put(LATE, late)
    after("changed and completed")
    after("other model", model=untrained(folder / "other", seed=1), threshold_profile="seed")
    after("other thresholds", threshold_profile="seed")
    after("two leads", threshold_profile="seed", leads=("vVX", "ECG2"))
    return states


def change_one_event(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        file["event_1001/ecg/ECG2"][100:200] = 0.5
    return buffer.getvalue()


def test_touched_archive_is_read_and_left_as_it_is(history: dict[str, State]) -> None:
    before, after = history["first"], history["touched and copied"]
    rows = {
        key: value for key, value in after.digests.items() if not key.startswith(("archives/", "ledger/"))
    }
    assert rows.items() <= before.digests.items()
    [old, *_], [new, *_] = (by_uri(state) for state in (before, after))
    ignored = {"etag", "modified_time"}
    assert {k: v for k, v in old.items() if k not in ignored} == {
        k: v for k, v in new.items() if k not in ignored
    }
    assert old["modified_time"] != new["modified_time"]


def test_copy_under_another_name_is_skipped(history: dict[str, State]) -> None:
    [_, original, *_] = by_uri(history["first"])
    [copy] = [row for row in by_uri(history["touched and copied"]) if "/elsewhere/" in row["uri"]]
    assert (copy["status"], copy["archive_id"]) == ("skipped", original["archive_id"])
    assert (copy["num_windows"], copy["num_events"]) == (0, 0)


def test_of_a_changed_archive_alone_the_rows_are_replaced(history: dict[str, State]) -> None:
    before, after = history["touched and copied"].first, history["changed and completed"].first
    [_, _, old, *_] = by_uri(history["touched and copied"])
    [_, _, new, *_] = by_uri(history["changed and completed"])
    assert old["uri"] == new["uri"]
    assert old["archive_id"] != new["archive_id"]
    for name in ("windows", "vectors"):
        archives = set(getattr(after, name)["archive_id"].to_pylist())
        assert old["archive_id"] not in archives
        assert new["archive_id"] in archives
        kept = where(getattr(before, name), "archive_id", old["archive_id"], equal=False)
        kept_after = where(getattr(after, name), "archive_id", *archive_ids(kept))
        assert not compare_rows(kept_after, kept, KEYS["windows"])
    replaced = where(after.windows, "archive_id", new["archive_id"])
    assert replaced.num_rows == NUM_EVENTS * 7
    other_errors = compare_rows(
        short_ids(replaced), short_ids(where(before.windows, "archive_id", old["archive_id"])),
        ["window_id"], {"archive_id", "unit_id"},
    )  # fmt: skip
    assert (other_errors.lost, other_errors.added, other_errors.differing) == (0, 0, 1)


def test_half_written_archive_waits_in_quarantine_until_it_is_complete(history: dict[str, State]) -> None:
    first, later = history["first"], history["changed and completed"]
    [early] = [row for row in by_uri(first) if row["uri"].endswith(LATE)]
    [complete] = [row for row in by_uri(later) if row["uri"].endswith(LATE)]
    assert (early["status"], early["error"].split(":")[0]) == ("quarantined", "truncated")
    assert (complete["status"], complete["error"]) == ("committed", None)
    assert where(later.first.vectors, "archive_id", complete["archive_id"]).num_rows == NUM_EVENTS * 7
    assert first.first.rejects.num_rows == 1
    assert later.first.rejects.num_rows == 0


def test_another_model_writes_beside(history: dict[str, State]) -> None:
    before, after = history["changed and completed"], history["other model"]
    model, other = after.models
    assert before.digests.items() <= after.digests.items()
    assert {row["model_id"] for row in after.models[other].windows.to_pylist()} == {other}
    for name in ("windows", "vectors"):
        one, two = (getattr(after.models[m], name) for m in (model, other))
        assert one["window_id"].to_pylist() != []
        assert sorted(one["window_id"].to_pylist()) == sorted(two["window_id"].to_pylist())


def test_other_thresholds_replace_the_rows_of_their_model(history: dict[str, State]) -> None:
    before, after = history["other model"], history["other thresholds"]
    model, other = after.models
    decided = {"threshold", "threshold_condition", "threshold_profile", "threshold_version", "is_anomaly",
               "is_anomaly_condition", "anomaly_status", "anomaly_type", "rhythm_class"}  # fmt: skip
    ignored = decided | {"run_id", "unit_id"}
    for name in ("windows", "vectors"):
        rows = getattr(after.models[model], name)
        assert set(rows["threshold_profile"].to_pylist()) == {"seed"}
        assert not compare_rows(rows, getattr(before.models[model], name), KEYS["windows"], ignored)
        theirs = getattr(after.models[other], name)
        assert not compare_rows(theirs, getattr(before.models[other], name), KEYS["windows"])


def test_chosen_leads_keep_their_names_and_values(history: dict[str, State]) -> None:
    full, subset = history["other thresholds"].first, history["two leads"].first
    assert set(subset.windows["lead"].to_pylist()) == {"ECG2", "vVX"}
    chosen = where(full.windows, "lead", "ECG2", "vVX")
    assert chosen.num_rows == 2 * (NUM_ARCHIVES + 1) * NUM_EVENTS
    assert not compare_rows(subset.windows, chosen, KEYS["windows"], {"run_id", "unit_id"})
    assert {row["lead"]: row["lead_number"] for row in subset.windows.to_pylist()} == {"ECG2": 2, "vVX": 7}


def test_both_stores_agree_after_every_run(history: dict[str, State]) -> None:
    for name, state in history.items():
        for tables in state.models.values():
            assert not compare_rows(tables.vectors, tables.windows, KEYS["windows"]), name
            assert not tables.strays, name
            ids = tables.windows["window_id"].to_pylist()
            assert len(ids) == len(set(ids)) > 0, name
        assert not [key for key in state.digests if key.startswith("ledger/")], name


def by_uri(state: State) -> list[dict[str, object]]:
    """The first model's manifest, the three archives first."""
    rows: list[dict[str, object]] = state.first.archives.to_pylist()
    return sorted(rows, key=lambda row: ("/elsewhere/" in str(row["uri"]), row["uri"]))


def where(rows: pa.Table, column: str, *values: object, equal: bool = True) -> pa.Table:
    keep = [(value in values) == equal for value in rows[column].to_pylist()]
    return rows.filter(pa.array(keep, pa.bool_()))


def archive_ids(rows: pa.Table) -> set[str]:
    return set(rows["archive_id"].to_pylist())


def short_ids(rows: pa.Table) -> pa.Table:
    """With window ids that do not name the archive."""
    place = rows.schema.get_field_index("window_id")
    return rows.set_column(
        place, "window_id", pa.array([name.split("@")[0] for name in rows["window_id"].to_pylist()])
    )
