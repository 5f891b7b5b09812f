"""The table of the format says what the generator writes, and every code in use is explained."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import h5py

from rmsai_ray.archives import format as archive_format
from rmsai_ray.archives import problems
from tests.upstream_files import VITALS, archive_bytes

PACKAGE = Path(problems.__file__).parent


def stored_as(dataset: h5py.Dataset) -> str:
    text = h5py.check_string_dtype(dataset.dtype)
    if text is None:
        return dataset.dtype.str[1:]
    return "vlen" if text.length is None else "S"


def test_the_table_holds_exactly_what_the_generator_writes() -> None:
    expected = {item.path: item.dtype for item in archive_format.METADATA}
    expected |= {f"event_1001/{item.path}": item.dtype for item in archive_format.EVENT}
    expected |= {f"event_1001/{signal.path}": signal.dtype for signal in archive_format.SIGNALS}
    for name, vital in archive_format.VITALS.items():
        expected |= {f"event_1001/vitals/{name}/{item.path}": item.dtype for item in archive_format.VITAL}
        expected[f"event_1001/vitals/{name}/value"] = vital.dtype

    found: dict[str, str] = {}
    with h5py.File(io.BytesIO(archive_bytes("v3", num_events=1))) as file:
        file.visititems(
            lambda path, item: (
                found.update({path: stored_as(item)}) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert found == expected


def test_the_table_knows_shapes_chunks_and_rates() -> None:
    with h5py.File(io.BytesIO(archive_bytes("v3", num_events=1))) as file:
        for signal in archive_format.SIGNALS:
            dataset = file[f"event_1001/{signal.path}"]
            assert (dataset.shape, dataset.chunks) == ((signal.num_samples,), (signal.chunk_samples,))
            assert file[f"metadata/{signal.rate_field}"][()] == signal.fs


def test_vitals_have_the_generators_units_and_thresholds() -> None:
    assert {name: (vital.units, vital.thresholds) for name, vital in archive_format.VITALS.items()} == {
        name: (units, thresholds) for name, (units, thresholds, *_) in VITALS.items()
    }


def test_the_strict_list_is_that_of_the_original_validator() -> None:
    paths = archive_format.required_paths(["event_1"])

    metadata = [path for path in paths if path.startswith("metadata/")]
    assert len(metadata) == 10
    assert "metadata/max_vital_history" not in metadata
    assert len(paths) == 10 + 2 + 7 + 2 + 8 * 3


def codes_in(path: Path) -> set[str]:
    """First arguments of ``problem(...)`` and ``ArchiveError(...)`` that are literals."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in ("problem", "ArchiveError")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_every_code_that_the_reader_uses_is_explained() -> None:
    files = ["hdf5", "reader", "events", "vitals", "waveforms", "values", "validate"]
    used = set.union(*(codes_in(PACKAGE / f"{name}.py") for name in files))

    assert used
    assert used <= problems.PROBLEMS.keys()
