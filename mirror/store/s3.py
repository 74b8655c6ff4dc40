"""A store in an object service, over obstore: s3://, gs://, az://.

`create` is one PUT with If-None-Match: *, never a multipart upload. 412, 409, and an answer that got lost on a request that was
then sent again look alike and give False: the caller reads the object back.

Patience. obstore repeats for ten seconds what it holds to be safe; it does not repeat a create that timed out, nor a body that
broke off. So one loop here goes around every request and asks again, for up to a minute, what failed for a passing reason; a
create too, because its caller reads back. It does so only once this server has answered something: an endpoint that is dead
from the start is reported within 15 s, not after minutes.

Two clients: reads fail when nothing comes for 15 s; a write has ten minutes, for obstore's read time-out counts the upload as well
(measured), and 32 MiB over a slow line take their time. Building one costs 20 ms, so the second waits until it is needed.

Payloads are signed on plain http, where nothing else protects them (SHA-256: 1.1 ms a MiB; requests a second are the same,
measured); over https TLS does that.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from mirror.errors import MirrorError, NotFound
from mirror.objectclient.access import control_client
from mirror.objectclient.answers import error_for, verdict
from mirror.objectclient.build import client_builder, split_url
from mirror.store import Data, Stat, StoreSpec
from mirror.store.bounds import too_large, too_short

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

READ_SECONDS = 15
WRITE_SECONDS = 600
PATIENCE_SECONDS = 60
_LIST_PAGE = 1000
_ABANDONED = timedelta(days=1)


class BucketStore:
    """A MaintainedStore below a prefix of a bucket. `patience_seconds` is a parameter for tests."""

    def __init__(self, spec: StoreSpec, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._spec = spec
        self._scheme, self._bucket, self._prefix = split_url(spec.url)
        self._url = f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")
        self._patience = patience_seconds
        self._build = client_builder(spec, self._scheme, self._bucket, self._prefix)
        # `timeout` is for a whole request: a read that still gets bytes may take its time.
        self._reader = self._build({"read_timeout": timedelta(seconds=READ_SECONDS), "timeout": timedelta(hours=1)})
        self._slow: ObjectStore | None = None
        self._building = threading.Lock()
        # These only ever go from False to True, so threads may race. answered: the endpoint is alive; seen: so is the bucket.
        self._answered = self._seen = False

    @property
    def url(self) -> str:
        return self._url

    def get(self, key: str, limit: int) -> bytes:
        def read() -> bytes:
            found = obstore.get(self._reader, key)
            if (size := found.meta["size"]) > limit:
                raise too_large(self._where(key), size, limit)
            return found.bytes().to_bytes()

        return self._ask(read, "cannot read", key, may_be_absent=True)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        asked = [(start, end) for start, end in ranges if start < end]
        starts, ends = [start for start, _ in asked], [end for _, end in asked]

        def read() -> list[bytes]:
            try:
                # coalesce=0: whoever asks has merged what is worth merging.
                parts = obstore.get_ranges(self._reader, key, starts=starts, ends=ends, coalesce=0)
            except BaseError as error:
                if verdict(error).status == 416:  # it begins behind the end
                    return []
                raise
            return [part.to_bytes() for part in parts]

        parts = self._ask(read, "cannot read", key, may_be_absent=True) if asked else []
        if [len(part) for part in parts] != [end - start for start, end in asked]:
            raise too_short(self._where(key), max(ends))
        rest = iter(parts)
        return [next(rest) if start < end else b"" for start, end in ranges]

    def size(self, key: str) -> int | None:
        def look() -> int:
            return obstore.head(self._reader, key)["size"]

        def look_closer() -> int:
            return obstore.get(self._reader, key).meta["size"]

        try:
            return self._ask(look, "cannot look at", key, may_be_absent=True)
        except NotFound:
            if self._seen:
                return None
        # The answer to HEAD has no body that says whether the object or the bucket is missing, that to GET has. Asked once.
        try:
            return self._ask(look_closer, "cannot look at", key, may_be_absent=True)
        except NotFound:
            self._seen = True
            return None

    def list(self, prefix: str) -> Iterator[Stat]:
        def begin() -> tuple[Iterator[Sequence[obstore.ObjectMeta]], Sequence[obstore.ObjectMeta] | None]:
            pages = iter(obstore.list(self._reader, prefix or None, chunk_size=_LIST_PAGE))
            return pages, next(pages, None)

        # Only the first page is asked for again: resuming behind a key needs an order, and SeaweedFS has one of its own.
        pages, page = self._ask(begin, "cannot list", prefix)
        while page is not None:
            for found in page:
                yield Stat(found["path"], found["size"])
            page = self._ask(lambda: next(pages, None), "cannot list", prefix, patience=0)

    def create(self, key: str, data: Data) -> bool:
        def write() -> bool:
            try:
                obstore.put(self._writer(), key, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

        self._reach(key)
        return self._ask(write, "cannot write", key)

    def put_hint(self, key: str, data: Data) -> None:
        self._reach(key)
        self._ask(lambda: obstore.put(self._writer(), key, data, use_multipart=False), "cannot write", key)

    def delete(self, keys: Sequence[str]) -> None:
        if self._scheme == "s3":
            if keys:
                self._ask(lambda: obstore.delete(self._reader, list(keys)), "cannot delete", keys[0])
            return
        for key in keys:  # others say "not found", which ends a bulk request
            with suppress(NotFound):
                self._ask(lambda key=key: obstore.delete(self._reader, key), "cannot delete", key, may_be_absent=True)  # type: ignore[misc]

    def sweep(self) -> int:
        """Aborts multipart uploads older than a day: leftovers of other tools and of server-side copies, `create` makes none.
        Costs the import of boto3; where uploads may not be listed there is nothing to do."""
        if self._scheme != "s3":
            return 0
        from botocore.exceptions import BotoCoreError, ClientError

        removed = 0
        with suppress(BotoCoreError, ClientError, MirrorError):
            client = control_client(self._spec)
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}/".lstrip("/")
            )
            for upload in (upload for page in pages for upload in page.get("Uploads", ())):
                if datetime.now(UTC) - upload["Initiated"] > _ABANDONED:
                    client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    removed += 1
        return removed

    def free_bytes(self) -> tuple[int, int] | None:
        return None

    def _where(self, key: str) -> str:
        return f"{self._url}/{key}".rstrip("/")

    def _writer(self) -> ObjectStore:
        with self._building:
            if self._slow is None:
                self._slow = self._build({"timeout": timedelta(seconds=WRITE_SECONDS)})
            return self._slow

    def _reach(self, key: str) -> None:
        """Before the first request of all is a write, with its long time-out: see that somebody answers."""
        if self._answered:
            return
        try:
            self._ask(lambda: obstore.head(self._reader, key), "cannot reach", key, may_be_absent=True)
        except NotFound:
            pass
        except MirrorError:
            # A refusal is an answer: there are credentials that may write and not read.
            if not self._answered:
                raise

    def _ask(
        self, request: Callable[[], T], what: str, key: str, *, may_be_absent: bool = False, patience: float | None = None
    ) -> T:
        """One request, asked again while that may help. NotFound when it may be absent and is; else only our errors."""
        give_up = time.monotonic() + (self._patience if patience is None else patience)
        pause = 0.25
        while True:
            try:
                result = request()
            except (BaseError, OSError, ValueError) as error:
                found = verdict(error)
                self._answered = self._answered or found.answered
                self._seen = self._seen or found.code == "NoSuchKey"
                if may_be_absent and found.absent:
                    raise NotFound(key) from None
                if not (found.temporary and self._answered and time.monotonic() + pause < give_up):
                    raise error_for(found, what, self._where(key), self._bucket) from error
            else:
                self._answered = self._seen = True
                return result
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 8.0)
