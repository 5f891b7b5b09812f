"""Models and detector sets by name, version and alias, in a folder or on S3.

    <registry>/<name>/index/00000007.json            what there is: the highest number counts
    <registry>/<name>/content/<content hash>/…       the files of a version, under their hash

Files are written first and the index last, so that a crash leaves files that nothing names, and a repeat
writes the same files again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rmsai_ray import ids
from rmsai_ray.errors import CheckpointError, ConfigError
from rmsai_ray.revisions import Document, Revisions
from rmsai_ray.runs import code_version, now
from rmsai_ray.storage import Store

CHAMPION, CHALLENGER = "champion", "challenger"
"""Usual aliases; a name alone means its champion."""
FORMAT_VERSION = 1
MODEL_FILE, DETECTORS_FILE = "model.json", "detectors.json"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
ALIAS = re.compile(r"[a-z][a-z0-9._-]*")
Kind = Literal["model", "detectors"]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a version comes from; None where nobody said."""

    parent: str | None = None
    """Id of the model that it was made from."""
    training_data: str | None = None
    """Hash of the data that it was made with."""
    run_id: str | None = None
    """The run that made it."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One registered model or detector set; never changes."""

    name: str
    version: int
    kind: Kind
    content_id: str
    """The ``model_id`` of a model, the ``set_id`` of a detector set."""
    content_hash: str
    files: Mapping[str, str]
    """Path below the version's folder → SHA-256."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    time: str
    code_version: str

    @property
    def folder(self) -> str:
        """Key of the folder of its files."""
        return f"{self.name}/content/{self.content_hash}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Version:
        """Of an index's row."""
        return cls(**{**values, "lineage": Lineage(**values["lineage"])})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a registry knows of one name."""

    name: str
    versions: tuple[Version, ...]
    """From 1 on."""
    aliases: Mapping[str, tuple[int, ...]]
    """Alias → versions that it stood for, the present one last; what was rolled back is gone."""
    changes: tuple[Mapping[str, Any], ...]
    """Everything that was done, in order."""

    def aliases_of(self, version: int) -> list[str]:
        """The aliases that stand for a version now."""
        return sorted(alias for alias, stack in self.aliases.items() if stack[-1] == version)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a reference stood for at one moment."""

    reference: str
    alias: str | None
    """None where a version number was asked for."""
    version: Version

    def to_json(self) -> dict[str, Any]:
        """For run records."""
        names = ("name", "version", "kind", "content_id", "content_hash")
        return {"reference": self.reference, "alias": self.alias} | {
            name: getattr(self.version, name) for name in names
        }


