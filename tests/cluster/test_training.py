"""Training on Ray: a killed worker and a killed driver change nothing; fine-tuning on a cohort, to S3."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest
import ray
import torch
from torch import distributed, multiprocessing

from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.backfill.config import BackfillConfig
from rmsai_ray.models.checkpoint import DESCRIPTION_NAME, load_model, untrained_model
from rmsai_ray.models.profiles import DEFAULT_PROFILE
from rmsai_ray.storage import Store
from rmsai_ray.training.data import WindowSet, read_training_data
from rmsai_ray.training.finetune import FinetuneConfig, finetune
from rmsai_ray.training.flow import CURVE_NAME
from rmsai_ray.training.loop import FitConfig, fit
from rmsai_ray.training.pretrain import PretrainConfig, pretrain
from rmsai_ray.training.splits import split_by_patient
from tests.cluster.corpus import run

ROOT = Path(__file__).parents[2]
WORKERS, EPOCHS, BATCH, SEED, RATE = 2, 6, 2, 42, 2e-3
WORKER_NAME = "ray::RayTrainWorker"


@dataclass(frozen=True)
class Interrupted:
    """What a training left whose worker and whose driver were killed."""

    config: PretrainConfig
    model_id: str
    runs: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients; two train, on 28 normal windows."""
    folder = tmp_path_factory.mktemp("archives")
    for patient in range(4):
        name, content = simulate_archive(patient, 3, seed=1, proportions=(0.67, 0.33, 0, 0, 0))
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def interrupted(local_ray: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """A worker dies after the first epoch, the driver after a later one; then the same command once more."""
    output = tmp_path_factory.mktemp("interrupted") / "model"
    config = PretrainConfig(
        archives=(str(archives),),
        output=str(output),
        epochs=EPOCHS,
        batch_windows=BATCH,
        learning_rate=RATE,
        seed=SEED,
        workers=WORKERS,
    )
    with _driver(config) as lines:
        assert _next(lines, "epoch ") == "epoch 1"
        _a_worker().kill()
        _next(lines, "workers died")
        _next(lines, "epoch ")
    assert not output.exists()
    logging.getLogger("rmsai_ray").setLevel(logging.INFO)  # as every job does
    bundle = pretrain(config)
    return Interrupted(config, bundle.model_id, output.parent / "runs")


def test_a_killed_worker_and_a_killed_driver_change_no_bit(interrupted: Interrupted, archives: Path) -> None:
    weights, losses = _undisturbed(archives)
    expected = untrained_model(DEFAULT_PROFILE, seed=SEED)
    expected.network.load_state_dict(weights)
    assert interrupted.model_id == expected.model_id
    (record,) = (json.loads(path.read_text()) for path in interrupted.runs.glob("*/run.json"))
    assert [epoch["validation_mse"] for epoch in record["facts"]["epochs"]] == losses
    assert record["status"] == "done"
    assert len(record["invocations"]) == 2


def test_a_training_goes_on_after_the_last_complete_epoch_and_leaves_only_its_record(
    interrupted: Interrupted,
) -> None:
    paths = sorted(interrupted.runs.glob("*/logs/*"))
    last = [path for path in paths if path.name.partition("-")[0] == paths[-1].name.partition("-")[0]]
    logs = [json.loads(line) for path in last for line in path.open()]
    messages = [line["message"] for line in logs]
    done = [int(text.split()[-1]) for text in messages if text.startswith("going on after epoch")]
    assert len(done) == 1
    assert 1 <= done[0] < EPOCHS
    told = [line["epoch"] for line in logs if line["message"] == "epoch"]
    assert told == list(range(done[0] + 1, EPOCHS + 1))
    (run,) = interrupted.runs.iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["logs", "run.json"]


def test_the_checkpoint_is_complete(interrupted: Interrupted) -> None:
    bundle = load_model(interrupted.config.output)
    facts = bundle.facts
    assert bundle.trained
    assert bundle.thresholds is not None
    assert set(bundle.thresholds["T_normal"]) == set(bundle.spec.leads)
    everyone = sorted(patient for part in facts["splits"].values() for patient in part)
    assert everyone == ["PT0000", "PT0001", "PT0002", "PT0003"]
    parts = [facts["num_windows"][part] for part in ("train", "validation", "test")]
    assert parts == [[42, 28], [21, 14], [21, 14]]
    assert 0 < bundle.metrics["held_out"]["mse_normal"] < 2
    folder = Path(interrupted.config.output)
    assert (folder / CURVE_NAME).read_bytes()[:4] == b"\x89PNG"
    card = (folder / "CARD.md").read_text()
    assert bundle.model_id in card
    for text in (card, (folder / DESCRIPTION_NAME).read_text()):
        assert str(folder.parent) not in text


def test_fine_tuning_on_a_cohort_to_s3(
    interrupted: Interrupted, archives: Path, tmp_path: Path, s3_uri: str
) -> None:
    lake = str(tmp_path / "lake")
    run(BackfillConfig(archives=str(archives), lake=lake))
    parent = load_model(interrupted.config.output)
    config = FinetuneConfig(
        archives=(str(archives),),
        output=f"{s3_uri}/models/ward",
        model=interrupted.config.output,
        leads=("ECG2", "vVX"),
        freeze=("encoder",),
        lake=lake,
        cohort="condition = 'Normal'",
        epochs=1,
    )
    child = finetune(config)
    before, after = parent.network.state_dict(), child.network.state_dict()
    frozen = {name for name in before if before[name].equal(after[name])}
    assert {name for name, _ in parent.network.named_parameters() if name.startswith("encoder")} <= frozen
    assert any(not before[name].equal(after[name]) for name in before if name.startswith("decoder"))
    assert child.spec.leads == ("ECG2", "vVX")
    assert child.thresholds is not None
    assert set(child.thresholds["T_normal"]) == {"ECG2", "vVX"}
    counts = np.array(list(child.facts["num_windows"].values()))
    assert (counts[:, 0] == counts[:, 1]).all(), "only Normal events were chosen"
    assert [ancestor["model_id"] for ancestor in child.facts["lineage"]] == [parent.model_id]
    trained = set(parent.facts["splits"]["train"])
    assert not trained & {*child.facts["splits"]["test"], *child.facts["splits"]["validation"]}
    store = Store(f"{s3_uri}/models")
    assert json.loads(store.get(f"ward/{DESCRIPTION_NAME}"))["model_id"] == child.model_id
    assert parent.model_id in store.get("ward/CARD.md").decode()
    assert not [info.key for info in store.list() if "training" in info.key]


def test_what_can_not_be_done_is_refused(interrupted: Interrupted, archives: Path) -> None:
    config = replace(interrupted.config, output=f"{interrupted.config.output}-refused", batch_windows=60)
    with pytest.raises(Exception, match="too many for 2 CPUs"):
        pretrain(replace(config, workers=30))
    assert not Path(config.output).exists()


@contextmanager
def _driver(config: PretrainConfig) -> Iterator[IO[str]]:
    """A driver of its own on the session's Ray; killed at the end."""
    options = {
        "--archives": config.archives[0],
        "--output": config.output,
        "--epochs": EPOCHS,
        "--batch-windows": BATCH,
        "--learning-rate": RATE,
        "--seed": SEED,
        "--workers": WORKERS,
    }
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "jobs/pretrain.py",
            *(str(word) for pair in options.items() for word in pair),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        yield process.stderr
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _next(lines: IO[str], beginning: str) -> str:
    """Reads up to the next line that begins so; gives it up to its colon."""
    seen = []
    for line in lines:
        seen.append(line)
        if line.startswith(beginning):
            return line.partition(":")[0]
    raise AssertionError("".join(seen))


def _a_worker() -> psutil.Process:
    ours = psutil.Process().children(recursive=True)
    return next(process for process in ours if _command(process).startswith(WORKER_NAME))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is none, either
        return ""


def _undisturbed(archives: Path) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same training by two plain processes without Ray: best weights, and validation errors by epoch."""
    meeting = archives.parent / f"{archives.name}-meeting"
    meeting.mkdir()
    multiprocessing.spawn(_member, args=(str(archives), str(meeting)), nprocs=WORKERS)
    saved = torch.load(meeting / "result.pt", weights_only=True)
    return saved["weights"], saved["losses"]


def _member(rank: int, archives: str, meeting: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{meeting}/here", rank=rank, world_size=WORKERS)
    bundle = untrained_model(DEFAULT_PROFILE, seed=SEED)
    data = read_training_data([archives], bundle.spec)
    splits = split_by_patient(data.patients_by_source, SEED)

    def share(patients: tuple[str, ...]) -> WindowSet:
        windows = data.windows.of_patients(patients)
        return windows.take(np.flatnonzero(windows.is_normal_N)[rank::WORKERS])

    config = FitConfig(epochs=EPOCHS, batch_windows=BATCH, learning_rate=RATE, patience=15, seed=SEED)
    history = fit(bundle.network, bundle.normaliser, share(splits.train), share(splits.validation), config)
    if rank == 0:
        losses = [epoch.validation_mse for epoch in history]
        torch.save({"weights": bundle.network.state_dict(), "losses": losses}, Path(meeting) / "result.pt")
    distributed.destroy_process_group()
