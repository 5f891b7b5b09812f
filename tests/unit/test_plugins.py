"""What an outside package registers is found by name and used, in a process that never imported it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rmsai_ray.archives.sources import SOURCES, open_source
from rmsai_ray.detection.detectors import DETECTORS
from rmsai_ray.errors import ConfigError
from rmsai_ray.models.base import FAMILIES, build_network
from rmsai_ray.plugins import ENVIRONMENT_VARIABLE, Registry, load_plugins
from tests.measured_windows import normal_windows

OUTSIDE_MODULE = '''
from datetime import UTC, datetime

import numpy as np
from torch import nn

from rmsai_ray.archives.sources import SOURCES, ArchiveRef
from rmsai_ray.detection.detectors import DETECTORS
from rmsai_ray.models.base import FAMILIES, EcgAutoencoder


@FAMILIES.register("toy")
class ToyAutoencoder(EcgAutoencoder):
    """Keeps the first samples of a window, and repeats them."""

    def __init__(self, *, window_samples, embedding_dim, gain):
        super().__init__(window_samples=window_samples, embedding_dim=embedding_dim)
        self.gain = gain

    def _encode(self, x_BT, beats_BT):
        return x_BT[:, : self.embedding_dim] * self.gain

    def _decode(self, z_BE, beats_BT):
        return z_BE.repeat(1, self.window_samples // self.embedding_dim) / self.gain


@DETECTORS.register("toy")
class ToyDetector:
    name = "toy"

    def anomaly_score(self, measured):
        return np.asarray(measured.embedding_NE[:, 0] + measured.mse_N, np.float32)


@SOURCES.register("toy")
class ToySource:
    def __init__(self, uri):
        self._uri = uri

    def list_archives(self):
        modified = datetime(2025, 9, 1, tzinfo=UTC)
        yield ArchiveRef(uri=f"{self._uri}/one.h5", key="one.h5", size=3, etag="1", modified=modified)

    def read(self, uri):
        return uri[-3:].encode()
'''


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    """As in a new process: plugins not looked at yet; and nothing of them afterwards."""
    load_plugins.cache_clear()
    yield
    load_plugins.cache_clear()
    sys.modules.pop("rmsai_toy_plugin", None)
    for registry in (FAMILIES, DETECTORS, SOURCES):
        registry._items.pop("toy", None)  # type: ignore[attr-defined]


@pytest.fixture
def toy_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rmsai_toy_plugin.py").write_text(OUTSIDE_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "rmsai_toy_plugin")


@pytest.mark.usefixtures("toy_plugin")
def test_a_model_family_from_outside_encodes() -> None:
    network = build_network("toy", window_samples=4, embedding_dim=2, architecture={"gain": 2.0})
    embedding, reconstruction = network(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert embedding.tolist() == [[2.0, 4.0]]
    assert reconstruction.tolist() == [[1.0, 2.0, 1.0, 2.0]]


@pytest.mark.usefixtures("toy_plugin")
def test_a_detector_from_outside_scores() -> None:
    detector = DETECTORS.get("toy")()
    windows = normal_windows(2, seed=0)
    expected = windows.embedding_NE[:, 0] + windows.mse_N
    assert detector.anomaly_score(windows).tolist() == expected.tolist()


@pytest.mark.usefixtures("toy_plugin")
def test_an_archive_source_from_outside_lists_and_reads() -> None:
    source = open_source("toy://ward")
    (ref,) = source.list_archives()
    assert ref.uri == "toy://ward/one.h5"
    assert source.read(ref.uri) == b".h5"


@pytest.mark.usefixtures("toy_plugin")
def test_plugins_are_loaded_by_the_first_unknown_name_and_not_before() -> None:
    DETECTORS.get("reconstruction_error")
    assert "rmsai_toy_plugin" not in sys.modules
    DETECTORS.get("toy")
    assert "rmsai_toy_plugin" in sys.modules


def test_an_unknown_name_is_bad_configuration_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=rf"'toy'.*reconstruction_error.*{ENVIRONMENT_VARIABLE}"):
        DETECTORS.get("toy")


def test_a_plugin_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "no_such_module_anywhere")
    with pytest.raises(ConfigError, match="no_such_module_anywhere"):
        DETECTORS.get("toy")


def test_one_name_is_given_once() -> None:
    registry: Registry[object] = Registry("thing")
    one = object()
    assert registry.register("a")(one) is one
    registry.register("a")(one)
    with pytest.raises(ValueError, match="thing 'a' is registered already"):
        registry.register("a")(object())
    assert registry.names() == ["a"]
