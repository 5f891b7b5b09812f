"""What is packed, under which names, and the way back; without Ray."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from rmsai_ray.archives import packs
from rmsai_ray.archives.packing import identical
from rmsai_ray.archives.reader import read_archive
from rmsai_ray.archives.simulator import simulate_archive
from rmsai_ray.archives.sources import open_source
from rmsai_ray.corpus import repack as module
from rmsai_ray.corpus.produce import Outcome, Plan, make_and_write
from rmsai_ray.corpus.repack import RepackConfig, repack
from rmsai_ray.errors import ConfigError
from rmsai_ray.storage import Store
from tests.upstream_files import archive_bytes

RAW = archive_bytes(num_events=1)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan[object]]:
    """Plans as they are handed over; their work is done at once, as one task."""
    found: list[Plan[object]] = []

    def produce(plan: Plan[object], output: str) -> list[Outcome]:
        found.append(plan)
        return make_and_write(Store(output), plan.make, plan.items)

    monkeypatch.setattr(module, "produce", produce)
    return found


def fill(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(RAW)
    return str(folder)


def names_in(uri: str) -> list[list[str]]:
    """Members of each pack, by name of the pack."""
    refs = sorted(ref.key.partition("#") for ref in open_source(uri).list_archives())
    return [[name for pack, _, name in refs if pack == each] for each in sorted({ref[0] for ref in refs})]


def test_archives_of_a_month_lie_together(tmp_path: Path, plans: list[Plan[object]]) -> None:
    archives = fill(tmp_path / "in", *(f"s/PT{i}_2025-0{1 + i % 2}.h5" for i in range(6)), "odd.h5")
    repack(RepackConfig(archives=archives, output=str(tmp_path / "out"), pack_bytes=2 * len(RAW)))
    keys = [item.key for item in plans[0].items]
    assert [key[:8] for key in sorted(keys)] == ["2025-01-"] * 2 + ["2025-02-"] * 2 + ["unknown-"]
    found = names_in(str(tmp_path / "out"))
    assert sorted(map(sorted, found)) == [
        ["odd.h5"],
        ["s/PT0_2025-01.h5", "s/PT2_2025-01.h5"], ["s/PT1_2025-02.h5", "s/PT3_2025-02.h5"],
        ["s/PT4_2025-01.h5"], ["s/PT5_2025-02.h5"],
    ]  # fmt: skip


def test_only_what_no_pack_holds_is_packed(tmp_path: Path, plans: list[Plan[object]]) -> None:
    archives, output = fill(tmp_path / "in", "PT1_2025-01.h5", "PT2_2025-01.h5"), str(tmp_path / "out")
    repack(RepackConfig(archives=archives, output=output))
    repack(RepackConfig(archives=archives, output=output))
    assert (len(plans[0].items), plans[0].num_present) == (1, 0)
    assert (len(plans[1].items), plans[1].num_present) == (0, 1)
    fill(tmp_path / "in", "PT3_2025-01.h5")
    repack(RepackConfig(archives=archives, output=output))
    assert sorted(map(len, names_in(output))) == [1, 2]
    assert plans[2].run_id == plans[0].run_id


def test_the_way_back(tmp_path: Path, plans: list[Plan[object]]) -> None:
    archives = fill(tmp_path / "in", "s/PT1_2025-01.h5", "PT2_2025-01.h5")
    Path(archives, "junk.h5").write_bytes(b"junk")
    packed, back = str(tmp_path / "packed"), tmp_path / "back"
    repack(RepackConfig(archives=archives, output=packed))
    repack(RepackConfig(archives=packed, output=str(back), unpack=True))
    found = {str(path.relative_to(back)) for path in back.rglob("*.h5")}
    assert found == {"s/PT1_2025-01.h5", "PT2_2025-01.h5", "junk.h5"}
    assert (back / "junk.h5").read_bytes() == b"junk"
    read = [read_archive(raw, "PT1_2025-01.h5", archive_id="0" * 32) for raw in (
        RAW, (back / "s/PT1_2025-01.h5").read_bytes()
    )]  # fmt: skip
    assert identical(*read)


def test_what_is_kept_as_it_is_is_told(tmp_path: Path) -> None:
    archives = fill(tmp_path, "PT1_2025-01.h5")
    (tmp_path / "junk.h5").write_bytes(b"junk")
    refs = sorted(open_source(archives).list_archives(), key=lambda ref: ref.key)
    made = module.make_pack(archives, refs)
    assert made.notes.keys() == {"junk.h5"}
    assert made.notes["junk.h5"].startswith("kept as it is: ")
    index = packs.read_index(made.content, len(made.content))
    assert {name: member.etag for name, member in index.items()} == {ref.key: ref.etag for ref in refs}


def test_an_archive_of_small_blocks_fails_no_pack(tmp_path: Path) -> None:
    """HDF5 puts a block of 40 bytes into a gap before the skeleton, which has to come first."""
    for patient in range(2):
        name, raw = simulate_archive(patient, 1, seed=5)
        buffer = io.BytesIO(raw)
        with h5py.File(buffer, "r+") as file:
            file["event_1001/small"] = np.zeros(5)
        (tmp_path / name).write_bytes(buffer.getvalue())
    refs = list(open_source(str(tmp_path)).list_archives())
    made = module.make_pack(str(tmp_path), refs)
    assert all("small blocks" in note for note in made.notes.values())
    assert made.notes
    (tmp_path / "a.pack.h5").write_bytes(made.content)
    for ref in refs:
        unpacked = module.make_archive(str(tmp_path), f"{tmp_path}/a.pack.h5#{ref.key}")
        with h5py.File(io.BytesIO(unpacked)) as file:
            assert file["event_1001/small"].shape == (5,)


def test_an_archive_in_two_packs_is_refused(tmp_path: Path, plans: list[Plan[object]]) -> None:
    for place in ("a", "b"):
        archives = fill(tmp_path / place, "PT1_2025-01.h5")
        repack(RepackConfig(archives=archives, output=str(tmp_path / "packs" / place)))
    with pytest.raises(ConfigError, match=r"PT1_2025-01\.h5 lies in two packs"):
        repack(RepackConfig(archives=str(tmp_path / "packs"), output=str(tmp_path / "out"), unpack=True))
