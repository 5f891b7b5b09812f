"""What a reader sees of a file: groups, datasets and their values; changes when readers need more of them."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy.typing as npt

from rmsai_ray.archives.limits import Budget

Scalar = str | int | float | bool
Array = npt.NDArray[Any]

LONGEST_TEXT: Final = 1 << 20


ParsedExtras = tuple[dict[str, Any], tuple[tuple[float, float], ...]]
"""All but the history; the history as (epoch seconds, value), oldest first."""


class UnreadableError(Exception):
    """One item of an archive is damaged, or not of a kind that the format has. It costs that item."""


class Dataset(Protocol):
    """A dataset."""

    @property
    def path(self) -> str:
        """Inside the file."""

    def array(self) -> Array:
        """All samples of a one-dimensional numeric dataset, in the type and byte order they are stored in.

        Raises:
            UnreadableError: it is damaged, or of a foreign kind.
        """

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name, or nothing readable in it."""


class Group(Protocol):
    """A group; all of its links are hard links."""

    @property
    def path(self) -> str:
        """Inside the file; empty for the root."""

    @property
    def budget(self) -> Budget:
        """What the archive may still cost."""

    @property
    def names(self) -> list[str]:
        """In the file's order, which is alphabetical."""

    def __contains__(self, name: object) -> bool: ...

    def group(self, name: str) -> Group | None:
        """The subgroup of that name; None where there is none.

        Raises:
            UnreadableError: it is not a group, or damaged.
        """

    def dataset(self, name: str) -> Dataset | None:
        """The dataset of that name; None where there is none.

        Raises:
            UnreadableError: it is not a dataset, or damaged.
        """

    def scalar(self, name: str) -> Scalar | None:
        """The value of a scalar dataset; None where there is none of that name, or nothing readable in it."""

    def attribute(self, name: str) -> Scalar | None:
        """A scalar attribute; None where there is none of that name, or nothing readable in it."""

    def attributes(self) -> dict[str, Scalar]:
        """All readable scalar attributes."""

    def parsed_extras(self) -> ParsedExtras | None:
        """What the JSON in ``extras`` says, where the file holds it as numbers beside the text; else None."""


def decoded(content: bytes) -> str:
    """Decodes as UTF-8 whatever the file claims: upstream flags UTF-8 as ASCII."""
    return content.decode("utf-8", "replace")
