"""What names a patient, a day or a file stays outside: no table, log, record or text of a lake has it."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest
import ray

from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.cli import main as rmsai
from rmsai_ray.privacy import ENVIRONMENT_VARIABLE, WITHHELD, QuietError, parse_key
from rmsai_ray.tables.lake import open_lake
from rmsai_ray.tables.queries import stats
from tests.cluster.corpus import run, simulate
from tests.planted import NUM_PATIENTS, files, plant, searchable


def test_nothing_that_names_a_patient_comes_through(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plants = plant(tmp_path / "archives")
    assert len(plants) >= 200
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    config = BackfillConfig(
        archives=str(tmp_path / "archives"), lake=str(tmp_path / "lake"), pseudonymise=True
    )
    capsys.readouterr()

    run(config, validate_only=True)
    run(config)
    run(config)  # finds nothing to do: archives are known by their stand-ins
    for question in QUESTIONS:
        assert rmsai([*question, "--lake", config.lake]) == 0, question
    said = capsys.readouterr()
    parts = [
        *searchable(config.lake), *files(logs), ("the terminal", (said.out + said.err).encode()),
    ]  # fmt: skip

    assert plants.found_in(parts) == {}
    assert not [where for where, content in parts if any(key in content for key in key_forms())]
    counts = {"committed": NUM_PATIENTS + 3, "quarantined": 5}
    assert stats(open_lake(config.lake)).files_by_status == counts

    [record] = [
        json.loads(content) for key, content in parts if key.startswith("runs/") and key.endswith("run.json")
    ]
    assert record["config"]["archives"] == record["argv"][1] == WITHHELD
    assert [each["counts"]["units"] > 0 for each in record["invocations"]] == [True, False]

    run(config, pseudonymise=False, lake=str(tmp_path / "plain"))
    found = plants.found_in(searchable(str(tmp_path / "plain")))
    missed = {word: where for word, where in plants.kept.items() if word not in found}
    assert len(missed) <= 0.02 * len(plants.kept), missed
    assert len(found) >= 200


def test_workers_without_the_driver_s_key_end_the_run(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = simulate(str(tmp_path / "archives"), 1, 1)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, secrets.token_hex(32))
    with pytest.raises(QuietError, match="Give every node the same key"):
        run(BackfillConfig(archives=archives.uri, lake=str(tmp_path / "lake"), pseudonymise=True))


QUESTIONS = (
    ["verdicts", "--limit", "1000"],
    ["logs"],
    *(["sql", f"SELECT * FROM {table}"] for table in ("archives", "events", "rejects")),
)


def key_forms() -> list[bytes]:
    """The key, as text and as bytes."""
    text = os.environ[ENVIRONMENT_VARIABLE]
    return [text.encode(), parse_key(text)]
