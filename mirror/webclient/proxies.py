"""Which proxy a web server is asked by way of, as the environment has it, in the manner of curl and of Go's programs. Pure.

`https_proxy` is for https, `http_proxy` for http; where one is not set, the same in capitals (`HTTP_PROXY` not in a CGI program,
where it is a header of whoever asks). `no_proxy` lists, between commas, who is asked directly: names with all below them,
addresses, networks (`10.0.0.0/8`), names and addresses with a `:PORT` if only that is meant; `*` is everybody. This machine is
never asked by way of a proxy.

>>> proxies = proxies_in({"https_proxy": "proxy.example.org:3128", "NO_PROXY": "intern.example.org, 10.0.0.0/8"})
>>> [proxies.for_url(f"https://{host}/x") for host in ("example.org", "a.intern.example.org", "10.1.2.3", "localhost")]
['http://proxy.example.org:3128', '', '', '']
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mirror.errors import UsageError
from mirror.webclient.address import is_loopback

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxies:
    """https, http: URL of the proxy for each, empty for none; they may hold a password. direct: who is asked without one."""

    https: str = field(default="", repr=False)
    http: str = field(default="", repr=False)
    direct: tuple[str, ...] = ()

    def for_url(self, url: str) -> str:
        """The URL of the proxy by way of which this one is asked, empty for none. UsageError where it is none."""
        parts = urlsplit(url)
        named = self.https if parts.scheme == "https" else self.http
        host = (parts.hostname or "").rstrip(".")
        if not named or is_loopback(host) or any(_is_meant(each, host, parts.port or _PORTS[parts.scheme]) for each in self.direct):
            return ""
        return _proxy_url(named, f"{parts.scheme}_proxy".upper())


def proxies_in(environment: Mapping[str, str]) -> Proxies:
    """What the environment says of proxies. config.py hands it in."""

    def said(name: str) -> str:
        return (environment.get(name) or environment.get(name.upper()) or "").strip()

    http = environment.get("http_proxy", "").strip() if "REQUEST_METHOD" in environment else said("http_proxy")
    return Proxies(said("https_proxy"), http, tuple(filter(None, (each.strip().lower() for each in said("no_proxy").split(",")))))


def login_in(proxy: str) -> str:
    """`NAME:PASSWORD` that a proxy is to be told, empty for none."""
    parts = urlsplit(proxy)
    return f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""


def _proxy_url(named: str, variable: str) -> str:
    url = named if "://" in named else f"http://{named}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in _PORTS or not url.isascii() or not url.isprintable():
        # Not shown: there may be a password in it.
        hint = f"give it as http://HOST:PORT; or say with NO_PROXY who is asked without one, or unset {variable}"
        raise UsageError("cannot use the proxy", where=variable, why="what it names is no HTTP proxy", hint=hint)
    return url.rstrip("/")


def _is_meant(each: str, host: str, port: int) -> bool:
    """Whether an item of NO_PROXY is about this host."""
    if each == "*":
        return True
    if "/" in each:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(each, strict=False)
        except ValueError:
            return False
    name, colon, number = each.rpartition(":")
    if colon and number.isascii() and number.isdigit() and (name.endswith("]") or ":" not in name):
        if int(number) != port:
            return False
        each = name
    each = each.strip("[]").removeprefix("*").strip(".")
    return bool(each) and (host == each or host.endswith(f".{each}"))
