"""From a SiteSpec to a site. Loads a client library only when a URL needs it.

>>> open_site(SiteSpec("/srv/www")).url
'/srv/www'
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from mirror.errors import UsageError
from mirror.site import Site, SiteSpec
from mirror.site.files import FolderSite

# A chained fsspec URL (`zip::s3://…`) too; a path with a colon in it is a path.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(://|::)")


def open_site(spec: SiteSpec) -> Site:
    """The site behind a spec. Nothing is asked of the place itself yet. UsageError for a URL that cannot be one."""
    scheme = _SCHEME.match(spec.url)
    if not scheme:
        if not spec.url or "\0" in spec.url:
            raise UsageError("cannot use the source", where=repr(spec.url), why="it is not a path")
        return FolderSite(spec.url, filter=spec.filter, xattrs=spec.xattrs)
    if scheme[1] == "file" and scheme[2] == "://":
        parts = urlsplit(spec.url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError("cannot use the source", where=spec.url, why="a file:// URL has three slashes and an absolute path",
                             hint="write file:///path")  # fmt: skip
        # Not parts.path: `?` and `#` are letters of a path here.
        path = unquote(spec.url.removeprefix("file://").removeprefix(parts.netloc), errors="surrogateescape")
        return FolderSite(path, filter=spec.filter, xattrs=spec.xattrs)
    if scheme[1] == "s3" and scheme[2] == "://":
        from mirror.site.objects import ObjectSite

        return ObjectSite(spec)
    from mirror.site.anyfs import AnySite

    return AnySite(spec)
