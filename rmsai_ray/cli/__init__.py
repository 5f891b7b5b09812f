"""The ``rmsai`` command: an analyst's questions to a lake, from a terminal or a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import tyro

from rmsai_ray.cli.commands import Command
from rmsai_ray.cli.output import write
from rmsai_ray.errors import ConfigError, RmsaiError
from rmsai_ray.scrubbing import scrub
from rmsai_ray.terminal import printable

DESCRIPTION = "Asks a lake of embeddings, scores and events. Every answer is about one model."


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 1 anything else that went wrong, a failed check included."""
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    try:
        command = tyro.cli(Command, prog="rmsai", description=DESCRIPTION, args=argv, config=config)
        answer = command.answer()
        write(answer, as_json=command.json, csv=command.csv)
        sys.stdout.flush()
    except RmsaiError as error:
        sys.stderr.write(printable(scrub(f"rmsai: {error}\n"), keep="\n"))
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:  # the reader had enough, e.g. `rmsai … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0 if answer.ok else 1
