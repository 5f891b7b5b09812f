"""What counts as positive: of moments, and of records by diagnosis and rhythm.

Shapes: U moments, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rmsai_ray.archives.labels import NORMAL
from rmsai_ray.archives.scp import NORM, RHYTHM_CODES, SUPERCLASSES, superclasses
from rmsai_ray.errors import ConfigError
from rmsai_ray.evaluation.corpus import Corpus
from rmsai_ray.evaluation.protocol import Protocol

PROBE_CLASSES = {"superclasses": SUPERCLASSES, "rhythms": RHYTHM_CODES}


def select(corpus: Corpus, protocol: Protocol) -> Corpus:
    """The moments that take part, with the protocol's idea of normal."""
    kept = corpus.of_moments(~of_records(corpus, protocol.left_out_records))
    return _pure_norm(kept) if protocol.normality == "scp" else kept


def of_records(corpus: Corpus, records: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which moments are of recordings with these names, (U,)."""
    names = corpus.moments["facts"].map(lambda facts: str(facts.get("record", "")))
    return names.isin(records).to_numpy()


def _pure_norm(corpus: Corpus) -> Corpus:
    """Normal is a record whose only superclass is NORM, and whose rhythm is no unusual one."""
    codes = scp_codes(corpus)
    is_normal_U = np.array([superclasses(some) == {NORM} for some in codes])
    is_normal_U &= (corpus.moments["condition"] == NORMAL).to_numpy()
    return replace(
        corpus,
        moments=corpus.moments.assign(is_normal=is_normal_U),
        windows=replace(corpus.windows, is_normal_N=is_normal_U[corpus.moment_N]),
    )


def scp_codes(corpus: Corpus) -> list[dict[str, float]]:
    """Statements of every moment.

    Raises:
        ConfigError: the recordings have none.
    """
    found = [facts.get("scp_codes") for facts in corpus.moments["facts"]]
    if any(codes is None for codes in found):
        raise ConfigError(
            "archives", found.count(None), "moments carry no PTB-XL statements", "Import PTB-XL's records."
        )
    return [codes for codes in found if codes is not None]


def class_matrix(corpus: Corpus, probe: str) -> npt.NDArray[np.bool_]:
    """Which moment is of which class of a probe, (U, C)."""
    codes = scp_codes(corpus)
    if probe == "superclasses":
        return np.array([[name in superclasses(some) for name in SUPERCLASSES] for some in codes])
    return np.array([[name in some for name in RHYTHM_CODES] for some in codes])
