"""Fetching from a local S3 server: ours against s3fs, its memory, and how it stands faults; then packs.

    python -m benchmarks.fetching [--objects 10000] [--repeat 3] [--output result.json]

Objects of 100 KB are stored once and read whole, in the order of their names, by a consumer that drops them;
by all ways in turn, a fifth of the objects at a time. Faults are dealt by a proxy in front of the server: 5 %
of all GETs are answered with 503, 5 % with silence, and of 5 % the body breaks off.

Packs hold simulated archives of ten events, and are read with one thread from memory, as the archives are.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import s3fs
import tyro

from benchmarks._flaky_proxy import Fault, Request, flaky_proxy
from benchmarks._measure import interleaved, medians, report
from benchmarks.parsing import idiomatic
from cluster.local_s3 import local_s3
from rmsai_ray.archives import packs
from rmsai_ray.archives.packing import content_of
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.backfill.fetch import Fetcher
from rmsai_ray.storage import Store

OBJECT_BYTES = 100_000
BATCH = 500
EVENTS_PER_ARCHIVE, EVENTS_PER_LISTED_ARCHIVE = 10, 1
SLICES = 5
PERCENT_OF_EACH_FAULT = 5

Values = dict[str, float]


@dataclass
class Options:
    """What to measure."""

    objects: int = 10_000
    faulty_objects: int = 1_000
    archives: int = 40
    packs: int = 1_000
    repeat: int = 3
    output: Path | None = None


def main(options: Options) -> None:
    """Measures, prints, writes."""
    with local_s3() as server:
        os.environ.update(server.env())
        uri = server.create_bucket("bench")
        store_objects(f"{uri}/objects", options.objects)
        store_objects(f"{uri}/faulty", options.faulty_objects)
        values, ratios = fetching(uri, options)
        memory = in_child(extra_bytes, f"{uri}/objects")
        faults = against_faults(server.endpoint, f"{uri}/faulty")
        values |= memory | faults | listing(f"{uri}/packs", options.packs)
    of_packs, pack_ratios = reading_packs(options)
    report("Fetching and packs", values | of_packs, ratios | pack_ratios, options.output)


def store_objects(uri: str, count: int) -> None:
    """Random bytes, so that nobody compresses them."""
    store = Store(uri)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"{number:06}.h5", os.urandom(OBJECT_BYTES)), range(count)))


def fetching(uri: str, options: Options) -> tuple[Values, Values]:
    """Objects per second and CPU time of each way."""
    names = [f"{uri.removeprefix('s3://')}/objects/{number:06}.h5" for number in range(options.objects)]
    filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": os.environ["AWS_ENDPOINT_URL"]})
    fetcher = Fetcher(open_source(f"{uri}/objects"), attempts=3, max_archive_bytes=1 << 28)

    def ours(few: list[str]) -> int:
        rows = [{"uri": f"s3://{name}", "size": OBJECT_BYTES} for name in few]
        return sum(len(fetched.content or b"") for _, fetched in fetcher.fetch_all(rows))

    def cat(few: list[str]) -> int:
        batches = [few[at : at + BATCH] for at in range(0, len(few), BATCH)]
        return sum(len(content) for batch in batches for content in filesystem.cat(batch).values())

    def read_open(name: str) -> int:
        with filesystem.open(name) as file:
            return len(file.read())

    def opened(few: list[str]) -> int:
        with ThreadPoolExecutor(16) as pool:
            return sum(pool.map(read_open, few))

    cpu_ms: dict[str, list[float]] = defaultdict(list)

    def rate(name: str, way: Callable[[list[str]], int]) -> float:
        few = names[len(cpu_ms[name]) % SLICES :: SLICES]
        started, cpu_started = time.perf_counter(), time.process_time()
        assert way(few) == len(few) * OBJECT_BYTES
        cpu_ms[name].append((time.process_time() - cpu_started) / len(few) * 1e3)
        return len(few) / (time.perf_counter() - started)

    ways = {"ours": ours, "s3fs cat": cat, "s3fs open": opened}
    measures = {name: partial(rate, name, way) for name, way in ways.items()}
    rates = medians(interleaved(SLICES, measures))
    cpu = medians(cpu_ms)
    values = {f"{name} (objects/s)": value for name, value in rates.items()}
    values |= {f"{name} (CPU ms per object)": value for name, value in cpu.items()}
    peer, peer_cpu = max(rates["s3fs cat"], rates["s3fs open"]), min(cpu["s3fs cat"], cpu["s3fs open"])
    ratios = {"ours / s3fs": rates["ours"] / peer, "s3fs CPU / ours": peer_cpu / cpu["ours"]}
    return values, ratios


def contents(uri: str) -> Any:
    """The bytes of every archive, None where they never came."""
    source = open_source(uri)
    rows = [{"uri": ref.uri, "size": ref.size} for ref in source.list_archives()]
    rows.sort(key=lambda row: row["uri"])
    fetcher = Fetcher(source, attempts=3, max_archive_bytes=1 << 28)
    return (fetched.content for _, fetched in fetcher.fetch_all(rows))


def in_child(work: Callable[..., Values], *arguments: Any) -> Values:
    """Runs it in a fresh process, which inherits the environment."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def extra_bytes(uri: str) -> Values:
    """The most memory that fetching took, beyond what the process had with its client and a listing."""
    found = contents(uri)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for _ in found:
        pass
    return {"extra memory of ours (MiB)": (resident("VmHWM") - before) / 1024}


