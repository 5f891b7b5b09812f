"""Unit tests run without a cluster: whatever starts Ray here fails with a hint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest
import ray


@pytest.fixture(scope="session", autouse=True)
def _no_ray() -> Iterator[None]:
    """Let ``ray.init`` raise, also when it is called by ``.remote()`` or by a dataset behind the scenes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", _refuse)
        yield


def _refuse(*_args: object, **_kwargs: object) -> NoReturn:
    raise AssertionError("a unit test started Ray: test the plain class, or move the test to tests/cluster")
