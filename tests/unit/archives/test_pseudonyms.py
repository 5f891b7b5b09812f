"""The door: what of an archive may pass, and that every text of the tables was thought of."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rmsai_ray.archives.labels import RHYTHMS, SCP_RHYTHMS
from rmsai_ray.archives.packs import archive_name, is_member, object_uri
from rmsai_ray.archives.problems import PROBLEMS, problem
from rmsai_ray.archives.pseudonyms import Door, pseudonymise
from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Archive, Event, Signal, Vital
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.errors import ArchiveError, ConfigError
from rmsai_ray.privacy import Pseudonymiser
from rmsai_ray.tables import schemas

KEY = Pseudonymiser(bytes(range(32)))
DOOR, OPEN = Door(KEY), Door(None)
SECRET = "Zqdoe"
TIME_S = 1_757_500_000.0

HOW_TEXTS_ARE_MADE = {
    "keyed": """archives.uri archives.archive_id archives.etag archives.patient_id archives.period
        archives.modified_time events.event_uid events.archive_id events.patient_id events.event_uuid
        rejects.uri rejects.archive_id windows.window_id windows.chunk_id windows.vector_id windows.archive_id
        windows.patient_id windows.event_uuid""",
    "of keyed things": """archives.unit_id events.unit_id rejects.unit_id windows.unit_id archives.run_id
        events.run_id rejects.run_id windows.run_id""",
    "shifted by patient": """events.event_time windows.event_time events.vitals.time
        events.vitals.history.time""",
    "numbers as names": "events.event_id windows.event_id windows.seed_chunk_id",
    "allowed words": """archives.error archives.variant events.condition windows.condition events.leads
        events.vitals.name events.vitals.units events.vitals.extras events.ecg_extras events.problems
        rejects.place rejects.reason rejects.detail windows.lead windows.unit""",
    "ours": """archives.model_id archives.status archives.committed_time events.model_id events.verdict
        events.verdict_rule rejects.model_id rejects.level windows.model_id windows.detector_set
        windows.scores.detector windows.detector windows.threshold_profile windows.threshold_version
        windows.anomaly_status windows.anomaly_type windows.rhythm_class windows.rate_class
        windows.quality_flags windows.code_version""",
}


def texts_and_times(name: str, kind: pa.DataType) -> list[str]:
    """The columns of texts and times inside a column, by path."""
    if pa.types.is_struct(kind):
        return [found for field in kind for found in texts_and_times(f"{name}.{field.name}", field.type)]
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return texts_and_times(name, kind.value_type)
    is_open = pa.types.is_string(kind) or pa.types.is_timestamp(kind) or pa.types.is_binary(kind)
    return [name] if is_open or pa.types.is_large_string(kind) else []


def test_every_text_and_time_of_the_tables_was_thought_of() -> None:
    tables = {
        "archives": schemas.ARCHIVES,
        "events": schemas.EVENTS,
        "rejects": schemas.REJECTS,
        "windows": schemas.windows(4),
    }
    there = [
        found
        for table, schema in tables.items()
        for field in schema
        for found in texts_and_times(f"{table}.{field.name}", field.type)
    ]
    known = [column for columns in HOW_TEXTS_ARE_MADE.values() for column in columns.split()]
    assert sorted(there) == sorted(known), "say how the new column is made beside pseudonyms, and see to it"


def test_every_field_of_an_archive_was_thought_of() -> None:
    seen = {
        Archive: "archive_id stem patient_id period variant metadata events problems detour",
        Event: "event_id uuid time_s condition heart_rate_bpm leads ppg resp vitals pacer_info pacer_offset "
        "ecg_extras problems",
        Vital: "value units time_s lower_threshold upper_threshold history extras",
        Signal: "samples fs unit",
    }
    for kind, names in seen.items():
        assert [field.name for field in fields(kind)] == names.split(), "see to it in archives/pseudonyms.py"


def archive(**changes: Any) -> Archive:
    event = Event(
        event_id="event_1001",
        uuid=SECRET,
        time_s=TIME_S,
        condition="Tachycardia",
        heart_rate_bpm=80.0,
        leads={"ECG1": Signal(samples=np.arange(5.0), fs=200.0)},
        vitals={"HR": Vital(value=80, units="bpm", time_s=TIME_S + 3, history=((TIME_S - 60, 70.0),))},
    )
    facts = {"archive_id": "ab", "stem": f"{SECRET}_2025-09", "patient_id": SECRET, "period": "2025-09"}
    made = {"variant": "v3", "metadata": {"note": SECRET}, "events": (replace(event, **changes),)}
    return Archive(**facts, **made)  # type: ignore[arg-type]


def through(**changes: Any) -> Event:
    return pseudonymise(archive(**changes), KEY).events[0]


def test_of_a_patient_nothing_but_distances_in_time_is_left() -> None:
    inside = pseudonymise(archive(), KEY)
    assert SECRET not in repr(inside)
    assert inside.stem == f"{inside.patient_id}_{inside.period}"
    event = inside.events[0]
    assert event.time_s is not None
    shift_s = event.time_s - TIME_S
    assert shift_s == KEY.shift_s(SECRET)
    assert event.vitals["HR"].time_s == TIME_S + 3 + shift_s
    assert event.vitals["HR"].history == ((TIME_S - 60 + shift_s, 70.0),)
    np.testing.assert_array_equal(event.leads["ECG1"].samples, np.arange(5.0))


def test_a_simulated_archive_keeps_all_but_its_names_and_days() -> None:
    name, raw = simulate_archive(3, 2, seed=0)
    read = read_archive(raw, name, options=ReadOptions(waveforms=True))
    inside = pseudonymise(read, KEY)
    for before, after in zip(read.events, inside.events, strict=True):
        assert (after.event_id, after.condition, after.heart_rate_bpm) == (
            before.event_id, before.condition, before.heart_rate_bpm,
        )  # fmt: skip
        assert after.ecg_extras == before.ecg_extras
        assert (after.pacer_info, after.pacer_offset) == (before.pacer_info, before.pacer_offset)
        assert after.vitals.keys() == before.vitals.keys()
        for vital, other in zip(after.vitals.values(), before.vitals.values(), strict=True):
            assert (vital.value, vital.units, vital.extras) == (other.value, other.units, other.extras)


@pytest.mark.parametrize(
    "condition",
    [*RHYTHMS.values(), *SCP_RHYTHMS.values(), "*** ASYSTOLE", "Unknown", "non-diagnostic T abnormalities"],
)
def test_conditions_in_words_of_medicine_pass(condition: str) -> None:
    assert through(condition=condition).condition == condition or "*" in condition


@pytest.mark.parametrize(
    "condition",
    [SECRET, f"Tachycardia of {SECRET}", "HR 142", "Tachycardia 12.09.2025", "", "ß", "Mr. White"],
)
def test_other_conditions_are_unknown(condition: str) -> None:
    assert through(condition=condition).condition == "Unknown"


@pytest.mark.parametrize(
    ("event_id", "passes"),
    [("event_1001", True), ("event_001", True), ("event_999999", True), ("event_1757500000", False)],
)
def test_event_ids_pass_unless_they_are_long(event_id: str, passes: bool) -> None:
    made = through(event_id=event_id).event_id
    assert (made == event_id) == passes
    assert made.startswith("event_")


def test_extras_pass_by_name_and_kind() -> None:
    extras = {
        "fiducials": {"R": [5, None, SECRET, 9], SECRET: [1]},
        "annotations": {
            "samples": [1, 2, 3],
            "symbols": ["N", SECRET, "V"],
            "rhythms": [[0, "AFIB"], [4, SECRET], SECRET],
        },
        "source": {"record": SECRET, "scp_codes": {"NORM": 100.0, SECRET: 1}, "age": 61},
        "note": SECRET,
    }  # fmt: skip
    assert through(ecg_extras=extras).ecg_extras == {
        "fiducials": {"R": [5, None, None, 9]},
        "annotations": {"samples": [1, 3], "symbols": ["N", "V"], "rhythms": [[0, "AFIB"], [4, ""]]},
        "source": {"scp_codes": {"NORM": 100.0}},
    }
    for odd in ([], SECRET, {"samples": [1], "symbols": []}, {"samples": SECRET, "symbols": [SECRET]}, 5):
        assert SECRET not in json.dumps(through(ecg_extras=dict.fromkeys(extras, odd)).ecg_extras)


def test_vital_signs_pass_by_name_unit_and_size() -> None:
    odd = Vital(
        value=4_711_001.0,
        units=SECRET,
        lower_threshold=TIME_S,
        history=((TIME_S, TIME_S),),
        extras={
            "step_count": 12,
            "time_since_posture_change": SECRET,
            "note": SECRET,
            "history_source": SECRET,
        },
    )
    inside = through(vitals={"HR": odd, SECRET: odd}).vitals
    assert inside == {"HR": Vital(value=None, units="", extras={"step_count": 12})}


def test_problems_say_what_they_mean_and_where_the_format_has_a_name() -> None:
    for code, kind in PROBLEMS.items():
        where = f"event_1001/ecg/{SECRET}"
        [found] = through(problems=(problem(code, where, SECRET),)).problems
        assert (found.code, found.where, found.detail) == (code, "event_1001/ecg/-", kind.meaning)
        assert str(DOOR.error(ArchiveError(code, SECRET))) == f"{code}: {kind.meaning}"
    assert SECRET not in str(DOOR.error(ArchiveError(SECRET, SECRET)))


def test_names_of_archives_and_members_of_packs() -> None:
    uris = [
        f"s3://icu/{SECRET}/a.h5",
        f"s3://icu/{SECRET}.pack.h5",
        f"s3://icu/{SECRET}.pack.h5#x/{SECRET}.h5",
    ]
    one, pack, member = map(DOOR.uri, uris)
    assert SECRET not in one + pack + member
    assert is_member(member)
    assert object_uri(member) == pack
    assert archive_name(member).endswith(".h5")
    assert [OPEN.uri(uri) for uri in uris] == uris
    with pytest.raises(ConfigError, match="stands for an archive"):
        open_source(one)


def test_a_guess_at_the_month_is_that_of_the_archive() -> None:
    uri = f"s3://icu/{SECRET}_2025-09.h5"
    assert DOOR.period_in_name("2025-09", uri) == pseudonymise(archive(), KEY).period
    assert DOOR.period_in_name("", "s3://icu/a.h5") == "unknown"
    assert OPEN.period_in_name("2025-09", uri) == "2025-09"
