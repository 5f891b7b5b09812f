"""What the two profiles say about good, odd, incomplete and useless archives."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.validate import Profile, validate
from tests.upstream_files import Variant, archive_bytes, edited, replace

NAME = "PT1234_2025-09.h5"


@pytest.mark.parametrize(
    ("variant", "profile", "status"),
    [
        ("v1", "lenient", "ok"),
        ("v2", "lenient", "ok"),
        ("v3", "lenient", "ok"),
        ("vdx", "lenient", "degraded"),
        ("v1", "strict", "fatal"),  # no RESP
        ("v2", "strict", "ok"),
        ("v3", "strict", "ok"),
        ("vdx", "strict", "degraded"),
    ],
)
def test_the_generations(variant: Variant, profile: Profile, status: str) -> None:
    assert validate(archive_bytes(variant, num_events=1), NAME, profile).status == status


def test_a_converted_archive_is_degraded_for_two_reasons() -> None:
    verdict = validate(archive_bytes("vdx", num_events=1), NAME)
    assert [found.code for found in verdict.problems] == ["unit_raw", "synthetic_history"]


def test_the_strict_profile_names_what_the_first_generation_lacks() -> None:
    verdict = validate(archive_bytes("v1", num_events=1), NAME, "strict")
    assert [(found.code, found.severity, found.where) for found in verdict.problems] == [
        ("missing_item", "fatal", "metadata/sampling_rate_resp"),
        ("missing_item", "fatal", "event_1001/resp/RESP"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "metadata/device_info",
        "metadata",
        "event_1002/ecg/vVX",
        "event_1002/ppg",
        "event_1002/resp/RESP",
        "event_1002/vitals/Pulse",
        "event_1002/vitals/Temp/units",
        "event_1002/timestamp",
        "event_1002/uuid",
    ],
)
def test_whatever_the_original_validator_requires_is_fatal_in_strict_only(path: str) -> None:
    raw = edited(archive_bytes("v3", num_events=2), lambda file: file.pop(path))

    strict = validate(raw, NAME, "strict")
    assert strict.status == "fatal"
    assert any(found.where.startswith(path) for found in strict.problems if found.code == "missing_item")
    assert validate(raw, NAME, "lenient").status != "fatal"


@pytest.mark.parametrize(
    "path", ["metadata/max_vital_history", "event_1001/vitals/HR/extras", "event_1001/ecg/extras"]
)
def test_what_it_does_not_require_may_be_absent(path: str) -> None:
    raw = edited(archive_bytes("v3", num_events=1), lambda file: file.pop(path))
    assert validate(raw, NAME, "strict").status == "ok"


def test_a_group_in_the_place_of_a_dataset_is_missing() -> None:
    def change(file: h5py.File) -> None:
        del file["event_1001/vitals/HR/value"]
        file.create_group("event_1001/vitals/HR/value")

    verdict = validate(edited(archive_bytes("v3", num_events=1), change), NAME, "strict")
    assert verdict.problems[0].where == "event_1001/vitals/HR/value"


def test_a_useless_archive_is_fatal_with_one_reason() -> None:
    verdict = validate(b"\x89HDF\r\n\x1a\n", NAME)
    assert (verdict.status, [found.severity for found in verdict.problems]) == ("fatal", ["fatal"])


def test_one_unusable_event_degrades_and_none_usable_is_fatal() -> None:
    raw = archive_bytes("v3", num_events=2)
    one = edited(raw, lambda file: file["event_1001"].pop("ecg"))
    none = edited(one, lambda file: file["event_1002"].pop("ecg"))

    assert validate(one, NAME).status == "degraded"
    verdict = validate(none, NAME)
    assert (verdict.status, [found.code for found in verdict.problems]) == ("fatal", ["no_leads", "no_leads"])


def test_problems_of_events_are_part_of_the_verdict() -> None:
    raw = edited(
        archive_bytes("v3", num_events=2),
        lambda file: replace(file["event_1002/ecg"], "ECG2", np.zeros(100)),
    )
    (found,) = validate(raw, NAME).problems
    assert (found.code, found.where) == ("short_signal", "event_1002/ecg/ECG2")
