"""Simulated archives on a real Ray and a real S3 server: the same objects whoever makes them, each once."""

import pytest

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.corpus import produce
from rmsai_ray.corpus.simulate import SimulateConfig, simulate
from rmsai_ray.storage import Store

pytestmark = pytest.mark.usefixtures("local_ray")


def etags(uri: str) -> dict[str, str]:
    return {info.key: info.etag for info in Store(uri).list() if info.key.endswith(".h5")}


@pytest.mark.parametrize("items_per_task", [1, 64])
def test_objects_do_not_depend_on_the_tasks(
    s3_uri: str, items_per_task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce, "MAX_ITEMS_PER_TASK", items_per_task)
    simulate(SimulateConfig(events=9, events_per_archive=2, seed=8, output=s3_uri))
    expected = dict(simulate_archive(p, min(2, 9 - 2 * p), seed=8) for p in range(5))
    store = Store(s3_uri)
    assert {key: store.get(key) for key in etags(s3_uri)} == expected


def test_a_second_run_writes_nothing(s3_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = SimulateConfig(events=3, events_per_archive=1, output=s3_uri)
    simulate(config)
    before = {info.key: (info.etag, info.modified) for info in Store(s3_uri).list()}
    capsys.readouterr()
    simulate(config)
    assert "Nothing to do: 3 archives" in capsys.readouterr().out
    assert {info.key: (info.etag, info.modified) for info in Store(s3_uri).list()} == before


def test_later_patients_join_an_output(s3_uri: str) -> None:
    simulate(SimulateConfig(events=2, events_per_archive=1, output=s3_uri))
    first = etags(s3_uri)
    simulate(SimulateConfig(events=2, events_per_archive=1, first_patient=2, output=s3_uri))
    assert len(etags(s3_uri)) == 4
    assert first.items() <= etags(s3_uri).items()
