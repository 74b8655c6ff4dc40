"""From a StoreSpec to a store. Loads a client library only when a URL needs it.

>>> open_store(StoreSpec("memory://doc")).url
'memory://doc'
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mirror.errors import UsageError
from mirror.store import MaintainedStore, StoreSpec
from mirror.store.wrap import LimitedStore

KNOWN = "a folder, file://, s3://, gs://, az://, https://, dav+https://, memory://"


def open_store(spec: StoreSpec) -> MaintainedStore:
    """The store behind a spec, held to its bandwidth. Nothing is asked of the place itself yet. UsageError for a URL that
    cannot be one; AuthError when there are no credentials to try."""
    store = _open(spec, normalise_url(spec.url))
    return LimitedStore(store, spec.bandwidth) if spec.bandwidth else store


def normalise_url(url: str) -> str:
    """The one spelling of a store's URL: no slash at the end, a folder as its absolute path. UsageError for what cannot be a store.

    >>> normalise_url("s3://bucket/prefix/"), normalise_url("file:///srv/a%20b/")
    ('s3://bucket/prefix', '/srv/a b')
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url or "\0" in url:
            raise UsageError("cannot use", where=repr(url), why="it is not a path")
        return os.path.abspath(url)
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(
                "cannot use", where=url, why="a file:// URL has three slashes and an absolute path", hint="write file:///path"
            )
        return os.path.abspath(unquote(rest.removeprefix(parts.netloc), errors="surrogateescape"))
    if scheme.lower() in ("http", "https"):
        from mirror.webclient.address import base_url

        return base_url(url)
    if scheme in ("dav+https", "dav+http"):
        from mirror.webclient.address import base_url

        return f"dav+{base_url(url.removeprefix('dav+'))}"
    if scheme not in ("s3", "gs", "az", "memory"):
        raise UsageError("cannot use", where=f"{scheme}://", why="stores of this kind are not known", hint=f"known are {KNOWN}")
    if "@" in rest.partition("/")[0]:
        # Not even the name is repeated: the message ends up in logs.
        raise UsageError("cannot use", where=f"{scheme}://…@{rest.partition('@')[2]}", why="there are credentials in the URL",
                         hint="put them into the environment or a profile")  # fmt: skip
    return f"{scheme}://{rest.rstrip('/')}"


def is_folder_url(url: str) -> bool:
    """Whether a URL means a local folder."""
    return "://" not in url or url.startswith("file://")


def is_web_url(url: str) -> bool:
    """Whether a URL means files behind a web server."""
    return url.startswith(("http://", "https://"))


def folder_of(url: str) -> Path:
    """The absolute path behind a folder's URL."""
    return Path(os.path.abspath(url.removeprefix("file://")))


def _open(spec: StoreSpec, url: str) -> MaintainedStore:
    scheme, separator, rest = url.partition("://")
    if not separator:
        from mirror.store.fs import FolderStore

        return FolderStore(url)
    if scheme == "memory":
        from mirror.store.memory import MemoryStore

        return MemoryStore.named(rest)
    if scheme in ("http", "https") and spec.key_file:
        from mirror.store.served import ServedStore

        return ServedStore(spec)
    if scheme in ("http", "https"):
        from mirror.store.web import WebStore

        return WebStore(spec)
    from dataclasses import replace

    if scheme in ("dav+https", "dav+http"):
        from mirror.store.dav import DavStore

        return DavStore(replace(spec, url=url))
    from mirror.store.s3 import BucketStore

    return BucketStore(replace(spec, url=url))
