"""Identification and verification on embeddings whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from rmsai_ray.cards.reidentification import Figures, Recordings, divide_by_session, divide_in_time, measure

WINDOW_S = 12.0


def recordings(num_patients: int, num_windows: int, *, noise: float, seed: int = 0) -> Recordings:
    """Windows of patients who each have a direction of their own, in two sessions, plus noise."""
    random = np.random.default_rng(seed)
    own_PE = random.normal(size=(num_patients, 16))
    patient = np.repeat(np.arange(num_patients), num_windows)
    order = np.tile(np.arange(num_windows), num_patients)
    return Recordings(
        embedding_NE=(own_PE[patient] + noise * random.normal(size=(len(patient), 16))).astype(np.float32),
        patient_N=np.array([f"P{number}" for number in patient]),
        session_N=np.array(
            [f"{number}-{place * 2 // num_windows}" for number, place in zip(patient, order, strict=True)]
        ),
        start_s_N=order * WINDOW_S,
        end_s_N=order * WINDOW_S + WINDOW_S,
    )


def figures(found: Recordings) -> Figures:
    gallery, probes = divide_in_time(found, most_windows=50, seed=0)
    answer = measure(found, gallery, probes, seed=0, num_draws=200)
    assert answer is not None
    return answer


def test_everybody_is_found_by_what_only_they_have() -> None:
    answer = figures(recordings(40, 8, noise=0.01))
    assert answer.rank_1.value == answer.rank_1_all_probes.value == 1
    assert answer.true_accepts is not None
    assert answer.true_accepts.value == 1
    assert (answer.num_patients, answer.num_probed, answer.num_probes) == (40, 40, 160)


def test_noise_is_recognised_as_often_as_by_chance() -> None:
    found = recordings(50, 40, noise=1e6)
    answer = figures(found)
    assert answer.chance == pytest.approx(0.02)
    assert answer.rank_1.value == pytest.approx(0.02, abs=0.015)
    assert answer.rank_1.low <= 0.02 <= answer.rank_1.high
    assert answer.true_accepts is not None
    assert answer.true_accepts.value < 0.01


def test_in_between_more_probes_find_more() -> None:
    answer = figures(recordings(40, 30, noise=1.5))
    assert answer.chance < answer.rank_1.low < answer.rank_1.value < answer.rank_1_all_probes.value
    assert answer.rank_1.high < 1


def test_accepted_wrongly_is_one_in_a_thousand() -> None:
    found = recordings(40, 30, noise=1.0)
    answer = figures(found)
    gallery, probes = divide_in_time(found, most_windows=50, seed=0)
    unit_NE = found.embedding_NE / np.linalg.norm(found.embedding_NE, axis=1, keepdims=True)
    patients = np.unique(found.patient_N)
    cosine_QG = unit_NE[probes] @ unit_NE[gallery].T
    nearest_QP = np.stack([cosine_QG[:, found.patient_N[gallery] == name].max(1) for name in patients], 1)
    is_own_QP = found.patient_N[probes][:, None] == patients
    threshold = np.quantile(nearest_QP[~is_own_QP], 0.999)
    assert answer.true_accepts is not None
    assert answer.true_accepts.value == pytest.approx((nearest_QP[is_own_QP] > threshold).mean(), abs=0.01)


def test_gallery_and_probes_share_no_second_and_no_session() -> None:
    found = recordings(3, 9, noise=1.0)
    found.start_s_N[5] = found.start_s_N[3]  # begins inside of the earlier half
    gallery, probes = divide_in_time(found, most_windows=50, seed=0)
    assert 5 not in probes
    for name in np.unique(found.patient_N):
        early, late = (rows[found.patient_N[rows] == name] for rows in (gallery, probes))
        assert found.end_s_N[early].max() <= found.start_s_N[late].min()
    gallery, probes = divide_by_session(found, most_windows=50, seed=0)
    assert not set(found.session_N[gallery]) & set(found.session_N[probes])


def test_who_has_one_window_is_somebody_to_be_taken_for() -> None:
    found = recordings(10, 4, noise=0.01)
    keep = np.ones(len(found), np.bool_)
    keep[1:4] = False  # of the first patient a single window is left
    fewer = Recordings(**{name: values[keep] for name, values in vars(found).items()})
    answer = figures(fewer)
    assert (answer.num_patients, answer.num_probed) == (10, 9)
    assert answer.true_accepts is None, "162 comparisons do not tell a rate of 1 in 1,000"
    assert answer.to_json()["true_accepts"] is None


def test_so_many_windows_at_most_and_the_same_again() -> None:
    found = recordings(5, 30, noise=1.0)
    one, again = (divide_in_time(found, most_windows=4, seed=3) for _ in range(2))
    assert [len(rows) for rows in one] == [20, 20]
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(again))


def test_a_single_patient_is_no_question() -> None:
    found = recordings(1, 8, noise=1.0)
    assert measure(found, *divide_in_time(found, most_windows=9, seed=0), seed=0, num_draws=10) is None
    nobody = recordings(3, 1, noise=1.0)
    assert measure(nobody, *divide_in_time(nobody, most_windows=9, seed=0), seed=0, num_draws=10) is None
