from __future__ import annotations

import hashlib

import pytest

from rmsai_ray import ids

ARCHIVE = "0123456789abcdef0123456789abcdef"


def test_an_archive_is_named_by_its_bytes() -> None:
    assert ids.archive_id(b"abc") == hashlib.sha256(b"abc").hexdigest()[:32]
    assert ids.archive_id(b"abc") != ids.archive_id(b"abd")


def test_keys_are_the_documented_ones() -> None:
    window = ids.window_id("PT1234", "2025-09", "event_1001", "aVL", 2260, ARCHIVE)
    assert window == "PT1234_2025-09/event_1001/aVL/2260@0123456789ab"
    assert ids.event_uid(ARCHIVE, "event_1001") == f"{ARCHIVE}/event_1001"
    assert ids.chunk_id("PT1234_2025-09", "event_1001", 5, 2260) == "chunk_PT1234_2025-09_10015_2260"
    assert ids.seed_chunk_id("event_1001", 5) == "chunk_10015"


@pytest.mark.parametrize(
    ("event_id", "digits"), [("event_1001", "1001"), ("event_001", "001"), ("odd", "odd"), ("odd_", "odd_")]
)
def test_event_digits(event_id: str, digits: str) -> None:
    assert ids.event_digits(event_id) == digits


@pytest.mark.parametrize("field", range(6))
def test_every_part_of_a_window_id_counts(field: int) -> None:
    one = ["PT1", "2025-09", "event_1", "ECG1", 0, ARCHIVE]
    other = ["PT2", "2025-10", "event_2", "ECG2", 70, ARCHIVE[::-1]]
    mixed = [*one[:field], other[field], *one[field + 1 :]]
    assert ids.window_id(*one) != ids.window_id(*mixed)  # type: ignore[arg-type]


def test_boundaries_and_order_count_in_a_digest() -> None:
    digests = {
        ids.digest(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""])
    }
    assert len(digests) == 5
    assert all(len(found) == 16 for found in digests)


def test_a_run_is_named_by_what_can_change_a_result() -> None:
    one = ids.run_id("backfill", {"model_id": "m", "leads": ["ECG1"]})
    assert one == ids.run_id("backfill", {"leads": ["ECG1"], "model_id": "m"})
    assert one.startswith("backfill-")
    assert one != ids.run_id("backfill", {"leads": ["ECG2"], "model_id": "m"})
    assert one != ids.run_id("train", {"leads": ["ECG1"], "model_id": "m"})
