"""Stand-ins: the same for the same, unlike under another key, and never without a good key."""

from __future__ import annotations

import base64
import pickle
import re
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsai_ray.errors import ConfigError, RejectLimitError
from rmsai_ray.privacy import (
    ENVIRONMENT_VARIABLE,
    JOB_CONFIG_VARIABLE,
    LEAST_SHIFT_DAYS,
    SHIFT_RANGE_DAYS,
    Pseudonymiser,
    QuietError,
    describe_error,
    parse_key,
    quiet_errors,
)

ONE, OTHER = Pseudonymiser(bytes(range(32))), Pseudonymiser(bytes(range(1, 33)))
NAMES = st.text(min_size=1, max_size=40)
MAKERS = ("patient", "content", "etag", "file", "uuid")


@given(NAMES, NAMES)
def test_equal_names_alone_have_equal_stand_ins(name: str, other: str) -> None:
    for maker in MAKERS:
        stand_in = getattr(ONE, maker)(name)
        assert stand_in == getattr(Pseudonymiser(bytes(range(32))), maker)(name)
        assert (stand_in == getattr(ONE, maker)(other)) == (name == other)
        assert re.fullmatch("[PU]?[0-9a-f]{24,32}", stand_in)


@given(NAMES)
def test_two_keys_and_two_kinds_have_nothing_in_common(name: str) -> None:
    made = [getattr(one, maker)(name).lstrip("PU")[:24] for one in (ONE, OTHER) for maker in MAKERS]
    assert len(set(made)) == len(made)
    assert ONE.fingerprint != OTHER.fingerprint


def test_shifts_of_patients_are_whole_days_all_over_a_century() -> None:
    days = {name: ONE.shift_days(name) for name in map(str, range(2000))}
    assert len(set(days.values())) > 1900
    assert min(days.values()) >= LEAST_SHIFT_DAYS
    assert max(days.values()) < LEAST_SHIFT_DAYS + SHIFT_RANGE_DAYS
    tenths = {(shift - LEAST_SHIFT_DAYS) * 10 // SHIFT_RANGE_DAYS for shift in days.values()}
    assert tenths == set(range(10))
    assert sum(days[name] == OTHER.shift_days(name) for name in days) <= 2
    assert all(ONE.shift_s(name) % 86_400 == 0 for name in days)


@given(st.dates(datetime(1970, 1, 1).date(), datetime(2199, 12, 31).date()), NAMES)
def test_a_month_shifts_with_its_middle(day: object, patient: str) -> None:
    month = f"{day:%Y-%m}"
    moved = ONE.period(patient, month)
    middle = datetime.fromisoformat(f"{month}-15").replace(tzinfo=UTC)
    assert moved == f"{middle + timedelta(days=ONE.shift_days(patient)):%Y-%m}"


@pytest.mark.parametrize("text", ["unknown", "", "2025-13", "0000-05", "9999-12", "25-09"])
def test_what_is_no_month_is_unknown(text: str) -> None:
    assert ONE.period("somebody", text) == "unknown"


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)), st.integers(1, 9999))
def test_of_writes_their_order_is_left(first: datetime, later_s: int) -> None:
    moved = ONE.modified("s3://a/b.h5", first)
    assert ONE.modified("s3://a/b.h5", first + timedelta(seconds=later_s)) > moved
    assert moved - first != ONE.modified("s3://a/c.h5", first) - first
    assert (moved - first).total_seconds() % 86_400 != 0, "the time of day would tell which object it was"


def test_numbers_have_their_digits() -> None:
    assert all(re.fullmatch("[1-9][0-9]{11}", ONE.number(f"event_{n}", 12)) for n in range(100))


def test_keys_as_hex_digits_and_base64() -> None:
    key = secrets.token_bytes(40)
    plain, safe = base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("=")
    assert parse_key(key.hex()) == parse_key(plain) == parse_key(f" {safe}\n") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hunter2",
        "zz" * 40,
        bytes(range(31)).hex(),
        "00" * 32,
        "abcd" * 16,
        base64.b64encode(b"1").decode(),
    ],
)
def test_bad_keys_are_refused_unquoted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
    with pytest.raises(ConfigError, match=rf"^{ENVIRONMENT_VARIABLE}=.*withheld") as refusal:
        Pseudonymiser.from_environment()
    assert not text.strip() or text not in str(refusal.value)


def test_a_worker_has_the_driver_s_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, bytes(range(32)).hex())
    assert Pseudonymiser.from_environment(ONE.fingerprint).patient("a") == ONE.patient("a")
    with pytest.raises(ConfigError, match="Give every node the same key"):
        Pseudonymiser.from_environment(OTHER.fingerprint)


def test_a_key_that_the_dashboard_shows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, bytes(range(32)).hex())
    submitted = f'{{"runtime_env": {{"env_vars": {{"{ENVIRONMENT_VARIABLE}": "00"}}}}}}'
    monkeypatch.setenv(JOB_CONFIG_VARIABLE, submitted)
    with pytest.raises(ConfigError, match="dashboard"):
        Pseudonymiser.from_environment()


def test_a_key_is_neither_pickled_nor_shown() -> None:
    with pytest.raises(TypeError, match="not sent to another process"):
        pickle.dumps(ONE)
    assert bytes(range(32)).hex() not in repr(ONE) + ONE.fingerprint


def test_quiet_errors_tell_kind_and_place() -> None:
    with pytest.raises(QuietError, match=r"^KeyError at test_privacy\.py:\d+ ") as caught, quiet_errors(True):
        raise KeyError("PT1234")
    assert "PT1234" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "PT1234" not in describe_error(ValueError("PT1234"), quiet=True)
    with pytest.raises(ConfigError) as complaint:
        parse_key("")
    with pytest.raises(QuietError, match="is not set") as caught, quiet_errors(True):
        raise RuntimeError(
            f"an actor died of PT1234\nrmsai_ray.errors.ConfigError: {complaint.value}\nPT1234"
        )
    assert str(caught.value) == str(complaint.value)
    with pytest.raises(RejectLimitError, match="5 of 6"), quiet_errors(True):
        raise RejectLimitError("5 of 6")
    with pytest.raises(KeyError, match="PT1234"), quiet_errors(False):
        raise KeyError("PT1234")
    with pytest.raises(KeyboardInterrupt), quiet_errors(True):
        raise KeyboardInterrupt
