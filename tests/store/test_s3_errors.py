"""S3 that fails: what the user is told, how long it takes, and what is tried again. Real SeaweedFS, and loopback servers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from servers import LOST, READER, Answer, free_ports, mute_socket, s3_error, scripted_http

from mirror.errors import AuthError, MirrorError, NotFound, TargetMissingError, TemporaryError, UsageError
from mirror.store import MaintainedStore, StoreSpec
from mirror.store.aws import with_environment
from mirror.store.open import normalise_url, open_store
from mirror.store.s3 import PATIENCE_SECONDS, BucketStore

KEY = "packs/ab/abcdef.0"
OPERATIONS: dict[str, Callable[[MaintainedStore], Any]] = {
    "get": lambda store: store.get(KEY, 100),
    "get_ranges": lambda store: store.get_ranges(KEY, [(0, 1)]),
    "size": lambda store: store.size(KEY),
    "list": lambda store: list(store.list("packs/")),
    "create": lambda store: store.create(KEY, b"x"),
    "put_hint": lambda store: store.put_hint(KEY, b"x"),
    "delete": lambda store: store.delete([KEY]),
}
WRITES = ("create", "put_hint", "delete")
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


def failure(store: MaintainedStore, operation: str, kind: type[MirrorError]) -> MirrorError:
    """The error of an operation: of this very class, one sentence, with the URL, telling nothing secret."""
    with pytest.raises(MirrorError) as caught:
        OPERATIONS[operation](store)
    error, text = caught.value, str(caught.value)
    assert type(error) is kind, text
    assert store.url in text
    assert error.hint
    assert "\n" not in text
    assert len(text) < 500
    assert "secret" not in text.lower().replace("aws_secret_access_key", "").replace("the secret key", "")
    assert "Signature=" not in text
    return error


# Refusals


@every_operation
def test_unknown_access_key(s3: S3, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    error = failure(open_store(s3.spec()), operation, AuthError)
    if operation != "size":  # HEAD is answered without words
        assert "the server does not know this access key; check AWS_ACCESS_KEY_ID" in str(error)


@every_operation
def test_wrong_secret_key(s3: S3, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    error = failure(open_store(s3.spec()), operation, AuthError)
    if operation != "size":
        assert "the secret key does not belong to the access key" in str(error)


@every_operation
def test_credentials_that_may_only_read(s3: S3, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(s3.spec()).create(KEY, b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
    store = open_store(s3.spec())
    if operation in WRITES:
        assert "these credentials may not do that (AccessDenied)" in str(failure(store, operation, AuthError))
    else:
        OPERATIONS[operation](store)
    assert s3.objects("mirror") == {KEY: 1}


@every_operation
def test_missing_bucket(s3: S3, operation: str) -> None:
    store = open_store(StoreSpec("s3://no-such-bucket/mirror", s3.endpoint_url, s3.region, static_credentials=True))
    error = failure(store, operation, TargetMissingError)
    assert "there is no bucket no-such-bucket" in str(error)
    assert "aws s3 mb s3://no-such-bucket" in error.hint


SKEW = "<RequestTime>20261122T010000Z</RequestTime><ServerTime>2026-11-22T03:10:00Z</ServerTime>"


@every_operation
def test_clock_skew(s3: S3, operation: str) -> None:
    answer = s3_error(
        403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", SKEW
    )
    with scripted_http(lambda *_: answer) as address:
        error = failure(open_store(s3.spec(endpoint_url=f"http://{address}")), operation, AuthError)
    if operation != "size":
        assert error.kind == "clock"
        assert "the clock of this machine and the server's differ by 2 hours; set the clock" in str(error)


def test_another_region(s3: S3) -> None:
    with scripted_http(lambda *_: s3_error(301, "PermanentRedirect")) as address:
        error = failure(open_store(s3.spec(endpoint_url=f"http://{address}")), "get", UsageError)
    assert "--region" in error.hint


def test_what_answers_is_no_object_store(s3: S3) -> None:
    with scripted_http(lambda *_: Answer(405, b"<html>no</html>")) as address:
        failure_at = f"http://{address}"
        with pytest.raises(MirrorError) as caught:
            open_store(s3.spec(endpoint_url=failure_at)).get(KEY, 10)
    assert "405" in str(caught.value)


def test_credentials_that_may_write_and_not_look(s3: S3) -> None:
    def reply(method: str, _path: str, _number: int) -> Answer | None:
        return s3_error(403, "AccessDenied") if method in ("HEAD", "GET") else None

    with scripted_http(reply, s3.endpoint_url.removeprefix("http://")) as address:
        assert open_store(s3.spec(endpoint_url=f"http://{address}")).create(KEY, b"x") is True
    assert s3.objects("mirror") == {KEY: 1}


# Nobody there


def test_dead_endpoints_are_told_within_seconds(s3: S3) -> None:
    """Nothing listens, no such host, somebody who listens and never answers: every operation as the first one. And a server that
    is busy without end."""

    def attempt(address: str, operation: str) -> tuple[str, float]:
        start = time.monotonic()
        store = BucketStore(s3.spec(endpoint_url=f"http://{address}"), patience_seconds=1 if address == busy else PATIENCE_SECONDS)
        error = failure(store, operation, TemporaryError)
        return str(error), time.monotonic() - start

    slow_down = s3_error(503, "SlowDown")
    with mute_socket() as mute, scripted_http(lambda *_: slow_down) as busy, ThreadPoolExecutor(4 * len(OPERATIONS)) as pool:
        addresses = {
            f"127.0.0.1:{free_ports(1)[0]}": "no connection to the server (connection refused); check --endpoint-url",
            "no-such-host.invalid": "no connection to the server (",
            mute: "the server does not answer (timed out); check --endpoint-url",
            busy: "again and again; try again later",
        }
        tried = {(address, why): [pool.submit(attempt, address, each) for each in OPERATIONS] for address, why in addresses.items()}
    for (address, why), attempts in tried.items():
        for text, took in (each.result() for each in attempts):
            assert why in text
            assert address == busy or took < 18


# Passing trouble


def through(s3: S3, reply: Callable[[str, str, int], Answer | None]) -> Any:
    """A server between us and the real one that follows a script."""
    return scripted_http(reply, s3.endpoint_url.removeprefix("http://"))


def first(count: int, answer: Answer, methods: tuple[str, ...] = ("PUT",)) -> Callable[[str, str, int], Answer | None]:
    """The first `count` requests of these methods get this answer, the rest pass."""
    seen = 0

    def reply(method: str, _path: str, _number: int) -> Answer | None:
        nonlocal seen
        seen += method in methods
        return answer if method in methods and seen <= count else None

    return reply


@every_operation
def test_slow_down_is_waited_out(s3: S3, operation: str) -> None:
    if operation not in WRITES:
        open_store(s3.spec()).create(KEY, b"x")
    slow = s3_error(503, "SlowDown", "Please reduce your request rate.")
    with through(s3, first(3, slow, ("PUT", "GET", "HEAD", "POST"))) as address:
        result = OPERATIONS[operation](open_store(s3.spec(endpoint_url=f"http://{address}")))
    expected = {"get": b"x", "get_ranges": [b"x"], "size": 1, "list": [(KEY, 1)], "create": True, "put_hint": None, "delete": None}
    assert result == expected[operation]
    assert s3.objects("mirror") == ({} if operation == "delete" else {KEY: 1})


def test_an_answer_that_got_lost_is_no_true(s3: S3) -> None:
    """The server acted, its answer never came, the request is sent again: there is one object, ours, and the caller reads it
    back."""
    with through(s3, first(1, LOST)) as address:
        store = open_store(s3.spec(endpoint_url=f"http://{address}"))
        assert store.create(KEY, b"ours") is False
        assert store.get(KEY, 10) == b"ours"
    assert s3.objects("mirror") == {KEY: 4}


@pytest.mark.parametrize(("status", "code"), [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")])
def test_conflict_and_precondition_look_alike(s3: S3, status: int, code: str) -> None:
    with through(s3, first(1, s3_error(status, code))) as address:
        store = open_store(s3.spec(endpoint_url=f"http://{address}"))
        assert store.create(KEY, b"x") is False
        with pytest.raises(NotFound):  # "conflict" meant: try again
            store.get(KEY, 10)
        assert store.create(KEY, b"x") is True


def test_a_conflict_of_another_request_is_waited_out(s3: S3) -> None:
    with through(s3, first(1, s3_error(409, "OperationAborted"))) as address:
        open_store(s3.spec(endpoint_url=f"http://{address}")).put_hint("latest.json", b"hint")
    assert s3.objects("mirror") == {"latest.json": 4}


BROKEN = {
    "get": Answer(200, b"x" * 10, {"Content-Length": "50"}),
    "get_ranges": Answer(206, b"", {"Content-Length": "1", "Content-Range": "bytes 0-0/50"}),
    "list": Answer(200, b"<", {"Content-Length": "5000"}),
}


@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize("operation", BROKEN)
def test_an_answer_that_breaks_off_is_asked_for_again(s3: S3, operation: str, etag: bool) -> None:
    """obstore resumes the body of a get by itself, given an ETag; the rest is ours."""
    open_store(s3.spec()).create(KEY, b"x" * 50)
    broken = replace(BROKEN[operation], headers=BROKEN[operation].headers | {"Last-Modified": "Sun, 22 Nov 2026 00:00:00 GMT"})
    if etag:
        broken.headers["ETag"] = s3.client.head_object(Bucket=s3.bucket, Key=f"{s3.prefix}/mirror/{KEY}")["ETag"]
    asked: list[str] = []

    def reply(method: str, _path: str, _number: int) -> Answer | None:
        # Not the first: a server that has never answered is not waited for.
        asked.append(method)
        return broken if len(asked) == 2 else None

    with through(s3, reply) as address:
        store = open_store(s3.spec(endpoint_url=f"http://{address}"))
        assert store.size(KEY) == 50
        assert OPERATIONS[operation](store) == {"get": b"x" * 50, "get_ranges": [b"x"], "list": [(KEY, 50)]}[operation]
    assert len(asked) == 3


def test_a_server_that_restarts_is_waited_for(s3: S3) -> None:
    """Once it has answered; longer than the ten seconds that obstore alone waits."""
    port = free_ports(1)[0]
    upstream = s3.endpoint_url.removeprefix("http://")
    store = open_store(s3.spec(endpoint_url=f"http://127.0.0.1:{port}"))
    with scripted_http(lambda *_: None, upstream, port):
        store.create(KEY, b"x")
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(store.get, KEY, 10)
        time.sleep(12)
        assert not later.done()
        with scripted_http(lambda *_: None, upstream, port):
            assert later.result(30) == b"x"


# Where credentials and settings come from


def test_without_credentials(isolated: Path) -> None:
    with pytest.raises(AuthError, match="no credentials are to be found; set AWS_ACCESS_KEY_ID"):
        open_store(StoreSpec("s3://bucket/prefix", "http://127.0.0.1:9"))


def test_an_unknown_profile(s3: S3) -> None:
    with pytest.raises(UsageError, match="there is no profile 'nightly'"):
        open_store(s3.spec(static_credentials=False, profile="nightly"))


def write_profile(home: Path, s3: S3, name: str) -> None:
    (home / ".aws").mkdir()
    keys = s3.server.admin
    secrets = f"[{name}]\naws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n"
    (home / ".aws" / "credentials").write_text(secrets)
    (home / ".aws" / "config").write_text(f"[profile {name}]\nregion = {s3.region}\nendpoint_url = {s3.endpoint_url}\n")


def test_a_profile_gives_keys_region_and_endpoint(s3: S3, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(isolated, s3, "nightly")
    # An asked-for profile wins over keys in the environment, as with boto3.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "others")
    spec = with_environment(StoreSpec(s3.url(), profile="nightly"), os.environ)
    assert open_store(spec).create(KEY, b"x")
    assert s3.objects("mirror") == {KEY: 1}


def test_a_profile_named_by_the_environment(s3: S3, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(isolated, s3, "nightly")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    assert open_store(with_environment(StoreSpec(s3.url()), os.environ)).create(KEY, b"x")
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(UsageError, match="the profile that AWS_PROFILE names does not exist"):
        open_store(StoreSpec(s3.url()))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_of_the_environment_with_and_without_the_short_cut(s3: S3, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, s3.endpoint_url)
    noted = with_environment(StoreSpec(s3.url()), os.environ)
    assert noted.static_credentials
    assert noted.endpoint_url == s3.endpoint_url
    assert open_store(noted).create("log/1", b"x")
    assert open_store(StoreSpec(s3.url())).create("log/2", b"x")
    assert set(s3.objects("mirror")) == {"log/1", "log/2"}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_given_endpoint_wins_over_the_environment(s3: S3, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    for number, static in enumerate((True, False)):
        assert open_store(s3.spec(static_credentials=static)).create(f"log/{number}", b"x")


KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.mark.parametrize(
    ("environment", "config", "static"),
    [
        ({}, False, False),
        (KEYS, False, True),
        ({"AWS_ACCESS_KEY_ID": "a"}, False, False),
        (KEYS, True, False),
        (KEYS | {"AWS_REGION": "eu-west-1"}, True, False),
        (KEYS | {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "https://s3.example.org"}, True, True),
        (KEYS | {"AWS_CONFIG_FILE": "/no/such/file"}, True, True),
    ],
)
def test_when_no_file_can_have_anything_to_add(isolated: Path, environment: dict[str, str], config: bool, static: bool) -> None:
    if config:
        (isolated / ".aws").mkdir()
        (isolated / ".aws" / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\n")
    spec = with_environment(StoreSpec("s3://bucket"), {"HOME": str(isolated)} | environment)
    assert spec.static_credentials is static
    assert not with_environment(StoreSpec("s3://bucket", profile="p"), environment).static_credentials
    assert with_environment(StoreSpec("/folder"), environment) == StoreSpec("/folder")


# URLs


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/path", "known are a folder, file://, s3://, gs://, az://, https://, dav+https://, memory://"),
        ("s3://", "it names no bucket"),
        ("s3:///prefix", "it names no bucket"),
        ("s3://bucket/a//b", "its prefix has an empty component"),
        ("s3://bucket/a/../b", "its prefix has an empty component, or `.` or `..`"),
        ("s3://AKIAKEY:verysecret@bucket/prefix", "there are credentials in the URL; put them into the environment"),
        ("file://host/path", "a file:// URL has three slashes"),
        ("file:path://x", "stores of this kind are not known"),
        ("", "it is not a path"),
    ],
)
def test_urls_that_cannot_be_a_store(s3: S3, url: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(StoreSpec(url, s3.endpoint_url, s3.region, static_credentials=True))
    assert why in str(caught.value)
    assert "verysecret" not in str(caught.value)
    assert "AKIAKEY" not in str(caught.value)


def test_one_spelling_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("store/", "./x/../store", f"{tmp_path}//store", f"file://{tmp_path}/store/"):
        assert normalise_url(url) == f"{tmp_path}/store"
    assert normalise_url("file:///srv/a%20b%e9") == "/srv/a b\udce9"
    assert normalise_url("file://localhost/srv") == "/srv"
    assert normalise_url("s3://bucket/") == "s3://bucket"
    assert normalise_url("memory://x/") == "memory://x"


@pytest.mark.parametrize("url", ["gs://bucket/prefix/", "az://container/prefix"])
def test_other_services_open(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_store(StoreSpec(url)).url == url.rstrip("/")


def test_what_another_service_misses_is_said() -> None:
    with pytest.raises(UsageError, match=r"cannot open az://container: .*Account must be specified"):
        open_store(StoreSpec("az://container"))


# Unfinished uploads

UPLOADS = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{}</ListMultipartUploadsResult>"
UPLOAD = "<Upload><Key>{}</Key><UploadId>{}</UploadId><Initiated>{}T00:00:00.000Z</Initiated></Upload>"


def test_old_uploads_below_the_prefix_are_aborted(s3: S3) -> None:
    key = f"{s3.prefix}/mirror/{KEY}"
    ids = [s3.client.create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"] for _ in range(2)]
    body = UPLOADS.format(UPLOAD.format(key, ids[0], "2026-01-01") + UPLOAD.format(key, ids[1], "2099-01-01")).encode()

    def reply(method: str, path: str, _number: int) -> Answer | None:
        return Answer(200, body, {"Content-Type": "application/xml"}) if method == "GET" and "uploads" in path else None

    assert open_store(s3.spec()).sweep() == 0  # both are young
    # Nothing can make an upload of SeaweedFS old: its listing is scripted, the abort is real.
    with through(s3, reply) as address:
        assert open_store(s3.spec(endpoint_url=f"http://{address}")).sweep() == 1
    left = s3.client.list_multipart_uploads(Bucket=s3.bucket, Prefix=s3.prefix).get("Uploads", ())
    assert [upload["UploadId"] for upload in left] == [ids[1]]


def test_where_uploads_may_not_be_listed_there_is_nothing_to_sweep(s3: S3) -> None:
    with scripted_http(lambda *_: s3_error(403, "AccessDenied")) as address:
        assert open_store(s3.spec(endpoint_url=f"http://{address}")).sweep() == 0
