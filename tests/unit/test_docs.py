"""What the pages promise exists: files that they link to, and commands that they tell people to type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (".", "docs", "docs/decisions", "cluster", "benchmarks")
    for page in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
MAKE = re.compile(r"(?:`|^\s+)make ([a-z0-9-]+(?: [a-z0-9-]+)*)", re.MULTILINE)
SCRIPT = re.compile(r"\b((?:jobs|benchmarks|tests|cluster)/[\w/]+\.(?:py|yaml))")
MODULE = re.compile(r"python -m ((?:benchmarks|cluster)\.[\w.]+)")
TARGET = re.compile(r"^([a-z0-9-]+):", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_commands_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text()
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    missing = [link for link in LINK.findall(text) if not (ROOT / page.parent / link).exists()]
    missing += [
        f"make {name}" for found in MAKE.findall(text) for name in found.split() if name not in targets
    ]
    missing += [script for script in SCRIPT.findall(text) if not (ROOT / script).exists()]
    modules = [f"{module.rstrip('.').replace('.', '/')}.py" for module in MODULE.findall(text)]
    missing += [module for module in modules if not (ROOT / module).exists()]
    assert not missing, f"{page} promises {missing}"


def test_the_patterns_find_what_they_look_for() -> None:
    page = (
        "See [x](docs/no.md), [web](https://a.b/c), `make check test`, jobs/no.py, "
        "`python -m benchmarks.no`.\n\n    make demo\n"
    )
    assert LINK.findall(page) == ["docs/no.md"]
    assert MAKE.findall(page) == ["check test", "demo"]
    assert SCRIPT.findall(page) == ["jobs/no.py"]
    assert MODULE.findall(page) == ["benchmarks.no"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    text = (ROOT / page).read_text()
    assert not re.search(r"(^|[\s`(])/(work|root|home|tmp)/", text), "an absolute path of some machine"
