"""Crafted checkpoints run nothing: an audit hook sees what is imported, run or opened while they load."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

COMMAND = "touch owned"
OS = b"cos\nsystem\n"
CALL = OS + b"(S'touch owned'\ntR"

PICKLES: dict[str, bytes] = {
    "reduce": CALL + b".",
    "reduce_in_a_list": b"(l" + CALL + b"a.",
    "reduce_as_a_key": b"(d" + CALL + b"I1\ns.",
    "inst": b"(S'touch owned'\nios\nsystem\n.",
    "obj": b"(" + OS + b"S'touch owned'\no.",
    "newobj": b"\x80\x02" + OS + b"(S'touch owned'\nt\x81.",
    "newobj_with_keywords": b"\x80\x04" + OS + b"(S'touch owned'\nt}\x92.",
    "stack_global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
    "dotted_global": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93\x8c\x0btouch owned\x85R.",
    "dotted_module_class": b"\x80\x04\x8c\x17torch.nn.modules.module\x8c\x0ewarnings.sys.x\x93.",
    "getattr": b"c__builtin__\ngetattr\n(cos\nS'system'\ntR.",
    "eval": b'cbuiltins\neval\n(S\'__import__("os").system("touch owned")\'\ntR.',
    "exec": b'cbuiltins\nexec\n(S\'open("owned", "w")\'\ntR.',
    "import": b"cimportlib\nimport_module\n(S'antigravity'\ntR.",
    "partial": b"cfunctools\npartial\n(" + OS + b"S'touch owned'\ntR)R.",
    "partial_of_an_allowed_name": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n(" + OS + b"(S'touch owned'\nt}NtbN\x85R."
    ),
    "build_on_a_class": b"c__main__\nEncoder\n}S'x'\nI1\nsb.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02(S'storage'\n" + OS + b"S'0'\nS'cpu'\nI1\ntQ.",
    "memory_claimed": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
    "number_claimed": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x.",
    "memo_far_away": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nothing": b"",
    "noise": bytes(range(256)),
}

LOAD = """
import json, sys
from pathlib import Path
from rmsai_ray.errors import CheckpointError
from rmsai_ray.models.unpickling import load_pickle
folder, watching, seen = Path(sys.argv[1]), False, []
WATCHED = ("exec", "import", "os.", "subprocess.", "socket.", "ctypes.", "open", "compile", "shutil.")
def watch(event, arguments):
    if watching and event.startswith(WATCHED):
        seen.append([event, str(arguments)[:200]])
def outcome(path):
    global watching
    watching = True
    try:
        load_pickle(path)
        return "loaded"
    except CheckpointError:
        return "refused"
    finally:
        watching = False
for path in sorted(folder.glob("*.pt")):  # once before, for what torch imports when it is first used
    outcome(path)
seen.clear()
sys.addaudithook(watch)
outcomes = {path.name: outcome(path) for path in sorted(folder.glob("*.pt"))}
print(json.dumps({"outcomes": outcomes, "seen": seen}))
"""


def test_crafted_pickles_run_nothing(tmp_path: Path) -> None:
    for kind, content in PICKLES.items():
        (tmp_path / f"{kind}.pt").write_bytes(content)
        (tmp_path / f"{kind}-zip.pt").write_bytes(torch_zip("archive/data.pkl", content))
    (tmp_path / "traversal.pt").write_bytes(torch_zip("../../owned/data.pkl", PICKLES["reduce"]))
    (tmp_path / "bomb.pt").write_bytes(torch_zip("archive/data.pkl", bytes(1 << 21), claimed=1 << 31))
    (tmp_path / "program.pt").write_bytes(torch_zip("archive/constants.pkl", PICKLES["reduce"]))

    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    harmless = {"dotted_module_class-zip.pt", "deep-zip.pt"}  # a class without behaviour; lists in lists
    assert {name for name, outcome in found["outcomes"].items() if outcome == "loaded"} <= harmless
    own = str(tmp_path)
    foreign = [each for each in found["seen"] if not (each[0] in ("open", "os.stat") and own in each[1])]
    assert foreign == []
    assert not list(tmp_path.rglob("owned"))
    assert not (ROOT / "owned").exists()


def torch_zip(name: str, content: bytes, *, claimed: int | None = None) -> bytes:
    """A file of torch's newer format, whose directory may claim another size than the content has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr(name, content)
        file.writestr("archive/version", "3\n")
    raw = bytearray(buffer.getvalue())
    if claimed is not None:
        struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, claimed)
    return bytes(raw)
