"""The S3 policies of this folder, filled in for two places, and which of them each role gets.

``python -m cluster.iam.policies POLICY s3://BUCKET/ARCHIVES s3://BUCKET/LAKE`` prints one as AWS takes it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).parent

ROLES = {
    "reader": ("archive-reader",),
    "writer": ("lake-writer",),
    "backfill": ("archive-reader", "lake-writer"),
    "maintainer": ("lake-writer", "lake-maintainer"),
    "analyst": ("lake-analyst",),
}
"""Policies of each role. Who does a job's work gets one of these roles, and nothing else."""

PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^*?$/]+)*")
"""Without what a policy would take for a wildcard or a variable."""


def policy(name: str, *, archives: str, lake: str) -> dict[str, Any]:
    """One policy as an AWS policy document.

    Raises:
        ValueError: a place is not ``s3://bucket/prefix``, or both lie in one bucket.
    """
    (archives_bucket, archives_path), (lake_bucket, lake_path) = _split(archives), _split(lake)
    if archives_bucket == lake_bucket:
        raise ValueError(
            f"{archives} and {lake} lie in one bucket: whoever may list the lake would see the names of the "
            "archives, which name patients. Give each a bucket of its own."
        )
    filled = Template((FOLDER / f"{name}.json").read_text()).substitute(
        ARCHIVES_BUCKET=archives_bucket, ARCHIVES=archives_path, LAKE_BUCKET=lake_bucket, LAKE=lake_path
    )
    document: dict[str, Any] = json.loads(filled)
    return document


def policies_by_role(*, archives: str, lake: str) -> dict[str, list[dict[str, Any]]]:
    """The documents of every role of :data:`ROLES`."""
    return {
        role: [policy(name, archives=archives, lake=lake) for name in names] for role, names in ROLES.items()
    }


def _split(uri: str) -> tuple[str, str]:
    """``s3://bucket/prefix`` → (``bucket``, ``bucket/prefix``)."""
    place = uri.rstrip("/")
    if not PLACE.fullmatch(place):
        raise ValueError(f"{uri!r} is not s3://bucket/prefix, or has one of * ? $ in it")
    path = place.removeprefix("s3://")
    return path.partition("/")[0], path


def main(arguments: list[str]) -> int:
    """Print one policy; 2 where the arguments are wrong."""
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    if len(arguments) != 3 or arguments[0] not in known:
        print(f"{__doc__}\nPOLICY is one of {', '.join(known)}.", file=sys.stderr)
        return 2
    try:
        document = policy(arguments[0], archives=arguments[1], lake=arguments[2])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
