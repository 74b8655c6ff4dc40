"""No exception of a library or of the operating system reaches a user: each becomes one of ours, in one sentence with its place."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
from pathlib import Path

import botocore.exceptions
import obstore.exceptions
import pytest
from botocore.exceptions import BotoCoreError
from servers import s3_error

from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError, TemporaryError, UsageError
from mirror.objectclient.answers import clean, error_for, verdict
from mirror.site import SiteSpec
from mirror.site.bucket_writing import Raced, WritableBucket
from mirror.store import StoreSpec, errnos
from mirror.store.fs import FolderStore
from mirror.store.s3 import BucketStore

OBSTORE = [
    found for _, found in inspect.getmembers(obstore.exceptions, inspect.isclass) if issubclass(found, obstore.exceptions.BaseError)
]
# What obstore raises besides its own.
BUILTINS = [FileNotFoundError, ValueError, OSError, NotImplementedError]
WHERE = "s3://bucket/mirror/log/1"


def told(error: MirrorError) -> str:
    text = str(error)
    assert "\n" not in text
    assert WHERE in text
    assert error.why
    assert str(pickle.loads(pickle.dumps(error))) == text
    return text


def test_there_is_something_to_enumerate() -> None:
    assert {"GenericError", "PermissionDeniedError", "AlreadyExistsError"} <= {each.__name__ for each in OBSTORE}
    assert len(OBSTORE) >= 12


@pytest.mark.parametrize("kind", [*OBSTORE, *BUILTINS], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("text", ["", "Something went wrong", 'Something\n\nDebug source:\nGeneric {\n    store: "S3",\n}'])
def test_every_exception_of_obstore_is_translated(kind: type[Exception], text: str) -> None:
    told(error_for(verdict(kind(text)), "cannot read", WHERE, "bucket"))


@pytest.mark.parametrize("kind", [*OBSTORE, *BUILTINS[:3]], ids=lambda kind: kind.__name__)
def test_none_leaks_from_a_store(kind: type[Exception]) -> None:
    """Raised where obstore raises: inside a request."""
    store = BucketStore(StoreSpec("s3://bucket/mirror", "http://127.0.0.1:9", static_credentials=True), patience_seconds=0)

    def request() -> None:
        raise kind("Something went wrong")

    with pytest.raises(MirrorError) as caught:
        store._ask(request, "cannot write", "log/1")
    told(caught.value)
    with pytest.raises((MirrorError, NotFound)):
        store._ask(request, "cannot read", "log/1", may_be_absent=True)


BOTO = [found for _, found in inspect.getmembers(botocore.exceptions, inspect.isclass) if issubclass(found, BotoCoreError)]


def test_there_is_something_of_boto3_to_enumerate() -> None:
    assert {"EndpointConnectionError", "NoCredentialsError", "ReadTimeoutError"} <= {each.__name__ for each in BOTO}


@pytest.mark.parametrize("kind", [*OBSTORE, *BUILTINS[:3], *BOTO], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("races", [False, True])
def test_none_leaks_from_a_writable_bucket(kind: type[Exception], races: bool) -> None:
    """Raised where a request is made: about the path, about the place, or (a condition was asked for) somebody else was there."""
    site = WritableBucket(SiteSpec("s3://bucket/mirror", "http://127.0.0.1:9", static_credentials=True))
    error = kind.__new__(kind)
    Exception.__init__(error, "Something went wrong")
    with pytest.raises((MirrorError, NotFound, OSError, Raced)) as caught, site.translated(b"log/1", "cannot write", races=races):
        raise error
    assert caught.value is not error
    if isinstance(caught.value, MirrorError):
        told(caught.value)


def answered(status: int, code: str, message: str = "A sentence.", more: str = "") -> Exception:
    """obstore's exception for an answer with an error document (text as obstore 0.12 has it)."""
    url = "http://user:pw@host/bucket/mirror/log/1?X-Amz-Signature=abc&X-Amz-Security-Token=def"
    body = s3_error(status, code, message, more).body.decode() if code else ""
    return obstore.exceptions.GenericError(
        f"Generic S3 error: Error performing GET {url} in 1.2ms - Server returned non-2xx status code: {status} Reason: {body}"
        "\n\nDebug source:\nGeneric {}"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "NoSuchBucket", TargetMissingError, "there is no bucket bucket"),
        (404, "ContainerNotFound", TargetMissingError, "there is no bucket"),
        (400, "InvalidBucketName", UsageError, "cannot be the name of a bucket"),
        (403, "InvalidAccessKeyId", AuthError, "does not know this access key"),
        (403, "SignatureDoesNotMatch", AuthError, "the secret key does not belong"),
        (403, "AccessDenied", AuthError, "may not do that (AccessDenied)"),
        (403, "", AuthError, "may not do that (403)"),
        (401, "", AuthError, "may not do that (401)"),
        (403, "SomethingNew", AuthError, "may not do that (SomethingNew)"),
        (400, "ExpiredToken", AuthError, "has ended (ExpiredToken); log in again"),
        (403, "RequestTimeTooSkewed", AuthError, "differ by more than the server allows, mostly 15 minutes"),
        (301, "PermanentRedirect", UsageError, "in another region"),
        (400, "AuthorizationHeaderMalformed", UsageError, "in another region"),
        (400, "", MirrorError, "bad one (400)"),
        (501, "NotImplemented", UsageError, "it must honour If-None-Match on PUT"),
        (501, "", UsageError, "it must honour If-None-Match on PUT"),
        (500, "InternalError", TemporaryError, "500 (InternalError)"),
        (503, "SlowDown", TemporaryError, "503 (SlowDown)"),
        (502, "", TemporaryError, "answers 502, again"),
        (429, "TooManyRequests", TemporaryError, "429"),
        (409, "OperationAborted", TemporaryError, "409"),
        (507, "XMinioStorageFull", TemporaryError, "the store is full"),
        (400, "EntityTooLarge", MirrorError, "A sentence. (EntityTooLarge)"),
    ],
)
def test_answers_by_code(status: int, code: str, kind: type[MirrorError], words: str) -> None:
    error = error_for(verdict(answered(status, code)), "cannot read", WHERE, "bucket")
    text = told(error)
    assert type(error) is kind
    assert words in text
    assert "X-Amz" not in text
    assert "pw@" not in text


