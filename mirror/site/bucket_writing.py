"""An S3 prefix as a place to write a site into.

Owns what a file becomes as an object: its key, its headers, its parts. Up to 10 MiB go in one PUT through obstore, more in a
multipart upload through boto3, a few parts at a time; copies are the service's own work. Nothing is visible before it is whole, and
an upload that does not come to its end is aborted.

    site = WritableBucket(SiteSpec("s3://bucket/www"))
    site.put(b"index.html", 5, [b"hello"], Description(mtime=1_700_000_000_123_456_789), expected=None)

Times are kept as rclone keeps them (`x-amz-meta-mtime`, seconds and decimals), so that rclone finds such a tree unchanged. Types
come with the file or from its name (`mirror.site.mediatypes`).

Conditions are If-Match and If-None-Match. Where the answer says that something else is there, it may be our own write whose answer
was lost and that was sent again: then what is there has the ETag of what was sent (the MD5, or that of the parts), and it is ours.
Services that encrypt with KMS have other ETags, and there such a write counts as lost. Not every service heeds a condition on
copies, completions and deletions, so before those the object is looked at as well.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from mirror.errors import MirrorError, NotFound
from mirror.keys import path_fault, show
from mirror.objectclient.answers import Verdict, client_verdict, error_for, verdict
from mirror.objectclient.build import client_builder
from mirror.site import ANYTHING, CONDITIONS, COPIES, TIMES, TYPES, CopyingSite, Lost, SiteSpec, There, Unchanged, Written
from mirror.site.headers import OBSTORE, headers_of, parse_fingerprint, parse_time
from mirror.site.objects import ObjectSite
from mirror.site.parts import COPY_MOST, Sent, checked, in_parts, part_bytes, parts_of
from mirror.site.writing import Description
from mirror.workers import Background

if TYPE_CHECKING:
    from obstore.store import ObjectStore

WHOLE: Final = 10 << 20  # bytes; objects up to here are sent in one request
KEY_MOST: Final = 1024  # bytes of a key, as S3 has it
OBJECT_MOST: Final = 5 << 40
WRITE_SECONDS: Final = 600
_FLIGHT: Final = 48 << 20  # bytes of parts in flight
_TRIES: Final = 4
_DEEPEST: Final = 64  # folders in each other
_ABANDONED: Final = timedelta(days=1)


class WritableBucket(ObjectSite):
    """A `CopyingSite` below a prefix of a bucket."""

    keeps = frozenset({TIMES, TYPES, CONDITIONS, COPIES})

    def __init__(self, spec: SiteSpec) -> None:
        super().__init__(spec)
        self._room = KEY_MOST - len(self._prefix.encode())
        self._counting = threading.Lock()
        self._counts = Counter[str]()
        self.hollow = 0  # folders, kept by the server though empty, that a file has taken the place of

    @property
    def counts(self) -> dict[str, int]:
        """Requests by kind up to now (size: a look, create: a PUT or a part, copy, delete), and bytes_up."""
        return dict(self._counts)

    def _count(self, **more: int) -> None:
        with self._counting:
            self._counts.update(more)

    def fault(self, path: bytes) -> str:
        """See `WritableSite.fault`."""
        if fault := path_fault(path):
            return fault
        if not path or path.endswith(b"/"):
            return "it is a folder's, and a bucket has none"
        try:
            path.decode()
        except UnicodeDecodeError:
            return "it is no UTF-8, as a key of a bucket must be"
        if len(path) > self._room:
            return f"its key would have {len(path) - self._room + KEY_MOST:,} bytes, {KEY_MOST:,} is the most"
        return ""

    # -- questions -----------------------------------------------------------------------------------------------

    def look(self, path: bytes) -> There | None:
        """See `WritableSite.look`. One HEAD."""
        self._count(size=1)
        key = self._key(path)
        try:
            with self.translated(path, "cannot look at"):
                if _is_odd(path):
                    head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
                    return _there(head["ETag"], head["ContentLength"], head["LastModified"], head["Metadata"])
                import obstore

                answer = obstore.get(self._reader, key, options={"head": True})
                meta = answer.meta
                return _there(meta["e_tag"] or "", meta["size"], meta["last_modified"], answer.attributes)
        except NotFound:
            return None

    # -- whole files ---------------------------------------------------------------------------------------------

    def put(
        self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None = ANYTHING
    ) -> Written | Lost:
        """See `WritableSite.put`."""
        self._key(path)
        if size > OBJECT_MOST:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, {OBJECT_MOST:,} is the most that an object may have")
        if size > WHOLE:
            return self._put_parts(path, in_parts(chunks, size), part_bytes(size), what, expected)
        data = b"".join(checked(chunks, size))
        headers, unset = headers_of(path, what)
        send = partial(self._put_whole, path, data, headers, expected)
        return self._decided(path, expected, send, lambda: hashlib.md5(data, usedforsecurity=False).hexdigest(), unset)

    def _put_whole(self, path: bytes, data: bytes, headers: dict[str, Any], expected: str | None) -> str:
        key = self._key(path)
        self._count(create=1, bytes_up=len(data))
        if _is_odd(path) or not headers.keys() <= {*OBSTORE, "Metadata"}:
            conditions = _conditions(expected)
            answer = self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **headers, **conditions)
            return _plain(answer["ETag"])
        import obstore

        attributes = {OBSTORE[name]: value for name, value in headers.items() if name != "Metadata"} | headers["Metadata"]
        mode: Any = "overwrite" if expected == ANYTHING else "create" if expected is None else {"e_tag": f'"{expected}"'}
        result = obstore.put(self._writer, key, data, attributes=attributes, mode=mode, use_multipart=False)
        return _plain(result["e_tag"] or "")

    def _decided(
        self,
        path: bytes,
        expected: str | None,
        act: Callable[[], str],
        ours: Callable[[], str],
        unset: tuple[str, ...],
    ) -> Written | Lost:
        """Act (gives the new tag), and find out who won when the service says that the condition does not hold. ours: the tag that
        our write gives."""
        for attempt in range(_TRIES):
            try:
                with self.translated(path, "cannot write", races=expected != ANYTHING):
                    return Written(act(), unset)
            except (Raced, NotFound):
                there = self.look(path)
            if there and there.tag == ours():
                return Written(there.tag, unset)  # the answer to our own write was lost, and it was sent again
            if expected == ANYTHING:
                raise OSError(errno.EIO, "what it was to be made of vanished on the server")
            if (there.tag if there else None) != expected:
                return Lost(there)
            # A conflict with somebody who did not win either, "try again"; or a folder that is no object is in the way.
            if there is None and attempt:
                self._remove_hollow(path)
        raise OSError(errno.EAGAIN, "the service says that it changes, again and again, and it does not")

    def _remove_hollow(self, path: bytes) -> None:
        """SeaweedFS keeps an empty folder where objects were: it says 412 to a file of that name, and 404 to a look (4.48). Its
        cleaner of such folders will not see that a file is there by then (docs/hosting.md), so they are counted."""
        with self.translated(path, "cannot write"):
            if self._is_hollow(self._prefix + self._key(path) + "/", _DEEPEST):
                with self._counting:
                    self.hollow += 1

    def _is_hollow(self, folder: str, deepest: int) -> bool:
        """Whether nothing but such folders is below; then it is gone."""
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=folder, Delimiter="/", MaxKeys=100)
        hollow = deepest > 0 and all(each["Key"] == folder and not each["Size"] for each in found.get("Contents", ()))
        hollow = hollow and all(self._is_hollow(each["Prefix"], deepest - 1) for each in found.get("CommonPrefixes", ()))
        if hollow:
            self._client.delete_object(Bucket=self._bucket, Key=folder)
        return hollow

    # -- in parts ------------------------------------------------------------------------------------------------

    def put_changed(
        self,
        path: bytes,
        size: int,
        unchanged: Iterable[Unchanged],
        content: Callable[[int, int], Iterable[bytes]],
        what: Description,
        expected: str,
    ) -> Written | Lost:
        """See `CopyingSite.put_changed`. Objects of up to 10 MiB are sent whole: that is one request."""
        parts = parts_of(size, unchanged)
        if size <= WHOLE or not any(isinstance(part, Unchanged) for part in parts):
            return self.put(path, size, content(0, size), what, expected)
        pieces = (
            part if isinstance(part, Unchanged) else b"".join(checked(content(part.at, part.length), part.length)) for part in parts
        )
        longest = max((part.length for part in parts if isinstance(part, Sent)), default=1)
        return self._put_parts(path, pieces, longest, what, expected, path, expected)

    def copy(self, source: bytes, path: bytes, what: Description, expected: str | None = ANYTHING) -> Written | Lost:
        """See `CopyingSite.copy`. One request up to 1 GiB."""
        there = self.look(source)
        if there is None or (source != path and what.fingerprint not in (b"", there.fingerprint)):
            raise FileNotFoundError(errno.ENOENT, "the file that it is to be a copy of is gone")
        if there.size > COPY_MOST:
            parts = parts_of(there.size, [Unchanged(0, 0, there.size)])
            return self._put_parts(path, iter(parts), 1, what, expected, source, there.tag)  # type: ignore[arg-type]
        if lost := self._is_lost(path, expected):
            return lost
        headers, unset = headers_of(path, what)

        def act() -> str:
            self._count(copy=1)
            answer = self._client.copy_object(
                Bucket=self._bucket,
                Key=self._prefix + self._key(path),
                CopySource=self._source(source),
                CopySourceIfMatch=f'"{there.tag}"',
                MetadataDirective="REPLACE",
                **headers,
                **_conditions(expected),
            )
            return _plain(answer["CopyObjectResult"]["ETag"])

        return self._decided(path, expected, act, lambda: there.tag, unset)

    def _put_parts(
        self,
        path: bytes,
        pieces: Iterable[bytes | Unchanged],
        longest: int,
        what: Description,
        expected: str | None,
        source: bytes = b"",
        source_tag: str = "",
    ) -> Written | Lost:
        """A multipart upload. pieces: of at most `longest` bytes each, or runs of the version `source_tag` of `source`."""
        headers, unset = headers_of(path, what)
        place = {"Bucket": self._bucket, "Key": self._prefix + self._key(path)}
        self._count(create=2)  # to begin it, and to complete it
        with self.translated(path, "cannot write"):
            upload = {**place, "UploadId": self._client.create_multipart_upload(**place, **headers)["UploadId"]}
        tags: dict[int, str] = {}

        def move(number: int, piece: bytes | Unchanged) -> None:
            with self.translated(path, "cannot write", races=bool(source_tag)):
                if isinstance(piece, Unchanged):
                    self._count(copy=1)
                    span = f"bytes={piece.old}-{piece.old + piece.length - 1}"
                    answer = self._client.upload_part_copy(
                        **upload,
                        PartNumber=number,
                        CopySource=self._source(source),
                        CopySourceIfMatch=f'"{source_tag}"',
                        CopySourceRange=span,
                    )
                    tags[number] = _plain(answer["CopyPartResult"]["ETag"])
                else:
                    self._count(create=1, bytes_up=len(piece))
                    tags[number] = _plain(self._client.upload_part(**upload, PartNumber=number, Body=piece)["ETag"])

        def complete() -> str:
            listed = {"Parts": [{"ETag": f'"{tags[number]}"', "PartNumber": number} for number in sorted(tags)]}
            return _plain(self._complete(upload, MultipartUpload=listed, **_conditions(expected))["ETag"])

        outcome: Written | Lost | None = None
        try:
            width = max(1, min(8, _FLIGHT // longest))
            background = Background(width, width)
            try:
                for number, piece in enumerate(pieces, 1):
                    background.add(partial(move, number, piece))
                background.settle()
            except Raced:
                return Lost(self.look(path))
            finally:
                background.close()
            outcome = self._is_lost(path, expected) or self._decided(path, expected, complete, lambda: _tag_of(tags), unset)
            return outcome
        finally:
            if not isinstance(outcome, Written):
                self._abort(upload)

    def _complete(self, upload: dict[str, Any], **more: Any) -> Any:
        return self._client.complete_multipart_upload(**upload, **more)

    def _abort(self, upload: dict[str, Any]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        # What stopped the upload is the news; what is left behind, `sweep` finds.
        with suppress(BotoCoreError, ClientError):
            self._client.abort_multipart_upload(**upload)

    def _is_lost(self, path: bytes, expected: str | None) -> Lost | None:
        """Look before an act whose condition not every service heeds."""
        if expected == ANYTHING:
            return None
        there = self.look(path)
        return None if (there.tag if there else None) == expected else Lost(there)

    # -- the rest ------------------------------------------------------------------------------------------------

    def remove(self, path: bytes, expected: str | None = ANYTHING) -> Written | Lost:
        """See `WritableSite.remove`. There are no folders to remove."""
        if path.endswith(b"/"):
            return Written()
        if lost := self._is_lost(path, expected):
            return lost
        place = {"Bucket": self._bucket, "Key": self._prefix + self._key(path)}
        self._count(delete=1)
        try:
            with self.translated(path, "cannot delete", races=expected != ANYTHING):
                self._client.delete_object(**place, **({"IfMatch": f'"{expected}"'} if expected else {}))
        except NotFound:
            pass
        except Raced:
            there = self.look(path)
            return Lost(there) if there else Written()
        return Written()

    def sweep(self) -> int:
        """See `WritableSite.sweep`. Unfinished uploads below the prefix, older than a day; none where they may not be listed."""
        from botocore.exceptions import BotoCoreError, ClientError

        removed = 0
        with suppress(BotoCoreError, ClientError, MirrorError):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for upload in (upload for page in pages for upload in page.get("Uploads", ())):
                if datetime.now(UTC) - upload["Initiated"] > _ABANDONED:
                    self._abort({"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]})
                    removed += 1
        return removed

    def close(self) -> None:
        """See `WritableSite.close`."""
        if "_client" in self.__dict__:
            self.__dict__.pop("_client").close()

    @cached_property
    def _writer(self) -> ObjectStore:
        build = client_builder(self._spec, "s3", self._bucket, self._prefix.rstrip("/"))
        return build({"timeout": timedelta(seconds=WRITE_SECONDS)})

    def _key(self, path: bytes) -> str:
        """The key below the prefix. OSError for a path that none can be."""
        if fault := self.fault(path):
            raise OSError(errno.EINVAL, fault)
        return path.decode()

    def _source(self, path: bytes) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + self._key(path)}

    @contextmanager
    def translated(self, path: bytes, what: str, *, races: bool = False) -> Iterator[None]:
        """The one place where what a client library raises becomes ours. races: a condition was asked for, and may not hold."""
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.exceptions import BaseError

        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise self._meaning(client_verdict(error), path, what, races) from error
        except (BaseError, OSError, ValueError) as error:
            raise self._meaning(verdict(error), path, what, races) from error

    def _meaning(self, found: Verdict, path: bytes, what: str, races: bool) -> Exception:
        if races and (found.status in (409, 412) or found.absent):
            return Raced()
        if found.absent:
            return NotFound(path)
        if found.status == 400 and found.code not in _PLACE_CODES:
            return OSError(errno.EINVAL, f"the server refuses it ({found.code or found.message})")
        return error_for(found, what, f"{self._url}/{show(path)}", self._bucket)


_PLACE_CODES: Final = (
    "InvalidBucketName", "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired",
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "RequestTimeTooSkewed", "NoSuchBucket",
)  # fmt: skip


class Raced(Exception):
    """The service says that the condition does not hold, or that somebody else writes there just now."""


def _is_odd(path: bytes) -> bool:
    """Whether a key has control characters, which obstore refuses."""
    return any(byte < 0x20 or byte == 0x7F for byte in path)


def _plain(tag: str) -> str:
    return tag.removeprefix("W/").strip('"')


def _tag_of(parts: dict[int, str]) -> str:
    """The ETag of an object in parts, from those of its parts; "" where those are no MD5s."""
    try:
        digests = b"".join(bytes.fromhex(parts[number]) for number in sorted(parts))
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _there(tag: str, size: int, modified: datetime, notes: Mapping[Any, str]) -> There:
    kept = notes.get("mtime")
    mtime = parse_time(kept) if kept else None
    if mtime is None:
        mtime = int(modified.timestamp()) * 1_000_000_000
    return There(_plain(tag), size, mtime, parse_fingerprint(notes.get("xxh3")))


def _conditions(expected: str | None) -> dict[str, str]:
    if expected == ANYTHING:
        return {}
    return {"IfNoneMatch": "*"} if expected is None else {"IfMatch": f'"{expected}"'}


if TYPE_CHECKING:
    _PROMISE: type[CopyingSite] = WritableBucket
