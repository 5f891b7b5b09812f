"""What archives say is shown, and never obeyed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from rmsai_ray.archives.hostile_hdf5 import ESCAPES, FORMAT, MARKUP, SHELL, SQL, TRAVERSAL
from rmsai_ray.backfill.report import Summary, print_summary
from rmsai_ray.errors import StorageError
from rmsai_ray.job import run
from rmsai_ray.terminal import printable

HOSTILE = (SQL, SHELL, MARKUP, FORMAT, ESCAPES, TRAVERSAL, "\u202eevil", "\ud800", "\x9b31m", "a\rb")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A job that asks for nothing."""


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_left_to_obey(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert printable(shown) == shown
    assert (shown == text) == text.isprintable()


def test_line_ends_can_be_kept() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("condition", HOSTILE)
def test_a_condition_is_no_markup_of_the_report(condition: str) -> None:
    summary = Summary()
    summary.counts["windows"] = 1
    summary.windows_by[f"{condition}\tECG1"] = 1
    buffer = io.StringIO()
    console = Console(file=buffer, width=200)
    print_summary(console, summary, listing={}, places={}, elapsed_s=1.0)
    assert "\x1b" not in buffer.getvalue()
    assert printable(condition) in buffer.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_that_quotes_an_archive_is_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: Config) -> None:
        raise StorageError(f"cannot read {text}")

    assert run(Config, fail, presets={"demo": Config(), "other": Config()}, argv=[]) == 1
    shown = printable(text, keep="\n").replace("\n", "")
    assert shown in capsys.readouterr().err.replace("\n", "")
