"""What is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.guards import (
    check_disjoint,
    check_metrics,
    check_unseen,
    open_test_part,
    seen_patients,
)
from rmsai_ray.evaluation.protocol import load_protocol, packaged_protocols, parse_protocol
from rmsai_ray.storage import Store

MINIMAL = {
    "name": "mine",
    "kind": "windows",
    "question": "?",
    "declared": "ensemble",
    "sets": {"ensemble": ["worst_error"]},
    "split": {"by": "patient-folds"},
}


@pytest.mark.parametrize("name", ["point_adjusted_f1", "F1-PA", "point_adjust_f1"])
def test_point_adjusted_f1_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="random scores beat published models"):
        check_metrics([name])
    with pytest.raises(ConfigError, match="point of it"):
        parse_protocol({**MINIMAL, "metrics": [name]})


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="auroc, auprc"):
        check_metrics(["auc"])


def test_a_patient_in_two_parts_is_refused() -> None:
    check_disjoint({"train": ["a"], "validation": ["b"], "test": ["c"]})
    with pytest.raises(ConfigError, match=r"patients='c'.*train and in test"):
        check_disjoint({"train": ["a", "c"], "validation": ["b"], "test": ["c"]})


def test_a_model_that_has_seen_a_test_patient_is_refused() -> None:
    facts = {"splits": {"train": ["a"], "validation": ["b"], "test": ["c"]}}
    check_unseen("m", facts, True, ["c", "d"])
    for seen in ("a", "b"):
        with pytest.raises(ConfigError, match=f"1 of 2 test patients: {seen}"):
            check_unseen("m", facts, True, ["c", seen])


def test_pseudonyms_do_not_say_whom_a_model_has_seen() -> None:
    facts = {"splits": {"train": ["P00"]}, "pseudonyms": "0123456789abcdef"}
    assert seen_patients(facts) is None
    with pytest.raises(ConfigError, match="does not say which patients"):
        check_unseen("m", facts, True, ["PT1"])


def test_a_model_that_does_not_say_whom_it_has_seen_is_refused() -> None:
    assert seen_patients({}) is None
    with pytest.raises(ConfigError, match="does not say"):
        check_unseen("m", {}, True, ["c"])
    check_unseen("m", {}, False, ["c"])  # nothing was learnt of anybody


def test_the_test_part_is_used_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    part = {"protocol": "p", "data_hash": "d"}
    open_test_part(store, **part, run_id="first", reopen=None)
    open_test_part(store, **part, run_id="first", reopen=None)  # the same run, after a crash
    with pytest.raises(ConfigError, match=r"used on .* by first.*--reopen-test"):
        open_test_part(store, **part, run_id="second", reopen=None)
    open_test_part(store, protocol="p", data_hash="other", run_id="second", reopen=None)
    uses = open_test_part(store, **part, run_id="second", reopen="a label was wrong")
    assert [use["reason"] for use in uses] == [None, None, "a label was wrong"]
    with pytest.raises(ConfigError, match="by second"):
        open_test_part(store, **part, run_id="third", reopen=None)


@pytest.mark.parametrize("name", packaged_protocols())
def test_packaged_protocols_load_and_declare_a_score(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.declared


def test_a_copied_protocol_is_found_by_its_path(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "rmsai_ray" / "evaluation" / "protocols" / "mitdb-windows.toml"
    copy = tmp_path / "mine.toml"
    copy.write_text(source.read_text().replace("folds = 4", "folds = 5"))
    assert load_protocol(str(copy)).split.folds == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"declared": "rhythm"}, "is no score of its sets"),
        ({"kind": "guess"}, "windows, conditions"),
        ({"threshold": 3}, "is no key of a protocol"),
        ({"split": {"by": "time"}}, "patient-folds"),
        ({"kind": "single-beats"}, "lacks family"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_protocol(MINIMAL | change)
    with pytest.raises(ConfigError, match="is incomplete"):
        parse_protocol({"name": "mine"})


def test_an_unknown_protocol_lists_the_packaged_ones() -> None:
    with pytest.raises(ConfigError, match="ecg5000, mitdb-beats, mitdb-windows"):
        load_protocol("mitdb")
