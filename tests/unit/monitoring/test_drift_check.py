"""A reference keeps what a comparison needs; a shifted copy drifts, a resampled one does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.monitoring.drift import DriftLimits, check_drift
from rmsai_ray.monitoring.features import FEATURES, Slice, Values, read_values
from rmsai_ray.monitoring.reference import (
    Reference,
    fit_reference,
    load_reference,
    profile,
    reference_key,
    save_reference,
)
from rmsai_ray.monitoring.reference import _edges as edges_of
from rmsai_ray.storage import Store
from rmsai_ray.tables.lake import open_lake
from tests.lake_builder import MODEL_A, build_lake


def values(first: int, num: int, *, seed: int, shift: float = 0.0, scored_by: str = "ensemble") -> Values:
    """Thirty values a patient, which resemble each other; ``shift`` in standard deviations of patients."""
    rng = np.random.default_rng([seed, first])
    place_N = np.repeat(np.arange(num), 30)
    return Values(
        patients=tuple(f"PT{first + i:04}" for i in range(num)),
        by_feature={
            name: (place_N, rng.normal(shift, 1, num)[place_N] + 0.3 * rng.normal(size=len(place_N)))
            for name in FEATURES
        },
        mean_embedding_PE=rng.normal(shift, 1, (num, 8)),
        scored_by=scored_by,
        num_windows=len(place_N),
    )


def reference(seed: int = 0, num: int = 20) -> Reference:
    before = values(0, num, seed=seed)
    edges = {name: edges_of(value_N) for name, (_, value_N) in before.by_feature.items()}
    return Reference(
        model_id="m", edges=edges, profiles=profile(before, edges, "m"), facts={"source": "a test"}
    )


def test_a_shifted_copy_drifts() -> None:
    report = check_drift(reference(), values(100, 15, seed=1, shift=2.5), DriftLimits())
    assert (report.status, report.severity) == ("drift", "critical")
    assert {*report.drifted} == {*FEATURES, "embedding"}


def test_only_what_is_shifted_drifts() -> None:
    recent, shifted = values(100, 15, seed=2), values(100, 15, seed=2, shift=3.0)
    mixed = {**recent.by_feature, "SpO2": shifted.by_feature["SpO2"]}
    report = check_drift(reference(), Values(**{**vars(recent), "by_feature": mixed}), DriftLimits())
    assert (report.drifted, report.severity) == (["SpO2"], "warning")


def test_without_a_shift_checks_stay_quiet() -> None:
    """Twenty checks at one in ten: more than six alarms would come about twice in a thousand times."""
    limits = DriftLimits(false_alarm_rate=0.1, min_psi=0.0)
    reports = [
        check_drift(reference(seed, 12), values(100, 10, seed=seed), limits, seed=seed, num_deals=499)
        for seed in range(20)
    ]
    assert sum(report.status == "drift" for report in reports) <= 6
    assert min(feature.p_value for report in reports for feature in report.features) < 0.5


def test_the_same_patients_again_are_no_drift() -> None:
    """Who is in both groups changes places with himself alone."""
    report = check_drift(reference(3), values(0, 20, seed=3), DriftLimits())
    assert report.status == "quiet"
    assert max(feature.psi or 0.0 for feature in report.features) < 1e-12


def test_too_few_patients_are_not_judged() -> None:
    report = check_drift(reference(), values(100, 4, seed=1, shift=9.0), DriftLimits())
    assert (report.status, report.features) == ("too_few_patients", ())


def test_scores_of_another_detector_are_not_compared() -> None:
    report = check_drift(reference(), values(100, 15, seed=1, shift=2.5, scored_by="knn"), DriftLimits())
    assert {*report.left_out} == {"anomaly_score", "anomalous"}
    assert "anomaly_score" not in report.drifted


def test_a_reference_in_a_lake(tmp_path: Path) -> None:
    lake = open_lake(build_lake(tmp_path).uri, MODEL_A)
    store = Store(lake.uri)
    assert load_reference(store, MODEL_A) is None
    made = fit_reference(lake, Slice(), train_patients=frozenset({"PT3000"}), source="a test")
    assert made.num_patients == 2
    save_reference(store, made)
    found = load_reference(store, MODEL_A)
    assert found is not None
    assert found.facts == made.facts
    assert found.profiles.names == made.profiles.names
    assert "PT1000" not in store.get(reference_key(MODEL_A)).decode("latin1")
    for name in FEATURES:
        assert np.array_equal(found.profiles.shares[name], made.profiles.shares[name], equal_nan=True)
    with pytest.raises(ConfigError, match="of the model"):
        load_reference(store, "another", store.child_uri(reference_key(MODEL_A)))
    with pytest.raises(ConfigError, match="fit-reference"):
        load_reference(store, MODEL_A, str(tmp_path / "nothing.npz"))
    store.put(reference_key(MODEL_A), b"PK\x03\x04 cut off")
    with pytest.raises(LakeError, match="is no reference"):
        load_reference(store, MODEL_A)


def test_slices_of_a_lake(tmp_path: Path) -> None:
    built = build_lake(tmp_path)
    lake, windows = open_lake(built.uri, MODEL_A), built.windows[MODEL_A]
    everything = read_values(lake, Slice())
    assert everything.patients == ("PT1000", "PT2000", "PT3000")
    assert everything.num_windows == len(windows)
    place_N, value_N = everything.by_feature["reconstruction_error"]
    for place, patient in enumerate(everything.patients):
        expected = windows[windows["patient_id"] == patient]["reconstruction_error"]
        assert sorted(value_N[place_N == place]) == pytest.approx(sorted(expected))
    assert read_values(lake, Slice(), without=["PT1000"]).patients == ("PT2000", "PT3000")
    committed = Slice(
        since=datetime(2025, 10, 1, 12, 1, tzinfo=UTC), until=datetime(2025, 10, 1, 12, 2, tzinfo=UTC)
    )
    assert read_values(lake, committed).patients == ("PT2000",)
    assert read_values(lake, Slice(period="2025-08")).patients == ("PT1000",)
    happened = Slice(by="event", until=datetime(2025, 8, 30, tzinfo=UTC))
    assert read_values(lake, happened).patients == ("PT1000",)
    with pytest.raises(ConfigError, match="is no month"):
        Slice(period="2025")
