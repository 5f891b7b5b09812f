"""Known vulnerabilities of the pinned packages, asked of the advisory services by pip-audit.

``python -m cluster.audit`` fails on a finding that ``known_vulnerabilities.toml`` does not explain. Where no
service answers it says so, and fails nothing: who has no network may still build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK, KNOWN = ROOT / "requirements.lock", Path(__file__).with_name("known_vulnerabilities.toml")

SERVICES = (("PyPI", "--vulnerability-service=pypi"), ("OSV", "--vulnerability-service=osv"))
"""Asked in this order until one answers."""
SOCKET_TIMEOUT_S, TRY_LIMIT_S, LIMIT_S = 5, 20, 180


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a service said."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    """``package, version, id, aliases, fix_versions``."""
    num_audited: int = 0
    not_audited: list[str] = field(default_factory=list)
    why: str = ""
    """No answer, and why."""


def audit(
    lock: Path = LOCK,
    known: Path = KNOWN,
    services: Sequence[tuple[str, ...]] = SERVICES,
    *,
    try_limit_s: float = TRY_LIMIT_S,
) -> int:
    """Ask, print what was found, and give the exit code: 1 for a finding that nobody has explained."""
    pins = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    for name, *options in services:
        answer = ask(pins[:1], options, try_limit_s)
        if not answer.why:
            answer = ask(pins, options, LIMIT_S)
        if not answer.why:
            return report(name, answer, explained(known))
        print(f"{name}: no answer ({answer.why})")
    print("Audit skipped: no advisory service answered, so nothing is known about these packages.")
    return 0


def ask(pins: Sequence[str], options: Sequence[str], limit_s: float) -> Answer:
    """Run pip-audit over some pins, as they are, within a limit of seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [
            *(sys.executable, "-m", "pip_audit", f"--requirement={file.name}", "--no-deps", "--disable-pip"),
            *("--format=json", "--progress-spinner=off", f"--timeout={SOCKET_TIMEOUT_S}", *options),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return Answer(why=f"it took more than {limit_s:.0f} s")
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        said = done.stderr.strip().splitlines()
        return Answer(why=said[-1][-200:] if said else f"it said nothing, and exited with {done.returncode}")
    return _answer(dependencies)


def _answer(dependencies: list[dict[str, Any]]) -> Answer:
    """A mirror of packages that has no advisories knows none of them: that is no answer."""
    not_audited = [each["name"] for each in dependencies if "skip_reason" in each]
    if len(not_audited) == len(dependencies):
        return Answer(why="it knows none of these packages; a mirror has no advisories")
    findings = [
        {"package": each["name"], "version": each["version"], **finding}
        for each in dependencies
        for finding in each.get("vulns", [])
    ]
    num_audited = len(dependencies) - len(not_audited)
    return Answer(findings=findings, num_audited=num_audited, not_audited=not_audited)


def explained(known: Path) -> dict[tuple[str, str], str]:
    """(package, id) → reason, of findings that were looked at."""
    entries = tomllib.loads(known.read_text()).get("known", [])
    return {(entry["package"], entry["id"]): entry["reason"] for entry in entries}


def report(service: str, answer: Answer, reasons: dict[tuple[str, str], str]) -> int:
    """Print findings with their explanation or without, and explanations that nothing needs any more."""
    found, unexplained = set(), 0
    for finding in answer.findings:
        names = [(finding["package"], each) for each in (finding["id"], *finding.get("aliases", []))]
        reason = next((reasons[name] for name in names if name in reasons), None)
        found.update(names)
        unexplained += reason is None
        fixed = ", ".join(finding.get("fix_versions", [])) or "no version"
        print(
            f"{finding['package']} {finding['version']}: {finding['id']}, fixed in {fixed}; {reason or 'NEW'}"
        )
    for package, identity in sorted(reasons.keys() - found):
        print(f"{KNOWN.name}: {package} {identity} is not found any more; take it out")
    left_out = f", not {', '.join(answer.not_audited)}" if answer.not_audited else ""
    print(f"{service}: {answer.num_audited} packages audited{left_out}; {unexplained} new findings")
    return 1 if unexplained else 0


if __name__ == "__main__":
    started = time.monotonic()
    code = audit()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