class ModelRegistry:
    """The registry below one URI: a folder, or ``s3://bucket/prefix``."""

    def __init__(self, uri: str) -> None:
        self._store = Store(uri)

    def register(
        self, name: str, path: str | Path, *, alias: str | None = None, lineage: Lineage | None = None
    ) -> Version:
        """Copies a checkpoint or a detector set into the registry, and gives it the next version.

        Content that is registered already keeps its version, and has its files written again.

        Args:
            name: small letters, digits, dots, dashes and underscores.
            path: a checkpoint folder, a packaged model's name or an upstream checkpoint file; or a detector
                set's folder.
            alias: stands for this version from now on.
            lineage: its fields override what the checkpoint says of itself.

        Raises:
            CheckpointError: nothing loadable is there.
            ConfigError: a name that cannot be one, or that belongs to the other kind.
        """
        _check_word("name", name, NAME)
        if alias is not None:
            _check_word("alias", alias, ALIAS)
        content, description = read_content(path)
        files = {key: hashlib.sha256(data).hexdigest() for key, data in content.items()}
        new = Version(
            name=name,
            version=0,
            **{**description, "lineage": _override(description["lineage"], lineage)},
            content_hash=ids.digest(f"{key} {files[key]}" for key in sorted(files)),
            files=files,
            time=now().isoformat(),
            code_version=code_version(),
        )
        for key, data in content.items():
            self._store.put(f"{new.folder}/{key}", data)
        entry = _entry(name, self._revisions(name).change(lambda present: _with_version(present, new, alias)))
        return next(version for version in entry.versions if version.content_hash == new.content_hash)

    def promote(self, reference: str, alias: str = CHAMPION) -> Version:
        """Lets ``alias`` stand for the version that ``reference`` (``name@3``, ``name@challenger``) names.

        Raises:
            ConfigError: there is no such version; says which there are.
        """
        if "@" not in reference:
            rule = "does not say which version to promote"
            raise ConfigError("model", reference, rule, f"Write {reference}@3 or {reference}@{CHALLENGER}.")
        chosen = self.resolve(reference).version
        self._revisions(chosen.name).change(lambda present: _with_alias(present, alias, chosen.version))
        return chosen

    def rollback(self, name: str, alias: str = CHAMPION) -> Version:
        """Lets ``alias`` stand for the version that it stood for before its present one.

        Raises:
            ConfigError: there is none before, or somebody else moved the alias just now.
        """
        present = self.resolve(f"{name}@{alias}").version.version
        document = self._revisions(name).change(lambda found: _without_last(found, name, alias, present))
        entry = _entry(name, document)
        return entry.versions[entry.aliases[alias][-1] - 1]

    def names(self) -> list[str]:
        """Everything that is registered, sorted."""
        folders = {info.key.split("/")[0] for info in self._store.list() if "/index/" in info.key}
        return sorted(folders)

    def entry(self, name: str) -> Entry:
        """What there is of one name.

        Raises:
            ConfigError: nothing; says what there is.
        """
        document = self._revisions(name).read() if NAME.fullmatch(name) else None
        if document is None:
            known = ", ".join(self.names()) or "nothing yet"
            rule = f"is not registered in {self._store.uri}"
            raise ConfigError("model", name, rule, f"Registered: {known}.")
        return _entry(name, document)

    def resolve(self, reference: str) -> Resolved:
        """The version that ``name`` (its champion), ``name@alias`` or ``name@3`` stands for now.

        Raises:
            ConfigError: none; says which aliases and versions there are.
        """
        name, _, which = reference.partition("@")
        entry = self.entry(name)
        which = which or CHAMPION
        if which.isdecimal():
            number, alias = int(which), None
        else:
            number, alias = entry.aliases.get(which, (0,))[-1], which
        if not 1 <= number <= len(entry.versions):
            aliases = ", ".join(f"{known} = {stack[-1]}" for known, stack in sorted(entry.aliases.items()))
            what = f"version {number}" if alias is None else f"alias {alias}"
            fix = f"Versions: 1 to {len(entry.versions)}; aliases: {aliases or 'none, promote one'}."
            raise ConfigError("model", reference, f"{name} has no {what}", fix)
        return Resolved(reference=reference, alias=alias, version=entry.versions[number - 1])

    def fetch(self, version: Version, folder: str | Path) -> Path:
        """Writes the files of a version into a local folder, and returns that.

        Raises:
            CheckpointError: a file is gone or is not what was registered.
        """
        for key, sha256 in version.files.items():
            target = Path(folder) / _safe(key)
            content = self._store.find(f"{version.folder}/{key}")
            found = None if content is None else hashlib.sha256(content).hexdigest()
            if content is None or found != sha256:
                raise CheckpointError(
                    f"{self._store.child_uri(version.folder)}/{key}: expected SHA-256 {sha256} of "
                    f"{version.name}@{version.version}, found {found or 'nothing'}: changed after it was "
                    "registered. Register the original again to repair it"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return Path(folder)

    def _revisions(self, name: str) -> Revisions:
        return Revisions(self._store, f"{name}/index")


def read_content(path: str | Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(files, description) of a detector set, or of whatever the model loader takes.

    Raises:
        CheckpointError: nothing loadable is there.
    """
    folder = Path(path)
    if (folder / DETECTORS_FILE).is_file():
        return _read_files(folder), _describe_detectors(folder / DETECTORS_FILE)
    from rmsai_ray.models.checkpoint import PRETRAINED, load_model, save_checkpoint  # torch takes seconds

    bundle = load_model(path)
    if not bundle.trained:
        raise CheckpointError(f"{path}: expected a trained model, found one whose numbers mean nothing")
    for place in (folder, PRETRAINED / str(path)):
        if (place / MODEL_FILE).is_file():
            content = _read_files(place)
            break
    else:
        with tempfile.TemporaryDirectory() as temporary:
            content = _read_files(save_checkpoint(bundle, Path(temporary) / "model"))
    facts = bundle.facts
    ancestors = facts.get("lineage") or [{}]  # the oldest first
    lineage = Lineage(
        parent=ancestors[-1].get("model_id"),
        training_data=facts.get("data_hash"),
        run_id=facts.get("run_id"),
    )
    description = {"content_id": bundle.model_id, "metrics": bundle.metrics, "lineage": lineage}
    return content, {"kind": "model", **description}


def _describe_detectors(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        set_id, model_id, facts = found["set_id"], found["model_id"], found.get("facts", {})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected the description of a detector set: {error!r}") from error
    lineage = Lineage(parent=model_id, training_data=facts.get("data_hash"), run_id=facts.get("run_id"))
    metrics = facts.get("metrics", {})
    return {"kind": "detectors", "content_id": set_id, "metrics": metrics, "lineage": lineage}


def _read_files(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _override(lineage: Lineage, told: Lineage | None) -> Lineage:
    return replace(lineage, **{key: value for key, value in asdict(told or Lineage()).items() if value})


def _with_version(present: Document | None, new: Version, alias: str | None) -> Document | None:
    entry = _entry(new.name, present) if present else None
    versions = entry.versions if entry else ()
    if versions and versions[0].kind != new.kind:
        rule, fix = f"names {versions[0].kind}, and this is {new.kind}", "Choose another name."
        raise ConfigError("name", new.name, rule, fix)
    known = next((old for old in versions if old.content_hash == new.content_hash), None)
    if known is not None:
        return _with_alias(present, alias, known.version) if alias else None
    number = len(versions) + 1
    document = present or {"format_version": FORMAT_VERSION, "versions": [], "aliases": {}, "changes": []}
    changed = {
        **document,
        "versions": [*document["versions"], asdict(new) | {"version": number}],
        "changes": [*document["changes"], _change("register", version=number)],
    }
    return _with_alias(changed, alias, number) if alias else changed


def _with_alias(present: Document | None, alias: str, version: int) -> Document | None:
    _check_word("alias", alias, ALIAS)
    document = present or {}
    stack = document["aliases"].get(alias, [])
    if stack and stack[-1] == version:
        return None
    change = _change("promote", alias=alias, version=version, before=stack[-1] if stack else None)
    return {
        **document,
        "aliases": {**document["aliases"], alias: [*stack, version]},
        "changes": [*document["changes"], change],
    }


def _without_last(present: Document | None, name: str, alias: str, seen: int) -> Document:
    document = present or {}
    stack = document["aliases"][alias]
    if stack[-1] != seen:
        rule = f"was moved from version {seen} to {stack[-1]} just now"
        raise ConfigError("alias", alias, rule, "Look at it, and roll back again if that is still wanted.")
    if len(stack) < 2:
        fix = f"Promote another version of {name} instead."
        raise ConfigError("alias", alias, f"never stood for another version than {seen}", fix)
    change = _change("rollback", alias=alias, version=stack[-2], before=seen)
    return {
        **document,
        "aliases": {**document["aliases"], alias: stack[:-1]},
        "changes": [*document["changes"], change],
    }


def _entry(name: str, document: Document) -> Entry:
    if document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"registry index of {name}: expected format_version {FORMAT_VERSION}, "
            f"found {document.get('format_version')!r}"
        )
    return Entry(
        name=name,
        versions=tuple(Version.from_json(row) for row in document["versions"]),
        aliases={alias: tuple(stack) for alias, stack in document["aliases"].items()},
        changes=tuple(document["changes"]),
    )


def _change(action: str, **values: Any) -> dict[str, Any]:
    return {"time": now().isoformat(), "action": action, **values}


def _check_word(kind: str, word: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(word):
        rule = f"does not match {pattern.pattern}"
        raise ConfigError(kind, word, rule, f"Write a {kind} like framed-2400x64 or {CHALLENGER}.")


def _safe(key: str) -> PurePosixPath:
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts:
        raise CheckpointError(f"registry index names a file outside of its folder: {key!r}")
    return path
