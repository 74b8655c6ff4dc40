"""Who we are to a WebDAV server: the environment's name and password, else what a netrc file has for the host. Never the URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from mirror.errors import UsageError
from mirror.store import StoreSpec


def with_login(spec: StoreSpec, environment: Mapping[str, str]) -> StoreSpec:
    """The spec with what the environment says of a login, where it is for WebDAV or its URL is still to come. Pure: config.py hands
    it the environment."""
    if spec.url and not spec.url.startswith("dav+"):
        return spec
    user, password = environment.get("MIRROR_DAV_USER", ""), environment.get("MIRROR_DAV_PASSWORD", "")
    if password and not user:
        why = "there is MIRROR_DAV_PASSWORD, and no MIRROR_DAV_USER"
        raise UsageError("cannot use", where="MIRROR_DAV_PASSWORD", why=why, hint="give both, or none")
    home = environment.get("HOME", "")
    file = environment.get("NETRC", "") or (str(Path(home, ".netrc")) if home else "")
    return replace(spec, dav_user=user, dav_password=password, netrc=file)


def login_for(spec: StoreSpec) -> tuple[str, str]:
    """(name, password), both empty where nobody gave any. UsageError for a netrc file that cannot be understood."""
    if spec.dav_user or not spec.netrc:
        return spec.dav_user, spec.dav_password
    import netrc

    try:
        found = netrc.netrc(spec.netrc).authenticators(urlsplit(spec.url).hostname or "")
    except FileNotFoundError:
        return "", ""
    except (OSError, UnicodeError, netrc.NetrcParseError) as error:
        why = (error.msg if isinstance(error, netrc.NetrcParseError) else "") or getattr(error, "strerror", None) or "it is no text"
        hint = "mend it, or give MIRROR_DAV_USER and MIRROR_DAV_PASSWORD"
        raise UsageError("cannot read", where=spec.netrc, why=str(why), hint=hint) from None
    return (found[0] or "", found[2] or "") if found else ("", "")
