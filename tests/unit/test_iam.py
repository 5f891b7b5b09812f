"""The S3 policies are documents that AWS takes, for two places in buckets of their own."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from cluster.iam.policies import FOLDER, ROLES, main, policies_by_role, policy

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
PLACES = {"archives": "s3://icu-archives/monitors", "lake": "s3://icu-lake/main/"}
MAX_MANAGED_POLICY_CHARS = 6144
"""Of a customer-managed policy, without white space."""

TEXTS = {"type": "array", "minItems": 1, "uniqueItems": True}
GRAMMAR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["Version", "Statement"],
    "properties": {
        "Version": {"const": "2012-10-17"},
        "Statement": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["Sid", "Effect", "Action", "Resource"],
                "properties": {
                    "Sid": {"type": "string", "pattern": "^[A-Za-z0-9]+$"},
                    "Effect": {"const": "Allow"},
                    "Action": {**TEXTS, "items": {"pattern": "^s3:[A-Z][A-Za-z]+$"}},
                    "Resource": {
                        **TEXTS,
                        "items": {"pattern": r"^arn:aws:s3:::[a-z0-9][a-z0-9.-]+[a-z0-9](/[^*?$/]+|/\*)*$"},
                    },
                },
            },
        },
    },
}
"""AWS's grammar of identity policies, and narrower: wildcards only for whole names, nothing denied."""
OF_BUCKETS = {"s3:ListBucket"}


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_what_aws_takes(name: str) -> None:
    document = policy(name, **PLACES)
    jsonschema.validate(document, GRAMMAR)
    statements = document["Statement"]
    sids = [statement["Sid"] for statement in statements]
    assert len(set(sids)) == len(sids)
    for statement in statements:
        for resource in statement["Resource"]:
            is_bucket = "/" not in resource
            assert {action in OF_BUCKETS for action in statement["Action"]} == {is_bucket}, statement["Sid"]
    assert len(json.dumps(document, separators=(",", ":"))) <= MAX_MANAGED_POLICY_CHARS


@pytest.mark.parametrize(
    "broken",
    [
        {"Action": ["s3:*"]},
        {"Action": ["s3:getobject"]},
        {"Effect": "allow"},
        {"Resource": ["*"]},
        {"Resource": ["arn:aws:s3:::${LAKE}/*"]},
        {"Resource": []},
        {"Sid": "with spaces"},
        {"Actions": ["s3:GetObject"]},
    ],
)
def test_the_grammar_refuses(broken: dict[str, Any]) -> None:
    document = policy("archive-reader", **PLACES)
    document["Statement"][0] |= broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, GRAMMAR)


def test_every_policy_belongs_to_a_role_and_names_the_two_places_alone() -> None:
    assert sorted({name for names in ROLES.values() for name in names}) == NAMES
    resources = {
        resource
        for documents in policies_by_role(**PLACES).values()
        for document in documents
        for statement in document["Statement"]
        for resource in statement["Resource"]
    }
    ours = ("arn:aws:s3:::icu-archives/monitors/", "arn:aws:s3:::icu-lake/main/")
    buckets = {"arn:aws:s3:::icu-archives", "arn:aws:s3:::icu-lake"}
    assert {resource for resource in resources if not resource.startswith(ours)} == buckets


@pytest.mark.parametrize(
    ("archives", "lake", "why"),
    [
        ("s3://icu/archives", "s3://icu/lake", "one bucket"),
        ("s3://icu-*/a", "s3://icu-lake", "is not s3://"),
        ("s3://icu-archives/${aws:username}", "s3://icu-lake", "is not s3://"),
        ("archives", "s3://icu-lake", "is not s3://"),
    ],
)
def test_places_that_would_give_more_rights_are_refused(archives: str, lake: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        policy("lake-analyst", archives=archives, lake=lake)


def test_the_command_prints_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lake-analyst", "s3://icu-archives", "s3://icu-lake"]) == 0
    assert json.loads(capsys.readouterr().out) == policy(
        "lake-analyst", archives="s3://icu-archives", lake="s3://icu-lake"
    )
    assert main(["lake-analyst"]) == 2
    assert main(["lake-analyst", "s3://icu/a", "s3://icu/b"]) == 2
