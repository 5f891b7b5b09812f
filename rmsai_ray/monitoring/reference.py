"""The reference of a model: what its scores and inputs look like on patients that it was not trained on.

<lake>/drift/model=<model>/reference.npz

Shapes: P patients, F features, B bins, E embedding dimensions.
"""

# ruff: noqa: N815 - arrays carry a shape suffix, in fields too

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from rmsai_ray.errors import ConfigError, LakeError
from rmsai_ray.monitoring.features import FEATURES, Slice, Values, read_values
from rmsai_ray.runs import now
from rmsai_ray.storage import Store, split_object_uri
from rmsai_ray.tables.lake import Lake

FORMAT_VERSION = 1
NUM_BINS = 50

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Profiles of patients: no value and no name of a patient is in it, only shares and a keyed name."""

    model_id: str
    edges: dict[str, Array]
    """Feature → inner edges of its bins, rising; quantiles of the reference's values."""
    profiles: Profiles
    facts: dict[str, Any]
    """Where it comes from: ``source``, ``since``, ``until``, ``num_windows``, ``num_patients``, ``made``."""

    @property
    def num_patients(self) -> int:
        """P."""
        return len(self.profiles.names)


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """One row a patient."""

    names: tuple[str, ...]
    """Hashes of model and patient."""
    shares: dict[str, Array]
    """Feature → share of the patient's values in each bin, (P, B); NaN where there is none."""
    mean_embedding_PE: Array
    scored_by: str


def fit_reference(lake: Lake, rows: Slice, *, train_patients: frozenset[str], source: str) -> Reference:
    """The reference of a lake's rows.

    Args:
        lake: one model's tables.
        rows: which; e.g. those of the first nights.
        train_patients: left out, since a model errs less on those who trained it.
        source: in words, for reports.

    Raises:
        ConfigError: no such row.
    """
    values = read_values(lake, rows, without=train_patients)
    if not values.patients:
        rule = "has no rows there of patients that did not train the model"
        raise ConfigError("lake", lake.uri, rule, "Choose other rows, or backfill more.")
    edges = {name: _edges(values.by_feature[name][1]) for name in FEATURES}
    return Reference(
        model_id=lake.model_id,
        edges=edges,
        profiles=profile(values, edges, lake.model_id),
        facts={
            "source": source,
            "since": _iso(rows.since),
            "until": _iso(rows.until),
            "num_windows": values.num_windows,
            "num_patients": len(values.patients),
            "made": now().isoformat(),
        },
    )


def profile(values: Values, edges: dict[str, Array], model_id: str) -> Profiles:
    """The patients of some values, in the bins of a reference."""
    shares = {}
    for name, inner in edges.items():
        place_N, value_N = values.by_feature[name]
        count_PB = np.zeros((len(values.patients), len(inner) + 1))
        np.add.at(count_PB, (place_N, np.searchsorted(inner, value_N, side="right")), 1.0)
        total_P = count_PB.sum(axis=1, keepdims=True)
        shares[name] = np.where(total_P > 0, count_PB / np.maximum(total_P, 1), np.nan)
    return Profiles(
        names=tuple(
            hashlib.sha256(f"{model_id}/{name}".encode()).hexdigest()[:16] for name in values.patients
        ),
        shares=shares,
        mean_embedding_PE=values.mean_embedding_PE,
        scored_by=values.scored_by,
    )


def reference_key(model_id: str) -> str:
    """Where a lake keeps a model's reference."""
    return f"drift/model={model_id}/reference.npz"


def save_reference(store: Store, reference: Reference, key: str | None = None) -> str:
    """Writes it into a lake, or under another key; returns the key."""
    key = key or reference_key(reference.model_id)
    profiles = reference.profiles
    arrays: dict[str, Any] = {"embedding": profiles.mean_embedding_PE}
    for name, inner in reference.edges.items():
        arrays |= {f"edges/{name}": inner, f"shares/{name}": profiles.shares[name]}
    description = {
        "format_version": FORMAT_VERSION,
        "model_id": reference.model_id,
        "names": profiles.names,
        "scored_by": profiles.scored_by,
        "facts": reference.facts,
    }
    content = io.BytesIO()
    np.savez_compressed(content, description=np.array(json.dumps(description)), **arrays)
    store.put(key, content.getvalue())
    return key


def load_reference(store: Store, model_id: str, uri: str | None = None) -> Reference | None:
    """The reference of a file, or of the lake; None where the lake has none.

    Raises:
        ConfigError: no such file, or it is of another model.
        LakeError: it is no reference of this version.
    """
    if uri is None:
        key = reference_key(model_id)
        content = store.find(key)
        return None if content is None else _parse(content, store.child_uri(key))
    folder, key = split_object_uri(uri)
    content = Store(folder).find(key)
    if content is None:
        raise ConfigError("reference", uri, "is not there", "Make one: jobs/drift.py fit-reference.")
    reference = _parse(content, uri)
    if reference.model_id != model_id:
        rule = f"is of the model {reference.model_id}, and the rows are of {model_id}"
        raise ConfigError("reference", uri, rule, "Make one of this model: jobs/drift.py fit-reference.")
    return reference


def _parse(content: bytes, where: str) -> Reference:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        description = json.loads(str(arrays["description"]))
        if description["format_version"] != FORMAT_VERSION:
            raise LakeError(f"{where}: expected format_version {FORMAT_VERSION}: fit the reference again")
        return Reference(
            model_id=description["model_id"],
            edges={name: arrays[f"edges/{name}"] for name in FEATURES},
            profiles=Profiles(
                names=tuple(description["names"]),
                shares={name: arrays[f"shares/{name}"] for name in FEATURES},
                mean_embedding_PE=arrays["embedding"],
                scored_by=description["scored_by"],
            ),
            facts=description["facts"],
        )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LakeError(f"{where} is no reference: {error!r}. Fit it again") from error


def _edges(value_N: Array) -> Array:
    """Inner edges of bins of equal counts; values that repeat have a bin of their own."""
    if not len(value_N):
        return np.zeros(0)
    edges: Array = np.unique(np.quantile(value_N, np.arange(1, NUM_BINS) / NUM_BINS, method="higher"))
    above: Array = edges[edges > value_N.min()]
    return above


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
