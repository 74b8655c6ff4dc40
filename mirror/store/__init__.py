"""Stores: objects by key, where snapshots live.

Three tiers of one to five methods; a class offers what it can do. A store knows bytes and keys, never what they mean.
Everything may be called from any thread. Keys are relative, `/`-separated, ASCII, as `mirror.keys` spells them.

Every method raises AuthError (credentials, rights), TemporaryError (dead endpoint, time-out, disk full), TargetMissingError
(the place itself is not there: no such bucket, no such folder; but `create` and `put_hint` make a folder) or MirrorError, each
with the URL in it, and nothing of the client library's own; what is said of other errors stands with the method. Retries are
the client library's (STYLE 22): a method that raises has been tried enough.

A store crosses to worker processes as its `StoreSpec`, opened again there by `mirror.store.open.open_store`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mirror.webclient.proxies import Proxies

Data = bytes | bytearray | memoryview


class Stat(NamedTuple):
    """One object of a listing: its key and its size in bytes."""

    key: str
    size: int


class ReadableStore(Protocol):
    """A place that objects can be read from."""

    @property
    def url(self) -> str:
        """What a person would call this place; without credentials. Used in messages and records."""
        ...

    def get(self, key: str, limit: int) -> bytes:
        """The whole object. NotFound when it is not there; DamageError when it is larger than `limit` bytes (not read then)."""
        ...

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes [start, end) of each range, in the order asked. NotFound; DamageError when the object is shorter."""
        ...

    def size(self, key: str) -> int | None:
        """The object's size in bytes, None when it is not there."""
        ...

    def list(self, prefix: str) -> Iterator[Stat]:
        """Every object below `prefix` (which ends in `/`, or is empty), in no promised order; unfinished writes are not objects.
        NoListing, at the call itself, where the place cannot say what it has."""
        ...


class WritableStore(ReadableStore, Protocol):
    """A place that objects can be created in. No method here overwrites, but `put_hint`."""

    def create(self, key: str, data: Data) -> bool:
        """Create the object, durable and whole when this returns True. False: one of that name is there, durable too (perhaps
        ours: after a lost answer, and where a service says "conflict" and means "try again", so the caller reads it back).
        Never overwrites, never leaves half an object under its name, and refuses (UsageError) where the place cannot promise
        that. May be called twice."""
        ...

    def put_hint(self, key: str, data: Data) -> None:
        """Write an object whose loss or staleness does no harm, replacing what was there. Readers see the old or the new one."""
        ...

    def sweep(self) -> int:
        """Remove what dead writers left behind (temporary files, unfinished multipart uploads older than a day); how many."""
        ...

    def free_bytes(self) -> tuple[int, int] | None:
        """(free, total) bytes for this user where the place knows them, else None."""
        ...


class MaintainedStore(WritableStore, Protocol):
    """A place that objects can be taken from."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects; those that are not there are no error."""
        ...


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """What it takes to open a store, picklable: URL plus the client's settings (no secret but `dav_password`: those stay in the
    environment, in the profile and in the key file, which workers share).

    url: folder path, `file://`, `s3://bucket/prefix`, `gs://`, `az://`, `https://host/path` (with a key the target of a
    `mirror serve`, else read only), `dav+https://host/path`, or `memory://NAME` (one process, tests). endpoint_url, region,
    profile: as boto3 means them. static_credentials: the environment holds keys, and no file has anything to add to them (set by
    `mirror.store.aws.with_environment`; False is always right, and 0.3 s slower). bandwidth: bytes a second, 0 for no limit.
    transfers: requests in flight. answered: this run has had an answer from there, so another process of it is patient from its
    first request on (of HTTP and WebDAV).

    key_file: path of the client's key; insecure: plain http to another machine is accepted. Of WebDAV: single_writer, the caller
    vouches that nobody else writes there; dav_user and dav_password, as the environment has them (config.py alone reads it; they
    are neither shown nor stored, and cross to this run's own workers); netrc, the file to look into where it has none. proxies: by
    way of whom web servers are asked (they may hold a password, which is not shown either).
    """

    url: str
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    static_credentials: bool = False
    bandwidth: int = 0
    transfers: int = 8
    answered: bool = False
    key_file: str = ""
    insecure: bool = False
    single_writer: bool = False
    dav_user: str = ""
    dav_password: str = field(default="", repr=False)
    netrc: str = ""
    proxies: Proxies = field(default_factory=Proxies)
