"""How an answer is written: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rmsai_ray.errors import StorageError
from rmsai_ray.terminal import printable

MAX_TERMINAL_ROWS = 200
PIPE_WIDTH = 240


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The same answer in the shapes that it may be asked for."""

    data: Mapping[str, Any]
    """For ``--json``: keys are stable."""
    rows: pd.DataFrame
    """For ``--csv``."""
    tables: Mapping[str, pd.DataFrame]
    """For a terminal, by title."""
    ok: bool = True
    """False where what was to be checked is not so; exit code 1."""


class VerbGroup:
    """A command with verbs of its own: whatever is asked of it is the verb's to answer."""

    verb: Any

    @property
    def json(self) -> bool:
        """Of the verb."""
        return bool(self.verb.json)

    @property
    def csv(self) -> Path | None:
        """Of the verb."""
        path: Path | None = self.verb.csv
        return path

    def answer(self) -> Answer:
        """The verb's answer."""
        answer: Answer = self.verb.answer()
        return answer


def write(answer: Answer, *, as_json: bool, csv: Path | None) -> None:
    """Writes the answer to standard output; with ``csv`` its rows to that file, ``-`` being standard output.

    Raises:
        StorageError: the file cannot be written.
    """
    if csv is not None and str(csv) == "-":
        answer.rows.to_csv(sys.stdout, index=False)
        return
    if csv is not None:
        _write_csv(answer.rows, csv)
    if as_json:
        sys.stdout.write(json.dumps(jsonable(answer.data), indent=2, allow_nan=False) + "\n")
    elif csv is None:
        _write_tables(answer)


def jsonable(value: Any) -> Any:
    """Plain JSON values: times in ISO form, what is unknown as null.

    Raises:
        TypeError: a value that has no JSON form.
    """
    match value:
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case pd.DataFrame():
            return [jsonable(row) for row in value.to_dict("records")]
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return None if value is pd.NaT else value.isoformat()
        case np.ndarray() | np.generic():
            return jsonable(value.tolist())
        case list() | tuple():
            return [jsonable(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def _write_csv(rows: pd.DataFrame, path: Path) -> None:
    try:
        rows.to_csv(path, index=False)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _write_tables(answer: Answer) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    for title, frame in answer.tables.items():
        console.print(_table(title, frame))
        if len(frame) > MAX_TERMINAL_ROWS:
            console.print(f"… {len(frame) - MAX_TERMINAL_ROWS} more rows; --csv and --json have them all")


def _table(title: str, frame: pd.DataFrame) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left")
    for name, kind in frame.dtypes.items():
        is_number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        table.add_column(Text(str(name)), justify="right" if is_number else "left", overflow="fold")
    for row in frame.head(MAX_TERMINAL_ROWS).itertuples(index=False):
        table.add_row(*(Text(printable(_cell(value))) for value in row))
    return table


def _cell(value: Any) -> str:
    """One value for people; – is unknown."""
    if isinstance(value, datetime) and value is not pd.NaT:
        return f"{value:%Y-%m-%d %H:%M:%S}"
    plain = jsonable(value)
    match plain:
        case None:
            return "–"
        case float():
            return f"{plain:.4g}"
        case dict():
            return ", ".join(f"{key} {item}" for key, item in plain.items())
        case list():
            return ", ".join(map(str, plain))
    return str(plain)
