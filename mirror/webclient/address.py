"""Web addresses: the one spelling of a URL, what may be asked without TLS, and where a redirect may lead. Pure.

>>> base_url("HTTPS://www.Example.org:443/a b/")
'https://www.example.org/a%20b'
"""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, urljoin, urlsplit

from mirror.errors import UsageError

_PORTS = {"http": 80, "https": 443}


def base_url(url: str) -> str:
    """A URL without slash at its end, credentials, query or fragment. UsageError for what is none, or has those."""
    shown = shown_url(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError("cannot use", where=shown, why="it is no URL", hint="write https://HOST/PATH") from None
    if parts.scheme not in _PORTS or not host or any(ord(each) < 33 for each in host):
        raise UsageError("cannot use", where=shown, why="it names no host", hint="write https://HOST/PATH")
    if "@" in parts.netloc:
        raise UsageError(
            "cannot use", where=shown, why="there are credentials in the URL", hint="keep them in a file that only you can read"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise UsageError(
            "cannot use", where=shown, why="it has a query or a fragment, and keys come behind it", hint="give it without"
        )
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise UsageError("cannot use", where=shown, why="its path has `.` or `..`", hint="give it without")
    place = host_and_port(host, None if port == _PORTS[parts.scheme] else port)
    return f"{parts.scheme}://{place}{quote(parts.path.rstrip('/'), safe=_SAFE)}"


_SAFE = "/%:@!$&'()*+,;=~-._"


def host_and_port(host: str, port: int | None) -> str:
    """A host, and its port if it is to be named, as a URL has them.

    >>> host_and_port("example.org", None), host_and_port("::1", 8080)
    ('example.org', '[::1]:8080')
    """
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def check_plain(url: str, insecure: bool) -> None:
    """UsageError for plain http to another machine, where everybody on the way can read and change what is said."""
    if url.startswith("http://") and not insecure and not is_loopback(urlsplit(url).hostname or ""):
        why = "plain http is neither secret nor safe from changes on the way"
        raise UsageError("cannot use", where=shown_url(url), why=why, hint="use https://, or accept that with --insecure")


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.9"), is_loopback("::1"), is_loopback("localhost.example.org")
    (True, True, True, False)
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def led_to(url: str, location: str) -> str:
    """The whole URL that a redirect leads to; empty where it leads nowhere that could be asked."""
    if not location:
        return ""
    try:
        to = urljoin(url, location)
        parts = urlsplit(to)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ""
    return to if parts.scheme in _PORTS and host and "@" not in parts.netloc and to.isascii() and to.isprintable() else ""


def may_follow(url: str, to: str, insecure: bool) -> bool:
    """Whether a read may go on from one URL at another: never from https to http, nor to http that could not have been named."""
    if to.startswith("https://"):
        return True
    return url.startswith("http://") and (insecure or is_loopback(urlsplit(to).hostname or ""))


def shown_url(url: str) -> str:
    """A URL for messages: without user name, password and query, which may be secret. Messages end up in logs."""
    head, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    path, _, _ = path.partition("?")
    shown = f"{head}{separator}{authority.rpartition('@')[2].partition('?')[0]}{slash}{path}"
    return "".join(each if each.isprintable() else "?" for each in shown)[:500]
