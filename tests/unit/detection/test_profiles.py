"""Threshold profiles that somebody made: files, and the history of a named one in a lake."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rmsai_ray.detection.profiles import (
    NamedProfiles,
    find_profile,
    profile_from_json,
    profile_to_json,
    read_profile,
    versioned,
)
from rmsai_ray.detection.thresholds import SEED, ThresholdProfile, resolve_profile
from rmsai_ray.errors import ConfigError

MINE = versioned(
    ThresholdProfile(
        "mine", "", "mse", {"*": 1.0, "ECG1": 2.0}, {"AF": {"*": 3.0}}, status_by_condition=True
    ),
    "hand",
)


def scaled(factor: float) -> ThresholdProfile:
    return replace(MINE, base={lead: factor * number for lead, number in MINE.base.items()})


@pytest.fixture
def profiles(tmp_path: Path) -> NamedProfiles:
    return NamedProfiles(str(tmp_path))


def test_a_profile_comes_back_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(MINE)))
    assert read_profile(str(file)) == MINE
    assert MINE.version.startswith("hand-")


def test_a_version_names_the_numbers(tmp_path: Path) -> None:
    values = profile_to_json(MINE)
    changed = json.loads(json.dumps(values))
    changed["base"]["ECG1"] = 2.5
    with pytest.raises(ConfigError, match="made for other numbers"):
        profile_from_json(changed, "x")
    del changed["version"]
    made = profile_from_json(changed, "x")
    assert made.version.startswith("file-")
    assert made.version != profile_from_json({**values, "version": ""}, "x").version


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("metric"),
        lambda v: v.update(format_version=2),
        lambda v: v["base"].update(ECG1="much"),
        lambda v: v["base"].update(ECG1=float("nan")),
        lambda v: v["base"].update(ECG1=-1),
        lambda v: v.update(conditions=[1]),
    ],
)
def test_something_else_is_refused(change: Any) -> None:
    values = json.loads(json.dumps(profile_to_json(MINE)))
    values["version"] = ""
    change(values)
    with pytest.raises(ConfigError):
        profile_from_json(values, "x.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "b.json"):
        with pytest.raises(ConfigError, match="threshold_profile"):
            read_profile(str(tmp_path / name))


def test_every_state_is_kept_and_can_be_named(profiles: NamedProfiles) -> None:
    assert profiles.names() == []
    first = profiles.save("adaptive", scaled(1), "import")
    second = profiles.save("adaptive", scaled(2), "adapt")
    assert (first.name, first.version[:3], second.version[:3]) == ("adaptive", "r1-", "r2-")
    assert profiles.load("adaptive") == profiles.load("adaptive@2") == second
    assert profiles.load("adaptive@1") == first
    assert [(step.number, step.action) for step in profiles.history("adaptive")] == [
        (1, "import"),
        (2, "adapt"),
    ]
    assert profiles.names() == ["adaptive"]


def test_rolling_back_goes_one_step_further_each_time_and_keeps_the_versions(profiles: NamedProfiles) -> None:
    made = [profiles.save("adaptive", scaled(factor), "adapt") for factor in (1, 2, 3)]
    assert profiles.rollback("adaptive") == made[1] == profiles.load("adaptive")
    assert profiles.rollback("adaptive") == made[0]
    with pytest.raises(ConfigError, match="no other thresholds before"):
        profiles.rollback("adaptive")
    assert profiles.rollback("adaptive", 3) == made[2]
    assert [step.profile.version for step in profiles.history("adaptive")] == [
        made[number].version for number in (0, 1, 2, 1, 0, 2)
    ]
    assert profiles.save("adaptive", scaled(4), "adapt").version.startswith("r7-")


def test_savers_at_the_same_moment_are_all_kept(profiles: NamedProfiles) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda factor: profiles.save("adaptive", scaled(factor), "adapt"), range(1, 5)))
    kept = {step.profile.version for step in profiles.history("adaptive")}
    assert kept == {profile.version for profile in made}
    assert len(kept) == 4


@pytest.mark.parametrize("name", ["seed", "calibrated", "a/b", "", "x.json", "a@b"])
def test_names_that_cannot_be_one(profiles: NamedProfiles, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        profiles.save(name, MINE, "import")
    assert profiles.names() == []


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("nothing", "seed, upstream-2025, calibrated, adaptive, or name a .json file"),
        ("adaptive@2", "adaptive@1 to adaptive@1"),
        ("adaptive@0", "adaptive@1 to adaptive@1"),
        ("adaptive@x", "adaptive@1 to adaptive@1"),
        ("../x", "is no profile"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    profiles: NamedProfiles, reference: str, complaint: str
) -> None:
    profiles.save("adaptive", MINE, "import")
    with pytest.raises(ConfigError) as caught:
        profiles.load(reference)
    assert complaint in str(caught.value)


def test_a_backfill_finds_built_in_named_and_written_profiles(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    saved = NamedProfiles(lake).save("adaptive", scaled(2), "adapt")
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(MINE)))
    calibration = {"T_normal": {"ECG1": 0.5}}
    assert find_profile("seed", lake, None) == SEED
    assert find_profile("calibrated", lake, calibration) == resolve_profile("calibrated", calibration)
    assert find_profile("adaptive", lake, None) == find_profile("adaptive@1", lake, None) == saved
    assert find_profile(str(file), lake, None) == MINE
    for reference in ("adaptive", str(file)):
        with pytest.raises(ConfigError, match="thresholds for mse, and knn gives knn"):
            find_profile(reference, lake, None, detector="knn")
        with pytest.raises(ConfigError, match="thresholds of its own"):
            find_profile(reference, lake, None, false_alarm_rate=0.1)