def resident(name: str) -> int:
    """KiB, from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def against_faults(endpoint: str, uri: str) -> Values:
    """Objects that never came, and whether any was fetched again without need."""

    def choose(request: Request) -> Fault:
        if not request.path.endswith(".h5"):
            return None
        dice = zlib.crc32(f"{request.path}?{request.num_before}".encode()) % 100 // PERCENT_OF_EACH_FAULT
        return {0: "503", 1: "hang", 2: "short"}.get(dice)

    with flaky_proxy(endpoint, choose) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        values = in_child(count_failures, uri)
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        gets = sum(count for (_, path), count in proxy.requests.items() if path.endswith(".h5"))
        faults = proxy.faults.total() - proxy.faults["none"]
    objects = values.pop("objects")
    return values | {
        "objects fetched through faults": objects,
        "faults (503, silence, broken bodies)": faults,
        "GETs without a fault, per object": (gets - faults) / objects,
    }


def count_failures(uri: str) -> Values:
    """How many objects came, and how many did not come whole."""
    started = time.perf_counter()
    sizes = [len(content or b"") for content in contents(uri)]
    return {
        "objects": len(sizes),
        "failed objects under faults": sum(size != OBJECT_BYTES for size in sizes),
        "seconds under faults": time.perf_counter() - started,
    }


def listing(uri: str, count: int) -> Values:
    """Seconds for the archives in so many packs."""
    name, raw = simulate_archive(0, EVENTS_PER_LISTED_ARCHIVE, seed=0)
    pack, store = packs.build_pack([content_of(name, raw, "etag")[0]]), Store(uri)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"{number:06}.pack.h5", pack), range(count)))
    started = time.perf_counter()
    assert len(list(open_source(uri).list_archives())) == count
    return {f"listing {count:,} packs (s)": time.perf_counter() - started}


def reading_packs(options: Options) -> tuple[Values, Values]:
    """Events per CPU-second, and bytes, of packs and of the archives in them."""
    archives = [simulate_archive(i, EVENTS_PER_ARCHIVE, seed=0) for i in range(options.archives)]
    pack = packs.build_pack([content_of(name, raw, "etag")[0] for name, raw in archives])
    num_events = options.archives * EVENTS_PER_ARCHIVE

    def packed() -> None:
        for name, member in packs.read_index(pack, len(pack)).items():
            content = pack[member.start : member.start + member.num_bytes]
            read_archive(content, name, archive_id=member.archive_id)

    def loose() -> None:
        for name, raw in archives:
            read_archive(raw, name, archive_id="given")

    def rate(way: Callable[[], object]) -> float:
        started = time.process_time()
        way()
        return num_events / (time.process_time() - started)

    ways: dict[str, Callable[[], object]] = {
        "a pack": packed,
        "archives": loose,
        "archives, idiomatic h5py": lambda: [idiomatic(raw) for _, raw in archives],
    }
    rates = medians(interleaved(2 * options.repeat, {name: partial(rate, way) for name, way in ways.items()}))
    values = {f"{name} (events per CPU-second)": value for name, value in rates.items()}
    ratios = {
        "pack / archives": rates["a pack"] / rates["archives"],
        "pack / idiomatic h5py": rates["a pack"] / rates["archives, idiomatic h5py"],
        "bytes of a pack / of its archives": len(pack) / sum(len(raw) for _, raw in archives),
    }
    return values, ratios


if __name__ == "__main__":
    main(tyro.cli(Options))
