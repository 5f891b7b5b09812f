"""Plans packs of many small archives, and archives out of packs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath

from rmsai_ray import ids
from rmsai_ray.archives import packs
from rmsai_ray.archives.format import FILE_STEM
from rmsai_ray.archives.packing import content_as_it_is, content_of, unpack_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import ArchiveRef, ObjectStoreSource, open_source
from rmsai_ray.corpus.produce import Item, Made, Plan, produce
from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store

FETCHES_IN_FLIGHT = 8
DEMO_ARCHIVES, DEMO_EVENTS = 12, 2


@dataclass(frozen=True, kw_only=True)
class RepackConfig:
    """Packs many archives into few objects, which are read several times faster; or unpacks them again."""

    archives: str
    """Where the archives, or with --unpack the packs, are: a folder or s3://bucket/prefix."""
    output: str
    """Where the packs, or with --unpack the archives, go: a folder or s3://bucket/prefix."""
    pack_bytes: int = 8 << 20
    """Archive bytes per pack, which is fetched with one request."""
    unpack: bool = False
    """The way back: for every archive that was packed one with the same groups, datasets and attributes."""
    demo: bool = False
    """First simulate a few archives, if there are none."""

    def __post_init__(self) -> None:
        if self.pack_bytes < 1:
            raise ConfigError("pack_bytes", self.pack_bytes, "must be positive", "Give more.")


def repack(config: RepackConfig) -> None:
    """Packs the archives that no pack of the output holds yet, or unpacks those that are not there yet.

    An archive that has changed since it was packed goes into another pack, and the old one keeps its old
    content: pack what does not change any more.

    Raises:
        ConfigError: there is no such folder, or an archive lies in two packs.
    """
    if config.demo:
        _make_demo_archives(config.archives)
    if config.unpack:
        produce(_unpacking(config), config.output)
    else:
        produce(_packing(config), config.output)


def make_pack(archives_uri: str, refs: Sequence[ArchiveRef]) -> Made:
    """The bytes of one pack; its notes name the archives that lie in it as they were."""
    source = open_source(archives_uri)
    with ThreadPoolExecutor(FETCHES_IN_FLIGHT) as pool:
        contents = pool.map(source.read, [ref.uri for ref in refs])
        raws = dict(zip([ref.key for ref in refs], contents, strict=True))
    found = {ref.key: content_of(ref.key, raws[ref.key], ref.etag) for ref in refs}
    while True:
        try:
            made = packs.build_pack([content for content, _ in found.values()])
        except packs.MisplacedError as misplaced:
            content, _ = found[str(misplaced)]
            found[content.name] = (
                content_as_it_is(content.name, raws[content.name], content.etag),
                "HDF5 mixes up its small blocks",
            )
        else:
            notes = {name: f"kept as it is: {reason}" for name, (_, reason) in found.items() if reason}
            return Made(made, notes)


def make_archive(archives_uri: str, uri: str) -> bytes:
    """The bytes of one archive that lies in a pack."""
    return unpack_archive(open_source(archives_uri).read(uri))


def _packing(config: RepackConfig) -> Plan[Sequence[ArchiveRef]]:
    refs = [
        ref
        for ref in open_source(config.archives).list_archives()
        if not ref.key.endswith(packs.SUFFIX) and not packs.is_member(ref.uri)
    ]
    present = list(ObjectStoreSource(Store(config.output).uri).list_packs())
    held = {(member.name, member.etag) for members in present for member in members}
    todo = [ref for ref in refs if (ref.key, ref.etag) not in held]
    return Plan(
        job="repack",
        options={"pack_bytes": config.pack_bytes},
        items=[Item(key=_pack_name(group), source=group) for group in _groups(todo, config.pack_bytes)],
        make=partial(make_pack, config.archives),
        noun="packs",
        num_present=len(present),
    )


def _groups(refs: Sequence[ArchiveRef], pack_bytes: int) -> Iterator[list[ArchiveRef]]:
    """Archives of one month lie together; a pack closes before it would outgrow its size."""
    for _, month in groupby(sorted(refs, key=lambda ref: (_period(ref), ref.key)), _period):
        group: list[ArchiveRef] = []
        for ref in month:
            if group and sum(each.size for each in group) + ref.size > pack_bytes:
                yield group
                group = []
            group.append(ref)
        yield group


def _period(ref: ArchiveRef) -> str:
    match = FILE_STEM.fullmatch(PurePosixPath(ref.key).stem)
    return match["period"] if match else "unknown"


def _pack_name(group: Sequence[ArchiveRef]) -> str:
    """The same for the same archives, whenever they are packed."""
    content = ids.digest(part for ref in group for part in (ref.key, str(ref.size), ref.etag))
    return f"{_period(group[0])}-{content}{packs.SUFFIX}"


def _unpacking(config: RepackConfig) -> Plan[str]:
    members = [ref for ref in open_source(config.archives).list_archives() if packs.is_member(ref.uri)]
    items = [Item(key=packs.archive_name(ref.key), source=ref.uri) for ref in members]
    times = Counter(item.key for item in items)
    if twice := [key for key, count in times.items() if count > 1]:
        raise ConfigError("archives", config.archives, f"{twice[0]} lies in two packs", "Unpack them apart.")
    return Plan(
        job="unpack",
        options={"packs": PurePosixPath(config.archives).name},
        items=items,
        make=partial(make_archive, config.archives),
    )


def _make_demo_archives(archives_uri: str) -> None:
    store = Store(archives_uri)
    if not any(store.list()):
        for patient in range(DEMO_ARCHIVES):
            store.put(*simulate_archive(patient, DEMO_EVENTS, seed=0))