@pytest.mark.parametrize(
    ("request_time", "server_time", "words"),
    [
        ("20261122T010000Z", "2026-11-22T01:20:30Z", "differ by 20 minutes"),
        ("20261122T010000Z", "2026-11-21T20:00:00Z", "differ by 5 hours"),
        ("20201122T010000Z", "2020-12-22T01:00:00Z", "differ by 30 days"),
        ("rubbish", "2020-12-22T01:00:00Z", "differ by more than the server allows"),
    ],
)
def test_the_skew_is_named(request_time: str, server_time: str, words: str) -> None:
    more = f"<RequestTime>{request_time}</RequestTime><ServerTime>{server_time}</ServerTime>"
    error = error_for(verdict(answered(403, "RequestTimeTooSkewed", more=more)), "cannot read", WHERE, "bucket")
    assert words in told(error)
    assert error.kind == "clock"


def test_what_travels_in_urls_is_not_repeated() -> None:
    text = clean("GET https://me:secret@host/b/k?sig=abc&se=def in 3ms (http://x/?a=b)")
    assert text == "GET https://host/b/k in 3ms (http://x/)"
    unforeseen = obstore.exceptions.GenericError("Error performing GET https://host/b/k?sig=abcdef in 3ms")
    assert "abcdef" not in told(error_for(verdict(unforeseen), "cannot read", WHERE, "bucket"))


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda number: errno.errorcode[number])
def test_every_errno_is_translated(number: int) -> None:
    error = errnos.error_for(OSError(number, os.strerror(number)), "cannot write", WHERE)
    told(error)
    expected = {
        TemporaryError: "ENOSPC EDQUOT ESTALE ETIMEDOUT EMFILE ENOMEM EBUSY EAGAIN",
        AuthError: "EACCES EPERM EROFS",
        DamageError: "ENOTDIR ELOOP EISDIR EIO",
        TargetMissingError: "ENOENT ENODEV ENXIO",
        MirrorError: "EFBIG ENAMETOOLONG",
    }
    for kind, names in expected.items():
        if errno.errorcode[number] in names.split():
            assert type(error) is kind


def test_an_oserror_without_a_number_is_translated() -> None:
    assert "odd" in told(errnos.error_for(OSError("odd"), "cannot write", WHERE))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOSPC])
def test_none_leaks_from_a_folder(tmp_path: Path, number: int) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(MirrorError) as caught:
        FolderStore(str(tmp_path), fsync=fsync).create("log/1", b"x")
    assert f"{tmp_path}/log/1" in str(caught.value)
    assert not (tmp_path / "log" / "1").exists()


def test_a_generator_translates_while_it_runs(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x").write_bytes(b"")
    listing = FolderStore(str(tmp_path)).list("")
    next(listing)
    for number in range(3):
        (tmp_path / f"{number}" / "x").unlink()
        (tmp_path / f"{number}").rmdir()
        (tmp_path / f"{number}").write_bytes(b"")
    with pytest.raises(DamageError):
        list(listing)
