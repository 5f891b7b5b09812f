from __future__ import annotations

from pathlib import Path

import pytest

from rmsai_ray.backfill.bounds import binding_bound
from rmsai_ray.backfill.report import Summary
from rmsai_ray.encoding.flops import flops_per_window, sgemm_flops_per_s
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.storage import Store
from rmsai_ray.tables import parts
from tests.small_tables import windows


def summary(**seconds: float) -> Summary:
    found = Summary()
    found.counts.update(windows=700)
    found.seconds.update({"read": 0.1, "encode": 0.1, "write": 0.1} | seconds)
    found.num_bytes.update(read=10**7)
    return found


def test_operations_are_counted_layer_by_layer() -> None:
    recurrent = untrained_model("rmsai-140x128").network
    per_step = 4 * 256 * (1 + 256) + 4 * 128 * (256 + 128) + 4 * 128 * (128 + 128) + 4 * 256 * (128 + 256)
    assert flops_per_window(recurrent) == 2 * 140 * (per_step + 256)


def test_a_core_multiplies_at_a_plausible_rate() -> None:
    assert 1e9 < sgemm_flops_per_s(0.05) < 1e13


@pytest.mark.parametrize("stage", ["read", "encode", "write"])
def test_the_slowest_stage_is_set_beside_its_bound(tmp_path: Path, stage: str) -> None:
    lake, bundle = Store(str(tmp_path)), untrained_model("framed-2400x64")
    rows = windows("u1", "a", 20)
    parts.write_part(lake, parts.part_key("windows", bundle.model_id, "u1", "2026-10"), rows)
    bound = binding_bound(summary(**{stage: 50.0}), lake, bundle, on_gpu=False)
    assert bound is not None
    assert bound.stage == stage
    assert 0 < bound.share < 1
    assert str(bound).startswith(f"{stage}, at ")
    slower = binding_bound(summary(**{stage: 500.0}), lake, bundle, on_gpu=False)
    assert slower is not None
    assert slower.done_per_s == pytest.approx(bound.done_per_s / 10)


def test_a_core_is_no_bound_of_a_gpu(tmp_path: Path) -> None:
    bundle = untrained_model("framed-2400x64")
    assert binding_bound(summary(encode=9.0), Store(str(tmp_path)), bundle, on_gpu=True) is None
    assert binding_bound(Summary(), Store(str(tmp_path)), bundle, on_gpu=False) is None
