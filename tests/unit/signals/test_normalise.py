import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rmsai_ray.errors import ConfigError
from rmsai_ray.signals.normalise import Normaliser, fit_lead_normaliser, moving_average

WINDOW = Normaliser("window")


def some_windows(num: int = 6, window_samples: int = 140) -> np.ndarray:
    return np.random.default_rng(7).normal(0.3, 0.4, (num, window_samples)).astype(np.float32)


def full(x: np.ndarray) -> np.ndarray:
    return np.full(len(x), x.shape[1], np.int32)


windows = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(8, 40)), elements=st.floats(-5, 5, width=32)
)


@given(windows, st.floats(-3, 3), st.floats(0.5, 20))
def test_a_window_normaliser_ignores_offset_and_gain(x: np.ndarray, shift: float, gain: float) -> None:
    x = x[x.std(axis=1) > 0.1]
    leads = ["ECG2"] * len(x)
    plain, _, _ = WINDOW.apply(x, full(x), leads)
    moved, _, _ = WINDOW.apply(x.astype(np.float64) * gain + shift, full(x), leads)
    np.testing.assert_allclose(moved, plain, atol=2e-5)


@given(
    windows, st.sampled_from([WINDOW, Normaliser("identity"), Normaliser("lead", {"II": 0.3}, {"II": 0.7})])
)
def test_offset_and_scale_give_the_signal_back(x: np.ndarray, normaliser: Normaliser) -> None:
    y, offset, scale = normaliser.apply(x, full(x), ["II"] * len(x))
    np.testing.assert_allclose(y * scale[:, None] + offset[:, None], x, atol=5e-6)


@pytest.mark.parametrize(
    "normaliser", [WINDOW, Normaliser("lead", {"ECG1": 0.1}, {"ECG1": 0.4}), Normaliser("identity")]
)
def test_padding_changes_nothing_and_becomes_zero(normaliser: Normaliser) -> None:
    clean, dirty = np.zeros((2, 100)), np.full((2, 100), np.nan)
    clean[:, :70] = dirty[:, :70] = some_windows(2, 70)
    real = np.array([70, 70])
    expected = normaliser.apply(clean, real, ["ECG1"] * 2)
    for got, want in zip(normaliser.apply(dirty, real, ["ECG1"] * 2), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert not expected[0][:, 70:].any()


def test_window_statistics_are_those_of_the_real_samples() -> None:
    x = np.zeros((1, 100))
    x[0, :60] = some_windows(1, 60)
    y, offset, scale = WINDOW.apply(x, np.array([60]), ["ECG1"])
    assert offset[0] == pytest.approx(x[0, :60].mean(), rel=1e-6)
    assert scale[0] == pytest.approx(x[0, :60].std(), rel=1e-6)
    assert y[0, :60].std() == pytest.approx(1, rel=1e-5)


def test_a_row_gives_the_same_bits_alone_and_in_company() -> None:
    x = some_windows(37, 2400)
    together = WINDOW.apply(x, full(x), ["ECG1"] * 37)
    for row in (0, 17, 36):
        alone = WINDOW.apply(x[row : row + 1], full(x)[:1], ["ECG1"])
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[row])


def test_raw_counts_on_a_large_offset_keep_their_shape() -> None:
    counts = (np.arange(2400) % 3).astype(np.float32) + 2**20
    y, offset, scale = WINDOW.apply(counts[None], np.array([2400]), ["ECG1"])
    assert offset[0] == 2**20 + 1
    assert scale[0] == pytest.approx((2 / 3) ** 0.5)
    np.testing.assert_allclose(y[0, :3], np.array([-1, 0, 1]) * 1.5**0.5, rtol=1e-6)


def test_a_flat_line_becomes_zeros_not_amplified_noise() -> None:
    noise = np.random.default_rng(1).normal(0, 1e-6, (1, 200))
    y, _, scale = WINDOW.apply(noise + 2.5, np.array([200]), ["ECG1"])
    assert np.abs(y).max() < 0.01
    assert scale[0] == pytest.approx(WINDOW.floor)


def test_a_window_without_real_samples_is_zeros() -> None:
    y, offset, _ = WINDOW.apply(np.ones((1, 5)), np.array([0]), ["ECG1"])
    assert not y.any()
    assert offset[0] == 0


