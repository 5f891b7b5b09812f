"""One evaluation, top to bottom: protocol → archives → guards → scores → figures → report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmsai_ray import ids
from rmsai_ray.archives.sources import open_source
from rmsai_ray.encoding.encoder import limit_threads
from rmsai_ray.evaluation import beats, conditions, single_beats
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.corpus import Corpus, read_corpus
from rmsai_ray.evaluation.demo import make_demo_archives
from rmsai_ray.evaluation.guards import open_test_part
from rmsai_ray.evaluation.labels import select
from rmsai_ray.evaluation.lake import look_at_lake
from rmsai_ray.evaluation.measuring import Measurer
from rmsai_ray.evaluation.models import Contest, contests
from rmsai_ray.evaluation.pictures import draw_reconstructions, draw_results
from rmsai_ray.evaluation.protocol import Protocol, load_protocol
from rmsai_ray.evaluation.report import write_report
from rmsai_ray.evaluation.windows_protocol import (
    moment_results,
    probe_results,
    score_all,
    stability_results,
)
from rmsai_ray.models.checkpoint import load_model
from rmsai_ray.runs import RunRecord, code_version, command_line
from rmsai_ray.storage import Store

log = logging.getLogger(__name__)

NO_RESULT = ("output", "threads", "reopen_test", "demo")
"""Options that change no figure, and so not the run's identity."""


def evaluate(config: EvaluateConfig) -> Path:
    """Runs a protocol; returns the report's folder. The same run again finds its report and does nothing.

    Raises:
        ConfigError: seen patients, a test part that was used before, archives that do not fit.
    """
    started = time.perf_counter()
    limit_threads(config.threads)
    protocol = load_protocol(config.protocol)
    store = Store(str(Path(config.output).absolute()))
    if config.demo:
        make_demo_archives(config.archives[0])
    run_id = _run_id(config, protocol)
    folder = Path(store.uri) / run_id
    if (folder / "report.json").is_file():
        log.info("Nothing to do: the report is in %s", folder)
        return folder
    record = RunRecord(run_id=run_id, job="evaluate", argv=command_line(), config=asdict(config))
    record.begin(store)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        results = _run(config, protocol, store, run_id, folder)
    except BaseException as error:
        record.finish(store, "failed", repr(error))
        raise
    results["seconds"] = round(time.perf_counter() - started, 1)
    write_report(folder, protocol, results)
    record.facts = {name: results[name] for name in ("models", "data_hash")}
    record.counts = results.get("counts", {})
    record.finish(store, "done")
    log.info("Report: %s", folder / "report.md")
    return folder


def _run_id(config: EvaluateConfig, protocol: Protocol) -> str:
    """Covers what was asked, of which weights and which archives, by which code."""
    options = {name: value for name, value in asdict(config).items() if name not in NO_RESULT}
    archives = (ref for uri in config.archives for ref in open_source(uri).list_archives())
    options |= {
        "protocol": asdict(protocol),
        "models": _model_ids(config, protocol),
        "archives": sorted((ref.key, ref.etag) for ref in archives),
        "code": code_version(),
    }
    return ids.run_id(f"evaluate-{protocol.name}", options)


def _model_ids(config: EvaluateConfig, protocol: Protocol) -> list[str]:
    if protocol.kind == "single-beats":
        return []
    places: list[str | Path] = [config.model]
    if config.fold_models:
        places += sorted(Path(config.fold_models).glob("fold-*"))
    return [load_model(place).model_id for place in places]


def _run(
    config: EvaluateConfig, protocol: Protocol, store: Store, run_id: str, folder: Path
) -> dict[str, Any]:
    """Everything that the report says."""
    if protocol.kind == "single-beats":
        return single_beats.run(config, protocol, folder, _opener(config, protocol, store, run_id))
    bundle = load_model(config.model)
    corpus = select(read_corpus(config.archives, bundle.spec), protocol)
    log.info("%d moments of %d patients", len(corpus.moments), len(corpus.patients))
    found = contests(
        corpus,
        protocol.split,
        bundle,
        fold_models=config.fold_models,
        retrain_epochs=config.retrain,
        unseen_only=config.unseen_only,
        seed=config.seed,
        keep=folder / "models",
    )
    uses = _opener(config, protocol, store, run_id)(corpus.data_hash)
    results = {
        "models": [contest.bundle.model_id for contest in found],
        "data_hash": corpus.data_hash,
        "left_out": corpus.left_out,
        "test_uses": uses,
        "splits": {contest.round.name: contest.round.to_json() for contest in found},
    }
    answer = beats.run if protocol.kind == "beats" else _moments
    return results | answer(corpus, found, protocol, config, folder)


def _moments(
    corpus: Corpus, found: list[Contest], protocol: Protocol, config: EvaluateConfig, folder: Path
) -> dict[str, Any]:
    measurer = Measurer(corpus.windows, seed=config.seed)
    scored = score_all(corpus, found, protocol, measurer, config)
    scored.moments.drop(columns="facts").assign(**scored.scores).to_parquet(folder / "scores.parquet")
    results = moment_results(scored, protocol, config, float(corpus.moments["duration_s"].max()))
    if protocol.kind == "conditions":
        results |= conditions.condition_results(corpus, found[0], scored, protocol, config)
    if protocol.probes:
        results["probes"] = probe_results(corpus, found[0], protocol, measurer, config)
    results["shift_stability"] = stability_results(corpus, found, protocol, config)
    draw_results(folder, scored, protocol, results)
    draw_reconstructions(folder, corpus, found[0], measurer)
    results["lake"] = look_at_lake(folder, config.lake, config.lake_model) if config.lake else None
    return results


def _opener(
    config: EvaluateConfig, protocol: Protocol, store: Store, run_id: str
) -> Callable[[str], list[dict[str, Any]]]:
    """Asks for the test part of the data with a hash, last thing before it is scored."""

    def open_part(data_hash: str) -> list[dict[str, Any]]:
        if not protocol.sealed:
            return []
        return open_test_part(
            store, protocol=protocol.name, data_hash=data_hash, run_id=run_id, reopen=config.reopen_test
        )

    return open_part
