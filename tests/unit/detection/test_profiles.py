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
    list_scorers,
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


SCORER = "tiny-8x4-aaaaaaaaaaaa"


def scaled(factor: float) -> ThresholdProfile:
    base = {lead: factor * number for lead, number in MINE.base.items()}
    return versioned(replace(MINE, name="adaptive", base=base), f"x{factor}")


@pytest.fixture
def profiles(tmp_path: Path) -> NamedProfiles:
    return NamedProfiles(str(tmp_path), SCORER)


def test_a_profile_comes_back_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(MINE)))
    assert read_profile(str(file), SCORER) == MINE
    assert MINE.version.startswith("hand-")


def test_a_file_may_say_whose_scores_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(MINE, made_for=SCORER)))
    assert read_profile(str(file), SCORER) == MINE
    with pytest.raises(ConfigError, match=f"made for scores of {SCORER}"):
        read_profile(str(file), "another")


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
            read_profile(str(tmp_path / name), SCORER)


def test_every_state_is_kept_and_can_be_named(profiles: NamedProfiles) -> None:
    assert profiles.names() == []
    first, second = scaled(1), scaled(2)
    profiles.save(first, "import")
    profiles.save(second, "adapt")
    assert profiles.load("adaptive") == profiles.load("adaptive@2") == second
    assert profiles.load("adaptive@1") == first
    assert [(step.number, step.action) for step in profiles.history("adaptive")] == [
        (1, "import"),
        (2, "adapt"),
    ]
    assert profiles.names() == ["adaptive"]


def test_profiles_of_another_scorer_are_not_seen(profiles: NamedProfiles, tmp_path: Path) -> None:
    other = NamedProfiles(str(tmp_path), f"{SCORER}+12345678")
    profiles.save(scaled(1), "start")
    other.save(scaled(2), "start")
    assert profiles.load("adaptive") == scaled(1)
    assert len(profiles.history("adaptive")) == 1
    assert list_scorers(str(tmp_path)) == [SCORER, f"{SCORER}+12345678"]


def test_what_was_made_from_an_older_state_is_refused(profiles: NamedProfiles) -> None:
    profiles.save(scaled(1), "start")
    profiles.save(scaled(2), "adapt", instead_of=scaled(1).version)
    with pytest.raises(ConfigError, match=r"changed to version x2-.* meanwhile"):
        profiles.save(scaled(3), "adapt", instead_of=scaled(1).version)
    assert profiles.load("adaptive") == scaled(2)


def test_rolling_back_goes_one_step_further_each_time_and_keeps_the_versions(profiles: NamedProfiles) -> None:
    made = [scaled(factor) for factor in (1, 2, 3)]
    for profile in made:
        profiles.save(profile, "adapt")
    assert profiles.rollback("adaptive") == made[1] == profiles.load("adaptive")
    assert profiles.rollback("adaptive") == made[0]
    with pytest.raises(ConfigError, match="no other thresholds before"):
        profiles.rollback("adaptive")
    assert profiles.rollback("adaptive", 3) == made[2]
    assert [step.profile.version for step in profiles.history("adaptive")] == [
        made[number].version for number in (0, 1, 2, 1, 0, 2)
    ]


def test_savers_at_the_same_moment_are_all_kept(profiles: NamedProfiles) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda factor: profiles.save(scaled(factor), "adapt"), range(1, 5)))
    kept = {step.profile.version for step in profiles.history("adaptive")}
    assert kept == {scaled(factor).version for factor in range(1, 5)}


@pytest.mark.parametrize("name", ["seed", "calibrated", "a/b", "", "x.json", "a@b"])
def test_names_that_cannot_be_one(profiles: NamedProfiles, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        profiles.save(replace(MINE, name=name), "import")
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
    profiles.save(scaled(1), "import")
    with pytest.raises(ConfigError) as caught:
        profiles.load(reference)
    assert complaint in str(caught.value)


def test_a_backfill_finds_built_in_named_and_written_profiles(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    saved = scaled(2)
    NamedProfiles(lake, SCORER).save(saved, "adapt")
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(MINE)))
    calibration = {"T_normal": {"ECG1": 0.5}}
    assert find_profile("seed", lake, None, scorer=SCORER) == SEED
    found = find_profile("calibrated", lake, calibration, scorer=SCORER)
    assert found == resolve_profile("calibrated", calibration)
    for reference, expected in (("adaptive", saved), ("adaptive@1", saved), (str(file), MINE)):
        assert find_profile(reference, lake, None, scorer=SCORER) == expected
    for reference in ("adaptive", str(file)):
        with pytest.raises(ConfigError, match="thresholds for mse, and knn gives knn"):
            find_profile(reference, lake, None, scorer=SCORER, detector="knn")
        with pytest.raises(ConfigError, match="thresholds of its own"):
            find_profile(reference, lake, None, scorer=SCORER, false_alarm_rate=0.1)
