"""Archives with random damage, for as long as it is told: only ArchiveError may come of them, and in time.

    python -m benchmarks.fuzz --seconds 60 --seed 1 [--failures /tmp/fuzz] [--replay FILE]

Valid archives of every format (HDF5 in its oldest and newest layout, packed, packs) and the hostile ones are
changed byte by byte and by structure: addresses and lengths in trees, tables, heaps and headers are set to
each other's, to odd and to huge values; texts of JSON are torn apart. Each file is read as a backfill reads
it, down to the rows of the lake. What crashes, hangs or exceeds a limit is saved, to be seen again.
"""

from __future__ import annotations

import hashlib
import io
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import tyro

from benchmarks._reading import Reading, measured
from rmsai_ray.archives import packs
from rmsai_ray.archives.guard import close_parser
from rmsai_ray.archives.hostile import hostile_files
from rmsai_ray.archives.hostile_hdf5 import plain
from rmsai_ray.archives.limits import MEBIBYTE, Limits
from rmsai_ray.archives.packing import content_of, pack_archive
from rmsai_ray.archives.validate import validate

NAME = "PT9499_2026-10.h5"
LIMITS = Limits(seconds=2.0, memory_bytes=128 * MEBIBYTE)
SLACK_MIB = 96.0
"""Of both processes, beside what an archive may have: interpreters, rows, and what the kernel counts late."""
SLACK_S = 10.0
HANGS_S = 120.0
"""Twice the patience with a parser, its start, and time for a machine with other things to do."""
SIGNATURES = (
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"GCOL",
    b"OHDR",
    b"FRHP",
    b"FHDB",
    b"BTHD",
    b"BTLF",
    b"OCHK",
    b"FADB",
)
ODD_VALUES = (
    0,
    1,
    7,
    8,
    255,
    1 << 15,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 62,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
JSON_PIECES = (rb'[ { } ] null -1 1e999 NaN "\ud800" {} [] true "" ' + b"9" * 50).split()
MOST_CHANGES = 4


@dataclass
class Options:
    """What to try."""

    seconds: float = 60.0
    """How long."""
    seed: int = 0
    """The same seed tries the same files in the same order."""
    failures: Path = Path("fuzz-failures")
    """Where files go that did harm."""
    replay: Path | None = None
    """Such a file, to be read once more."""


def main(options: Options) -> None:
    """Tries, saves what fails, says what came of all; exit code 1 where anything failed."""
    if options.replay is not None:
        sys.stdout.write(f"{attempt(options.replay.read_bytes(), options.replay.name.partition('-')[2])}\n")
        return
    started, outcomes, num_failed = time.monotonic(), Counter[str](), 0
    randomly = random.Random(options.seed)
    while time.monotonic() - started < options.seconds:
        name, raw = damaged(randomly)
        outcome = attempt(raw, name)
        outcomes[outcome.partition("\n")[0]] += 1
        if outcome.startswith("FAILED"):
            num_failed += 1
            save(options.failures, name, raw, outcome)
    close_parser()
    for outcome, count in outcomes.most_common():
        sys.stdout.write(f"{count:8,}  {outcome}\n")
    sys.stdout.write(f"{outcomes.total():8,}  files in all, {num_failed} of them did harm\n")
    raise SystemExit(1 if num_failed else 0)


def attempt(raw: bytes, name: str) -> str:
    """One line about a file; the first word is FAILED where it does harm."""
    try:
        reading = measured(raw, name, LIMITS)
        if hashlib.blake2b(raw).digest()[0] < 26:  # a tenth of them
            validate(raw, name, "strict", LIMITS)
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"FAILED: {traceback.format_exc(limit=-1).splitlines()[-1]:.150}\n{traceback.format_exc()}"
    return excess(reading) or (", ".join(reading.reasons) or "read")


def excess(reading: Reading) -> str | None:
    """What a file took too much of."""
    most_mib = LIMITS.memory_bytes / MEBIBYTE + SLACK_MIB
    if max(reading.worker_mib, reading.parser_mib) > most_mib:
        return f"FAILED: memory\n{reading}"
    if reading.cpu_s > LIMITS.seconds + SLACK_S or reading.elapsed_s > HANGS_S:
        return f"FAILED: time\n{reading}"
    return None


def save(folder: Path, name: str, raw: bytes, outcome: str) -> None:
    """Writes the file, and why, where ``--replay`` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.blake2b(raw, digest_size=6).hexdigest()
    (folder / f"{key}-{name}").write_bytes(raw)
    (folder / f"{key}.txt").write_text(outcome)


def damaged(randomly: random.Random) -> tuple[str, bytes]:
    """A name and a file, one of :func:`corpus` with some changes."""
    kind = randomly.choice(sorted(corpus()))
    name, raw = corpus()[kind]
    content = bytearray(raw)
    for _ in range(randomly.randint(1, MOST_CHANGES)):
        if content:
            randomly.choice(CHANGES)(content, randomly)
    return name, bytes(content)


@cache
def corpus() -> dict[str, tuple[str, bytes]]:
    """Files to begin with, by kind; the good ones count more often than each of the hostile ones."""
    small = {"oldest": _small(), "newest": _small(libver="latest"), "plain": plain()}
    found = {f"{kind} {i}": (NAME, raw) for kind, raw in small.items() for i in range(12)}
    for kind, raw in small.items():
        packed = pack_archive(raw, NAME).joined() if kind != "newest" else None
        pack = packs.build_pack([content_of(NAME, raw, "etag")[0], content_of(f"b/{NAME}", plain(), "e")[0]])
        for i in range(12):
            found[f"pack of {kind} {i}"] = (f"a{packs.SUFFIX}", pack)
            if packed:
                found[f"packed {kind} {i}"] = (NAME, packed)
    for kind, file in hostile_files().items():
        if len(file.content) < MEBIBYTE:
            found[kind] = (file.file_name, file.content)
    return found


def _small(**options: str) -> bytes:
    """An archive with little but structure, so that damage hits that."""
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(plain()), "r") as old, h5py.File(buffer, "w", **options) as file:
        for name, attribute in old["event_1001"].attrs.items():
            file.require_group("event_1001").attrs[name] = attribute
        old.copy("metadata", file)
        for path in ("uuid", "timestamp", "vitals/HR", "vitals/Temp", "ecg/extras"):
            old.copy(f"event_1001/{path}", file.require_group("event_1001"), path)
        for lead in ("ECG1", "aVR"):
            samples = old[f"event_1001/ecg/{lead}"][:400]
            file.create_dataset(f"event_1001/ecg/{lead}", data=samples, chunks=(200,), compression="gzip")
    return buffer.getvalue()


def _flip(content: bytearray, randomly: random.Random) -> None:
    content[randomly.randrange(len(content))] ^= 1 << randomly.randrange(8)


def _byte(content: bytearray, randomly: random.Random) -> None:
    content[randomly.randrange(len(content))] = randomly.choice((0, 1, 2, 0x7F, 0x80, 0xFF))


def _number(content: bytearray, randomly: random.Random) -> None:
    """An odd number, or the place of something, where another number was."""
    width = randomly.choice((2, 4, 8))
    value = randomly.choice((*ODD_VALUES, randomly.randrange(len(content)), len(content)))
    place = randomly.randrange(len(content)) // 4 * 4
    content[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _structure(content: bytearray, randomly: random.Random) -> None:
    """A number near the beginning of one of HDF5's structures; addresses lead to other structures."""
    places = _places(bytes(content))
    if not places:
        return
    place = randomly.choice(places) + randomly.randrange(4, 120)
    value = randomly.choice((*ODD_VALUES, randomly.choice(places), randomly.choice(places)))
    width = randomly.choice((1, 2, 4, 8, 8, 8))
    content[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _places(content: bytes) -> list[int]:
    found = []
    for signature in SIGNATURES:
        place = content.find(signature)
        while place >= 0 and len(found) < 400:
            found.append(place)
            place = content.find(signature, place + 1)
    return found


def _text(content: bytearray, randomly: random.Random) -> None:
    """A piece of JSON where JSON was."""
    place = content.find(randomly.choice((b"[", b"{", b",", b":")), randomly.randrange(len(content)))
    if place >= 0:
        piece = randomly.choice(JSON_PIECES)
        content[place : place + len(piece)] = piece


def _header_text(content: bytearray, randomly: random.Random) -> None:
    """Likewise among the first bytes, where packed archives and packs have their headers."""
    head = bytearray(content[:4000])
    _text(head, randomly)
    content[: len(head)] = head


def _copy(content: bytearray, randomly: random.Random) -> None:
    """One stretch over another."""
    length = min(randomly.choice((8, 24, 40, 328, 544)), len(content))
    source, target = (randomly.randrange(len(content) - length + 1) for _ in range(2))
    content[target : target + length] = content[source : source + length]


def _cut(content: bytearray, randomly: random.Random) -> None:
    if not randomly.randrange(8):
        del content[randomly.randrange(len(content)) :]


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _byte, _number, _number, _structure, _structure, _structure, _text, _header_text, _copy, _cut,
)  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
