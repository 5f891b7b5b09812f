from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError

from rmsai_ray import storage
from rmsai_ray.errors import ConfigError, StorageError
from rmsai_ray.storage import S3Options, Store, lance_options, normalise_uri, split_object_uri

SECRET = "hunter2hunter2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "lake"))


def test_what_is_put_comes_back_whole_and_put_again_replaces(store: Store) -> None:
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"three")
    assert store.get("a/b.bin") == b"three"
    assert [path.name for path in Path(store.uri, "a").iterdir()] == ["b.bin"]  # no temporary file is left


def test_create_is_first_writer_wins(store: Store) -> None:
    assert store.create("entry.json", b"mine")
    assert not store.create("entry.json", b"theirs")
    assert store.get("entry.json") == b"mine"


def test_a_retried_create_that_meets_its_own_first_try_counts_as_ours(store: Store) -> None:
    store.put("entry.json", b"mine")
    assert store.create("entry.json", b"mine")


def test_a_failed_put_leaves_the_old_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("manifest", b"old")

    def refuse(*_: object, **__: object) -> None:
        raise GenericError("disk full")

    monkeypatch.setattr(storage.obstore, "put", refuse)
    with pytest.raises(StorageError, match=r"manifest: .*disk full"):
        store.put("manifest", b"new")
    assert store.get("manifest") == b"old"


def test_listing_goes_below_folders_not_name_prefixes(store: Store) -> None:
    for key in ("model=a/1", "model=a/deep/2", "model=ab/3"):
        store.put(key, key.encode())
    listed = {info.key: info.size for info in store.list("model=a")}
    assert listed == {"model=a/1": 9, "model=a/deep/2": 14}
    assert {info.key for info in store.list()} == {*listed, "model=ab/3"}
    assert list(store.list("nothing/here")) == []


def test_etag_changes_with_the_content(store: Store) -> None:
    store.put("a", b"12")
    (before,) = store.list()
    store.put("a", b"34")
    (after,) = store.list()
    assert before.size == after.size
    assert before.etag != after.etag
    assert before.etag


def test_absent_objects(store: Store) -> None:
    assert store.find("none") is None
    with pytest.raises(StorageError, match="none"):
        store.get("none")
    store.put("some", b"")
    store.delete(["none", "some"])
    assert store.find("some") is None


def test_a_body_shorter_than_announced_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        meta = {"size": 10}  # noqa: RUF012

        def bytes(self) -> bytes:
            return b"1234"

    monkeypatch.setattr(storage.obstore, "get", lambda *_: Short())
    with pytest.raises(StorageError, match="4 of 10 bytes"):
        store.get("a")


def test_a_short_body_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", b"1234567890")
    whole, reads = storage.obstore.get, []

    class Short:
        meta = {"size": 10}  # noqa: RUF012

        def bytes(self) -> bytes:
            return b"1234"

    def once_short(*arguments: Any) -> Any:
        reads.append(arguments)
        return Short() if len(reads) == 1 else whole(*arguments)

    monkeypatch.setattr(storage.obstore, "get", once_short)
    assert store.get("a") == b"1234567890"
    assert len(reads) == 2


@pytest.mark.parametrize(("num_broken", "ends_well"), [(2, True), (3, False)])
def test_a_body_that_breaks_off_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, num_broken: int, ends_well: bool
) -> None:
    store.put("a", b"1234567890")
    whole, reads = storage.obstore.get, []

    def broken(*arguments: Any) -> Any:
        reads.append(arguments)
        if len(reads) <= num_broken:
            raise GenericError(f"Generic S3 error: HTTP error: {storage.BROKEN_BODY}")
        return whole(*arguments)

    monkeypatch.setattr(storage.obstore, "get", broken)
    if ends_well:
        assert store.get("a") == b"1234567890"
    else:
        with pytest.raises(StorageError, match="body error"):
            store.get("a")
    assert len(reads) == 3


def test_a_part_of_an_object(store: Store) -> None:
    store.put("a", b"1234567890")
    assert store.get_range("a", 2, 3) == b"345"
    assert store.get_range("a", 8, 100) == b"90"
    with pytest.raises(StorageError, match="none"):
        store.get_range("none", 0, 1)


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("/data/lake/", "/data/lake"),
        ("file:///data/lake", "/data/lake"),
        ("s3://icu/lake/", "s3://icu/lake"),
        ("s3://icu", "s3://icu"),
        ("relative", str(Path.cwd() / "relative")),
        ("~/lake", str(Path.home() / "lake")),
    ],
)
def test_uris_are_normalised(uri: str, normal: str) -> None:
    assert normalise_uri(uri) == normal
    assert normalise_uri(normal) == normal


@pytest.mark.parametrize("uri", ["gs://icu/lake", "http://icu/lake", "s3://", "s3:///"])
def test_other_schemes_are_refused_with_the_two_that_work(uri: str) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        Store(uri)


def test_split_object_uri() -> None:
    assert split_object_uri("s3://icu/a/b.h5") == ("s3://icu/a", "b.h5")
    assert split_object_uri("/b.h5") == ("/", "b.h5")


def test_a_store_travels_by_its_uri_and_carries_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = Store("s3://icu/lake")
    pickled = pickle.dumps(store)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).uri == store.uri


def test_secrets_are_never_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    options = S3Options.from_environment()
    assert options.secret_key == options.session_token == SECRET
    assert SECRET not in repr(options)
    assert SECRET not in repr(Store("s3://icu/lake")) + str(vars(Store("s3://icu/lake")))


def test_half_of_the_credentials_is_bad_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "FSSPEC_S3_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(ConfigError, match="AWS_") as caught:
        Store("s3://icu/lake")
    assert SECRET not in str(caught.value)


def test_s3_options_prefer_aws_names_and_fall_back_to_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                 "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FSSPEC_S3_KEY", "key")
    monkeypatch.setenv("FSSPEC_S3_SECRET", SECRET)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", "http://127.0.0.1:8333")
    assert lance_options("s3://icu/lake") == {
        "aws_access_key_id": "key",
        "aws_secret_access_key": SECRET,
        "aws_endpoint": "http://127.0.0.1:8333",
        "aws_region": "us-east-1",
        "allow_http": "true",
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example")
    options = lance_options("s3://icu/lake")
    assert options is not None
    assert options["aws_endpoint"] == "https://s3.example"
    assert "allow_http" not in options


def test_local_lakes_need_no_options(tmp_path: Path) -> None:
    assert lance_options(str(tmp_path)) is None
    filesystem, path = storage.arrow_filesystem(f"file://{tmp_path}")
    assert filesystem.type_name == "local"
    assert path == str(tmp_path)


def test_a_listing_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, offsets = [f"k{number}" for number in range(5)], list[str | None]()
    meta = {"size": 1, "e_tag": None, "last_modified": None}

    def breaking(*_: object, offset: str | None, **__: object) -> Iterator[list[dict[str, Any]]]:
        offsets.append(offset)
        left = [key for key in keys if offset is None or key > offset]
        yield [{"path": key, **meta} for key in left[:2]]
        if len(left) > 2:
            raise GenericError("error getting list response body")

    monkeypatch.setattr(storage.obstore, "list", breaking)
    assert [info.key for info in Store("s3://bucket/lake").list()] == keys
    assert offsets == [None, "k1", "k3"]


def test_a_listing_that_breaks_off_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Iterator[list[dict[str, Any]]]:
        raise GenericError("error getting list response body")
        yield []

    monkeypatch.setattr(storage.obstore, "list", broken)
    with pytest.raises(StorageError, match="cannot list s3://bucket/lake"):
        list(Store("s3://bucket/lake").list())