def test_identity_leaves_the_signal_alone_whatever_the_floor() -> None:
    x = some_windows()
    y, _, _ = Normaliser("identity", floor=50.0).apply(x, full(x), ["ECG1"] * len(x))
    np.testing.assert_array_equal(y, x)


def test_lead_statistics_are_fitted_per_lead_over_real_samples() -> None:
    x = np.array([[1.0, 3.0, 99.0], [10.0, 20.0, 30.0], [5.0, 7.0, 99.0]])
    fitted = fit_lead_normaliser(x, np.array([2, 3, 2]), ["ECG1", "aVF", "ECG1"])
    assert fitted.offset == {"ECG1": 4.0, "aVF": 20.0}
    assert fitted.scale == pytest.approx({"ECG1": 5**0.5, "aVF": (200 / 3) ** 0.5})
    y, offset, _ = fitted.apply(x, np.array([2, 3, 2]), ["ECG1", "aVF", "ECG1"])
    np.testing.assert_allclose(offset, [4, 20, 4])
    assert y[0, 0] == pytest.approx(-3 / 5**0.5)


def test_an_unknown_lead_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'aVF'.*Choose from ECG2"):
        Normaliser("lead", {"ECG2": 0.0}, {"ECG2": 1.0}).apply(np.ones((1, 4)), np.array([4]), ["aVF"])


@pytest.mark.parametrize("normaliser", [WINDOW, Normaliser("lead", {"ECG1": 0.1}, {"ECG1": 0.4}, floor=0.02)])
def test_json_round_trip(normaliser: Normaliser) -> None:
    assert Normaliser.from_json(json.loads(json.dumps(normaliser.to_json()))) == normaliser


@pytest.mark.parametrize("bad", [{"kind": "batch"}, {"kind": "window", "floor": 0.0}])
def test_what_is_no_normaliser_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="normaliser"):
        Normaliser.from_json(bad)


def test_filters_take_off_wander_and_keep_the_beats() -> None:
    time_s = np.arange(2400) / 200
    beats_T = np.exp(-0.5 * ((time_s % 0.8 - 0.4) / 0.03) ** 2)
    wander_T = 0.5 * np.sin(2 * np.pi * 0.1 * time_s)
    plain, filtered = Normaliser("window"), Normaliser("window", baseline_samples=401, smoothing_samples=3)

    wandering_NT, _, scale_N = filtered.apply((beats_T + wander_T)[None], np.array([2400]), ["ECG1"])
    steady_NT, _, _ = plain.apply(beats_T[None], np.array([2400]), ["ECG1"])

    assert np.corrcoef(wandering_NT[0, 200:-200], steady_NT[0, 200:-200])[0, 1] > 0.98
    assert scale_N[0] < 0.3, "the wander of 0.35 went into the scale"


def test_filters_look_at_real_samples_only_and_at_one_row_at_a_time() -> None:
    rng = np.random.default_rng(0)
    x_NT, num_samples_N = rng.normal(size=(5, 300)), np.array([300, 120, 7, 300, 1])
    garbage_NT = np.where(np.arange(300) < num_samples_N[:, None], x_NT, 1e6)
    normaliser = Normaliser("window", baseline_samples=101, smoothing_samples=3)

    together, _, _ = normaliser.apply(x_NT, num_samples_N, ["ECG1"] * 5)
    beside_garbage, _, _ = normaliser.apply(garbage_NT, num_samples_N, ["ECG1"] * 5)
    alone = [normaliser.apply(x_NT[[i]], num_samples_N[[i]], ["ECG1"])[0][0] for i in range(5)]

    np.testing.assert_array_equal(together, beside_garbage)
    np.testing.assert_array_equal(together, np.stack(alone))
    assert Normaliser.from_json(normaliser.to_json()) == normaliser


@pytest.mark.parametrize("num_samples", [20, 7, 6, 3, 1])
def test_moving_average_by_definition(num_samples: int) -> None:
    x_NT = np.random.default_rng(1).normal(size=(2, num_samples))

    means_NT = moving_average(x_NT, 7)

    expected = [[row[max(0, t - 3) : t + 4].mean() for t in range(num_samples)] for row in x_NT]
    np.testing.assert_allclose(means_NT, expected, atol=1e-12)


def test_even_width_has_no_centre() -> None:
    with pytest.raises(ConfigError, match="baseline_samples=400"):
        Normaliser("window", baseline_samples=400)
