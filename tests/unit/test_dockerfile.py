"""The image is what the lock says, runs without rights, and takes along nothing that it should not."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from rmsai_ray.scrubbing import is_secret_name

ROOT = Path(__file__).resolve().parents[2]
Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    """(keyword, rest) of every instruction, continued lines joined."""
    text = (ROOT / "cluster/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def rest_of(instructions: list[Instruction], keyword: str) -> list[str]:
    return [rest for found, rest in instructions if found == keyword]


def test_the_base_is_pinned_and_of_the_projects_python(instructions: list[Instruction]) -> None:
    [image] = [rest for rest in rest_of(instructions, "ARG") if rest.startswith("PYTHON_IMAGE=")]
    tag = re.fullmatch(r"PYTHON_IMAGE=python:(\d+)\.(\d+)\.(\d+)-slim-\w+(@sha256:[0-9a-f]{64})?", image)
    assert tag, f"{image} is not pinned"
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == f">={tag[1]}.{tag[2]},<{tag[1]}.{int(tag[2]) + 1}"
    stages = {rest.split(" AS ")[1] for rest in rest_of(instructions, "FROM") if " AS " in rest}
    known = {"${PYTHON_IMAGE}", "torch-${ACCELERATOR}", *stages}
    assert {rest.split(" AS ")[0] for rest in rest_of(instructions, "FROM")} <= known
    assert {"torch-cpu", "torch-gpu"} <= stages


def test_torch_is_the_locks_and_without_cuda_where_there_is_no_gpu(instructions: list[Instruction]) -> None:
    assert re.search(r"^torch==[\d.]+$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    torch = [rest for rest in rest_of(instructions, "RUN") if "torch.txt" in rest]
    assert len(torch) == 2
    assert all("grep '^torch==' requirements.lock > torch.txt" in rest for rest in torch)
    assert ["--index-url" in rest for rest in torch] == [True, False]
    [index] = [rest for rest in rest_of(instructions, "ARG") if rest.startswith("TORCH_INDEX=")]
    assert index.endswith("/whl/cpu")
    for rest in rest_of(instructions, "RUN"):
        for install in re.findall(r"pip install [^&]*", rest):
            assert "requirements.lock" in install or "torch.txt" in install, f"not pinned: {install}"


def test_what_is_copied_exists_and_is_let_through(instructions: list[Instruction]) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    copied = []
    for rest in rest_of(instructions, "COPY"):
        *sources, _target = [word for word in rest.split() if not word.startswith("--")]
        if "--from=" not in rest:
            copied += sources
    assert sorted(copied) == sorted(allowed), "the builder gets what the image needs, and that alone"
    assert all((ROOT / source).exists() for source in copied)
    assert not rest_of(instructions, "ADD")


def test_no_tracked_file_that_is_copied_looks_like_a_secret() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    hidden = [line.removeprefix("**/") for line in ignore if line.startswith("**/")]
    for planted in (".env", ".env.local", "server.pem", "id.key", "auth_token"):
        assert any(fnmatch(planted, pattern) for pattern in hidden)
    tracked = subprocess.run(
        ["git", "ls-files", "rmsai_ray", "jobs"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert not [name for name in tracked if any(fnmatch(Path(name).name, pattern) for pattern in hidden)]


def test_it_runs_without_rights_and_asks_for_a_token(instructions: list[Instruction]) -> None:
    users = rest_of(instructions, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "Kubernetes tells that it is not root by the number"
    keywords = [keyword for keyword, _ in instructions]
    last_user = len(keywords) - 1 - keywords[::-1].index("USER")
    assert not {"RUN", "COPY"} & set(keywords[last_user:])
    environment = dict(
        assignment.split("=", 1)
        for rest in rest_of(instructions, "ENV")
        for assignment in rest.split()
        if "=" in assignment
    )
    assert environment["RAY_AUTH_MODE"] == "token"
    names = [*environment, *(rest.split("=")[0] for rest in rest_of(instructions, "ARG"))]
    assert not [name for name in names if is_secret_name(name)], "layers keep arguments and variables"
    [revision] = [rest for rest in rest_of(instructions, "LABEL") if "image.revision" in rest]
    assert "${REVISION}" in revision
    assert any('test -n "$REVISION"' in rest for rest in rest_of(instructions, "RUN"))
