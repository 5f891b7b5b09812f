"""What simulated archives promise: determinism, coherent leads, drawn waves, exact fiducials, vital signs."""

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter

import h5py
import numpy as np
import pytest

from rmsai_ray.archives.beats import Heart
from rmsai_ray.archives.conditions import CONDITIONS, MIXES, VITAL_SIGNS, condition_mix
from rmsai_ray.archives.records import Event
from rmsai_ray.archives.simulator import Patient, simulate_archive, simulate_event
from rmsai_ray.errors import ConfigError

BY_NAME = {condition.name.split()[0]: condition for condition in CONDITIONS}


def simulated(kind: str, seed: int = 0) -> Event:
    patient = Patient(patient_id="PT0001", heart=Heart(), resting_bpm=75.0, noise_mv=0.02)
    return simulate_event(np.random.default_rng(seed), patient, BY_NAME[kind], 1.8e9, 1001)


def lead(event: Event, name: str) -> np.ndarray:
    return np.asarray(event.leads[name].samples)


def wave(event: Event, name: str) -> np.ndarray:
    return np.array([s for s in event.ecg_extras["fiducials"][name] if s is not None], dtype=int)


def test_seed_and_patient_determine_the_bytes_in_every_process() -> None:
    name, content = simulate_archive(7, 3, seed=11)
    assert name == "PT0007_2026-10.h5"
    script = (
        "import hashlib; from rmsai_ray.archives.simulator import simulate_archive as s;"
        "s(1, 2, seed=11); print(hashlib.sha256(s(7, 3, seed=11)[1]).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(content).hexdigest()


def test_other_seeds_and_patients_give_other_archives() -> None:
    contents = {simulate_archive(p, 2, seed=s)[1] for p, s in ((1, 0), (2, 0), (1, 1))}
    assert len(contents) == 3


@pytest.mark.parametrize("kind", BY_NAME)
def test_limb_leads_follow_from_i_and_ii(kind: str) -> None:
    event = simulated(kind)
    one, two, three = (lead(event, f"ECG{number}") for number in (1, 2, 3))
    np.testing.assert_allclose(three, two - one, atol=1e-12)
    np.testing.assert_allclose(lead(event, "aVR"), -(one + two) / 2, atol=1e-12)
    np.testing.assert_allclose(lead(event, "aVL"), (one - three) / 2, atol=1e-12)
    np.testing.assert_allclose(lead(event, "aVF"), (two + three) / 2, atol=1e-12)


@pytest.mark.parametrize("kind", BY_NAME)
def test_leads_show_the_same_beats(kind: str) -> None:
    event = simulated(kind)
    correlation = np.corrcoef(lead(event, "ECG1"), lead(event, "ECG2"))[0, 1]
    assert correlation > 0.8, "one sequence of beats, seen twice"
    assert abs(np.corrcoef(lead(event, "ECG2"), lead(event, "vVX"))[0, 1]) > 0.7


@pytest.mark.parametrize("kind", BY_NAME)
def test_r_fiducials_sit_on_the_peaks_of_lead_ii(kind: str) -> None:
    event = simulated(kind)
    signal = lead(event, "ECG2")
    for sample in wave(event, "R"):
        low = max(0, sample - 8)
        peak = low + int(signal[low : sample + 9].argmax())
        assert abs(peak - sample) <= 2


@pytest.mark.parametrize("kind", BY_NAME)
def test_waves_of_a_beat_come_in_order_and_before_the_next_beat(kind: str) -> None:
    fiducials = simulated(kind, seed=3).ecg_extras["fiducials"]
    beats = [[s for s in beat if s is not None] for beat in zip(*fiducials.values(), strict=True)]
    flat = [sample for beat in beats for sample in beat]
    assert flat == sorted(flat)
    assert len(beats) > 5


@pytest.mark.parametrize("kind", ["Tachycardia", "Ventricular"])
def test_fast_rhythms_still_have_their_waves(kind: str) -> None:
    fastest = max((simulated(kind, seed) for seed in range(40)), key=lambda e: e.heart_rate_bpm or 0)
    assert (fastest.heart_rate_bpm or 0) > BY_NAME[kind].heart_rate_bpm[1] * 0.95
    signal = lead(fastest, "ECG2")
    baseline = np.median(signal)
    assert (signal[wave(fastest, "R")] - baseline).mean() > 0.8, "QRS"
    after = np.abs(signal[wave(fastest, "T")] - baseline).mean()
    assert after > 0.1, "T wave"


def test_atrial_fibrillation_is_irregular_and_without_p() -> None:
    event = simulated("Atrial")
    assert "P" not in event.ecg_extras["fiducials"]
    rr = np.diff(wave(event, "R"))
    assert rr.std() / rr.mean() > 0.12
    regular = np.diff(wave(simulated("Normal"), "R"))
    assert regular.std() / regular.mean() < 0.06


def test_ventricular_beats_are_wide() -> None:
    def width_samples(kind: str) -> float:
        event = simulated(kind)
        signal = lead(event, "ECG2") - np.median(lead(event, "ECG2"))
        counts = [(signal[s - 20 : s + 20] > signal[s] / 2).sum() for s in wave(event, "R") if 20 <= s < 2380]
        return float(np.mean(counts))

    assert width_samples("Ventricular") > 2 * width_samples("Normal")


@pytest.mark.parametrize("kind", BY_NAME)
def test_beats_match_the_reported_heart_rate(kind: str) -> None:
    for seed in range(5):
        event = simulated(kind, seed)
        rate_bpm = 60 * 200 / np.diff(wave(event, "R")).mean()
        assert rate_bpm == pytest.approx(event.heart_rate_bpm, rel=0.12)


def test_vital_signs() -> None:
    vitals = simulated("Ventricular").vitals
    assert list(vitals) == [sign.name for sign in VITAL_SIGNS]
    for sign in VITAL_SIGNS:
        vital = vitals[sign.name]
        assert vital.time_s is not None
        assert abs(vital.time_s - 1.8e9) <= sign.time_offset_s
        times_s = np.array([time_s for time_s, _ in vital.history])
        assert len(times_s) == 30
        spacing_s = np.diff(times_s)
        assert (
            sign.history_spacing_s[0] - 0.01
            <= spacing_s.min()
            <= spacing_s.max()
            <= sign.history_spacing_s[1] + 0.01
        )
        assert vital.time_s - times_s[-1] == pytest.approx(spacing_s.mean(), abs=0.01)
        values = [value for _, value in vital.history]
        assert sign.history_bounds[0] <= min(values) <= max(values) <= sign.history_bounds[1]
    assert 88 <= (vitals["SpO2"].value or 0) <= 95
    assert set(vitals["XL_Posture"].extras) == {"step_count", "time_since_posture_change"}


def test_a_pacer_shows_as_a_spike_at_its_offset() -> None:
    paced = [event for event in (simulated("Bradycardia", seed) for seed in range(12)) if event.pacer_info]
    assert 6 <= len(paced) <= 12, "80 % of them, on average"
    for event in paced:
        assert (event.pacer_info or 0) & 0xFF in (1, 2, 3)
        assert 60 <= (event.pacer_info or 0) >> 8 & 0xFF <= 100
        signal, spike = lead(event, "ECG2"), event.pacer_offset or 0
        amplitude = (event.pacer_info or 0) >> 16 & 0xFF
        assert signal[spike] - signal[[spike - 1, spike + 1]].mean() > 0.2 * amplitude - 0.1


def test_the_mix_is_dealt_exactly_where_it_can_be() -> None:
    _, content = simulate_archive(0, 10, seed=0, preset="balanced")
    with h5py.File(io.BytesIO(content)) as file:
        counts = Counter(file[name].attrs["condition"] for name in file if name != "metadata")
    assert set(counts.values()) == {2}


def test_single_events_follow_the_mix_too() -> None:
    kinds = Counter()
    for patient in range(24):
        _, content = simulate_archive(patient, 1, seed=0, proportions=(1, 0, 1, 0, 0))
        with h5py.File(io.BytesIO(content)) as file:
            kinds[file["event_1001"].attrs["condition"]] += 1
    assert set(kinds) == {"Normal", "Bradycardia"}
    assert 5 <= kinds["Normal"] <= 19


def test_mixes() -> None:
    assert all(condition_mix(name).sum() == pytest.approx(1) for name in MIXES)
    np.testing.assert_allclose(condition_mix("balanced", (2, 1, 1, 0, 0)), (0.5, 0.25, 0.25, 0, 0))


@pytest.mark.parametrize(
    "proportions", [(1, 2, 3), (-1, 1, 1, 1, 1), (0, 0, 0, 0, 0), (float("nan"), 1, 1, 1, 1)]
)
def test_bad_proportions_are_refused(proportions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="proportions"):
        simulate_archive(0, 1, seed=0, proportions=proportions)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"preset": "mixed"}, "preset"),
        ({"period": "2026-13"}, "period"),
        ({"seed": -1}, "seed"),
        ({"num_events": 0}, "num_events"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], name: str) -> None:
    options: dict[str, object] = {"num_events": 1, "seed": 0}
    with pytest.raises(ConfigError, match=name):
        simulate_archive(0, **(options | changes))  # type: ignore[arg-type]


def test_signals_have_upstreams_size() -> None:
    _, content = simulate_archive(4, 5, seed=2, preset="all-abnormal")
    assert 150_000 < len(content) / 5 < 250_000
    with h5py.File(io.BytesIO(content)) as file:
        for name in set(file) - {"metadata"}:
            event = file[name]
            assert set(event["ecg"]) == {"ECG1", "ECG2", "ECG3", "aVR", "aVL", "aVF", "vVX", "extras"}
            assert event["ecg/ECG1"].shape == (2400,)
            assert event["ppg/PPG"].shape == (900,)
            assert event["resp/RESP"].shape == (399,)
            assert -40 < event["ppg/PPG"][()].min() < event["ppg/PPG"][()].max() < 210
            assert json.loads(event["ppg/extras"][()]) == {}
