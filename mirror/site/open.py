"""From a SiteSpec to a site. Loads a client library only when a URL needs it.

>>> open_site(SiteSpec("/srv/www")).url
'/srv/www'
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from mirror.errors import UsageError
from mirror.site import Site, SiteSpec, WritableSite
from mirror.site.files import FolderSite

# A chained fsspec URL (`zip::s3://…`) too; a path with a colon in it is a path.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(://|::)")


def open_site(spec: SiteSpec) -> Site:
    """The site behind a spec. Nothing is asked of the place itself yet. UsageError for a URL that cannot be one."""
    if spec.by_url and spec.key_file:
        from mirror.site.served import ServedSite

        return ServedSite(spec)
    if spec.by_url:
        from mirror.site.web import WebSite

        return WebSite(spec)
    folder = _folder(spec.url, "cannot use the source")
    if folder is not None:
        return FolderSite(folder, filter=spec.filter, xattrs=spec.xattrs, symlinks=spec.symlinks)
    if _is_bucket(spec.url):
        from mirror.site.objects import ObjectSite

        return ObjectSite(spec)
    from mirror.site.anyfs import AnySite

    return AnySite(spec)


def open_writable(spec: SiteSpec) -> WritableSite:
    """The same for a site that is to be written."""
    folder = _folder(spec.url, "cannot write to")
    if folder is not None:
        from mirror.site.folder_writing import WritableFolder

        return WritableFolder(folder, filter=spec.filter)
    if _is_bucket(spec.url):
        from mirror.site.bucket_writing import WritableBucket

        return WritableBucket(spec)
    from mirror.site.any_writing import WritableAny

    return WritableAny(spec)


def names_in(spec: SiteSpec) -> list[str]:
    """Some names at the top of an S3 prefix, folders with a slash; none when it is empty. One request."""
    from mirror.site.objects import ObjectSite

    return ObjectSite(spec).names()


def _folder(url: str, what: str) -> str | None:
    """The path of a local folder; None for another URL. UsageError, beginning with `what`."""
    scheme = _SCHEME.match(url)
    if not scheme:
        if not url or "\0" in url:
            raise UsageError(what, where=repr(url), why="it is not a path")
        return url
    if scheme[1] != "file" or scheme[2] != "://":
        return None
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(what, where=url, why="a file:// URL has three slashes and an absolute path", hint="write file:///path")
    # Not parts.path: `?` and `#` are letters of a path here.
    return unquote(url.removeprefix("file://").removeprefix(parts.netloc), errors="surrogateescape")


def _is_bucket(url: str) -> bool:
    return url.startswith("s3://")
