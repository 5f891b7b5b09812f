"""Ray Train around the training loop: workers, their windows, checkpoints, and news for the driver."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from rmsai_ray.compute import Cluster
from rmsai_ray.errors import ConfigError, RmsaiError
from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.storage import arrow_filesystem, is_s3, split_object_uri
from rmsai_ray.training.loop import fit
from rmsai_ray.training.pool import gather
from rmsai_ray.training.state import Epoch, FitConfig, TrainingState, read_history, read_state

STATE_NAME = "state.pt"
MAX_FAILURES = 3
"""Worker groups that may die before the training fails; the same command then goes on."""
WORKERS_SHARE = 0.8
"""Of the cluster's cores; the rest reads and deals windows, which workers wait for."""
MOST_WORKERS_PER_CORE = 2
POLL_S = 0.5

OnNews = Callable[[str, Any], None]
"""Called in the driver: ``epoch`` and an :class:`Epoch`, ``resumed`` and a number, ``failed`` and a text."""


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What every worker gets."""

    bundle: ModelBundle
    fit: FitConfig
    threads: int
    sizes_by_rank: list[dict[str, int]]
    """Windows of each part that a worker will get."""
    news: Queue


def train_on_ray(
    bundle: ModelBundle,
    shards: list[Any],
    task_options: dict[str, Any],
    *,
    scaling: ScalingConfig,
    storage_uri: str,
    on_news: OnNews,
) -> tuple[dict[str, torch.Tensor], list[Epoch]]:
    """The best weights and the history of a training by as many workers as there are shards.

    Every epoch's end is a checkpoint below ``storage_uri``. A worker that dies, or the same call after the
    driver died, goes on from the last one, and ends with the same weights as if nothing had happened.

    Args:
        bundle: the network to start from; its frozen parameters have ``requires_grad`` off.
        shards: a dataset for each worker, from :meth:`~rmsai_ray.training.pool.WindowPool.deal`.
        task_options: the other fields of :class:`WorkerTask`.
        scaling: number and size of the workers.
        storage_uri: the training's own folder or prefix.
        on_news: see :data:`OnNews`.

    Raises:
        RmsaiError: the training itself failed, which no retry changes.
        ray.train.TrainingFailedError: workers died too often.
    """
    with _listening(on_news) as news:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": WorkerTask(bundle=bundle, news=news, **task_options)},
            scaling_config=scaling,
            run_config=_run_config(storage_uri, news),
            datasets={_shard_name(rank): shard for rank, shard in enumerate(shards)},
            dataset_config=DataConfig(datasets_to_split=[]),  # they are split, row by row
        )
        result = trainer.fit()
    if result.return_value:
        raise RmsaiError(result.return_value)
    saved = read_state(_read_checkpoint(result.checkpoint))
    return saved["best_weights"], read_history(saved)


def plan_workers(cluster: Cluster, num_workers: int, *, use_gpu: bool) -> ScalingConfig:
    """How much each worker takes.

    Raises:
        ConfigError: the cluster is too small for so many.
    """
    have, what = (cluster.num_gpus, "GPUs") if use_gpu else (cluster.num_cpus, "CPUs")
    most = int(have) if use_gpu else int(have * MOST_WORKERS_PER_CORE)
    if num_workers > most:
        raise ConfigError(
            "workers", num_workers, f"are too many for {have:g} {what}", f"Ask for at most {most}."
        )
    num_cpus = round(min(1.0, WORKERS_SHARE * cluster.num_cpus / num_workers), 2)
    return ScalingConfig(
        num_workers=num_workers,
        use_gpu=use_gpu,
        resources_per_worker={"CPU": num_cpus, **({"GPU": 1} if use_gpu else {})},
        placement_strategy="SPREAD",
    )


class _Deaths(ray.train.UserCallback):  # type: ignore[misc]
    """Tells the driver why workers start anew; called in Ray Train's own process."""

    def __init__(self, news: Queue) -> None:
        self._news = news

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """One line for all workers; most die of the first one's death."""
        reasons = {rank: type(error).__name__ for rank, error in sorted(worker_exceptions.items())}
        self._news.put(("failed", f"workers died ({reasons}); they start anew from the last epoch's end"))


def _run_config(storage_uri: str, news: Queue) -> RunConfig:
    parent, name = split_object_uri(storage_uri)
    filesystem, path = arrow_filesystem(parent) if is_s3(parent) else (None, parent)
    return RunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=MAX_FAILURES),
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        callbacks=[_Deaths(news)],
    )


def _shard_name(rank: int) -> str:
    return f"worker-{rank}"


def _work(config: dict[str, Any]) -> str | None:
    """One worker's whole life. An error that every retry would meet again is returned, not raised."""
    task: WorkerTask = config["task"]
    torch.set_num_threads(task.threads)
    rank = ray.train.get_context().get_world_rank()
    parts = _my_windows(task, rank)
    saved = _saved_state()
    if saved is not None and rank == 0:
        task.news.put(("resumed", len(read_history(read_state(saved)))))
    try:
        fit(
            task.bundle.network,
            task.bundle.normaliser,
            parts["train"],
            parts["validation"],
            task.fit,
            device=str(get_device()),
            saved=saved,
            after_epoch=lambda state: _report(state, task.news if rank == 0 else None),
        )
    except RmsaiError as error:
        return str(error)
    return None


def _my_windows(task: WorkerTask, rank: int) -> dict[str, Any]:
    shard = ray.train.get_dataset_shard(_shard_name(rank))
    batches = shard.iter_batches(batch_size=None, batch_format="pyarrow")
    return gather(batches, task.sizes_by_rank[rank], task.bundle.spec.window_samples)


def _saved_state() -> bytes | None:
    checkpoint = ray.train.get_checkpoint()
    return None if checkpoint is None else _read_checkpoint(checkpoint)


def _read_checkpoint(checkpoint: Checkpoint) -> bytes:
    with checkpoint.as_directory() as folder:
        return (Path(folder) / STATE_NAME).read_bytes()


def _report(state: TrainingState, news: Queue | None) -> None:
    """Every worker calls it, and waits here for the others; the first one writes the checkpoint."""
    metrics = asdict(state.history[-1])
    if news is None:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STATE_NAME).write_bytes(state.to_bytes())
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
    news.put(("epoch", metrics))


@contextmanager
def _listening(on_news: OnNews) -> Iterator[Queue]:
    """A queue to the driver, read by a thread; an epoch that was done twice is told once."""
    news, ended = Queue(actor_options={"num_cpus": 0}), threading.Event()
    told: set[int] = set()

    def listen() -> None:
        while True:
            over = ended.is_set()  # asked first, so that nothing put before the end is missed
            try:
                kind, value = news.get(timeout=POLL_S)
            except Empty:
                if over:
                    return
                continue
            if kind != "epoch":
                on_news(kind, value)
            elif value["epoch"] not in told:
                told.add(value["epoch"])
                on_news(kind, Epoch(**value))

    with ThreadPoolExecutor(max_workers=1) as thread:
        listening = thread.submit(listen)
        try:
            yield news
        finally:
            ended.set()
            listening.result()  # an error in on_news comes out here
            news.shutdown(force=True)
