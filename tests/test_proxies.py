"""Web servers that are asked by way of a proxy, as the environment names it: a real proxy, a real `mirror serve`, real WebDAV."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import certified
from davservers import DavServer
from drive import cli
from mirrors import make_site, tree
from proxies import Proxy
from servers import free_ports
from serving import Served
from webservers import Say, WebServer

from mirror.errors import UsageError
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.webclient.client import WebClient
from mirror.webclient.proxies import Proxies, login_in, proxies_in

HOST = "mirrors.example.test"  # a name that nobody but the proxy knows
NAMED = "http://proxy:3128"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


def test_a_mirror_over_https_by_way_of_a_proxy(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it goes through tunnels, also from workers; the server sees what it would see without."""
    certificate, private = certified(tmp_path, HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        Served(tmp_path / "server", "--certfile", str(certificate), "--keyfile", str(private)) as server,
        Proxy({HOST: server.port}, "me:pass word") as proxy,
    ):
        server.init("www")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://me:pass%20word@"))
        monkeypatch.setenv("MIRROR_KEY_FILE", str(server.key_file))
        url = f"https://{HOST}/www"
        assert cli("sync", site, url, "--workers", 2).code == 0
        assert cli("restore", url, tmp_path / "back").code == 0
        assert set(proxy.asked) == {f"CONNECT {HOST}:443"}
        seen = len(proxy.asked)
        monkeypatch.setenv("NO_PROXY", f"elsewhere.test,{HOST}")
        done = cli("snapshots", url)  # directly, so its name is not known
        assert (done.code, len(proxy.asked)) == (5, seen)
        assert "no connection to the server" in done.error
    assert tree(tmp_path / "back") == tree(site)


def test_plain_http_by_way_of_a_proxy(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Served(tmp_path / "server") as server, Proxy({HOST: server.port}) as proxy:
        server.init("www")
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("MIRROR_KEY_FILE", str(server.key_file))
        assert cli("sync", site, f"http://{HOST}/www", "--insecure").code == 0
        assert cli("verify", f"http://{HOST}/www", "--insecure", "--against", site).code == 0
        assert f"GET http://{HOST}/www/mirror.json" in proxy.asked
        assert cli("sync", site, f"http://{HOST}/www").code == 2  # a proxy does not make it safe
        # This machine is never asked by way of it.
        seen = len(proxy.asked)
        assert cli("snapshots", f"{server.url}/www").code == 0
        assert len(proxy.asked) == seen


def test_webdav_by_way_of_a_proxy(
    dav_servers: Callable[[str], DavServer], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own password is not the proxy's."""
    server = dav_servers("apache")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    folder = server.new_place()
    with Proxy({HOST: server.port}, "proxy:secret") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://proxy:secret@"))
        assert cli("sync", site, f"dav+http://{HOST}{folder}", "--insecure", "--workers", 0).code == 0
        assert any(each.startswith(f"MKCOL http://{HOST}/") for each in proxy.asked)
    assert cli("verify", f"{server.url}{folder}", "--against", site).code == 0


def port_of(server: WebServer) -> int:
    return int(server.url.rpartition(":")[2])


def test_a_redirect_leads_to_where_there_is_no_proxy() -> None:
    with WebServer(lambda _: Say(200, b"here")) as there:
        with WebServer(lambda _: Say(302, b"", {"Location": f"{there.url}/a"})) as server, Proxy({HOST: port_of(server)}) as proxy:
            with WebClient(f"http://{HOST}/x", insecure=True, proxies=Proxies(http=proxy.url)) as client:
                assert client.request("GET", "a", what="cannot read").body == b"here"
            assert proxy.asked == [f"GET http://{HOST}/x/a"]


# What goes wrong


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("login", ["", "me:wrong-0815@"])
def test_a_proxy_that_wants_a_password(scheme: str, login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy({HOST: 9}, "me:secret") as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url.replace("http://", f"http://{login}"))
        began = time.monotonic()
        done = cli("snapshots", f"{scheme}://{HOST}/www", "--insecure")
        assert done.code == 7, done
        assert "the proxy wants another name and password (407)" in done.error
        assert f"{scheme.upper()}_PROXY" in done.error
        assert "0815" not in done.err
        assert time.monotonic() - began < 10
        monkeypatch.setenv("MIRROR_DAV_USER", "somebody")
        done = cli("sync", ".", f"dav+{scheme}://{HOST}/www", "--insecure", "--layout", "packed")
        assert (done.code, f"{scheme.upper()}_PROXY" in done.error) == (7, True), done


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret-0815@127.0.0.1:{free_ports(1)[0]}")
    done = cli("snapshots", f"{scheme}://{HOST}/www", "--insecure")
    assert done.code == 5, done
    assert "no connection to the proxy (connection refused)" in done.error
    assert f"{scheme.upper()}_PROXY" in done.error
    assert "0815" not in done.err


def test_a_proxy_that_does_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy({}) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        done = cli("snapshots", f"https://{HOST}/www")
        assert done.code == 5, done
        assert "no connection to the server (the proxy says 503 Service Unavailable)" in done.error


@pytest.mark.parametrize("wrong", ["socks5://proxy:1080", "http://", "http://proxy:port", "http://me:0815@[bad", "ftp://proxy"])
def test_what_is_no_proxy(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", wrong)
    for url in (f"https://{HOST}/www", f"dav+https://{HOST}/www"):
        done = cli("snapshots", url)
        assert done.code == 2, done
        assert "cannot use the proxy HTTPS_PROXY: what it names is no HTTP proxy" in done.error
        assert "0815" not in done.err
    assert cli("snapshots", "https://127.0.0.1:9/www").code == 5  # it is not for this machine
    with pytest.raises(UsageError):
        open_store(StoreSpec(f"https://{HOST}/www", proxies=Proxies(https=wrong)))


# Who is asked how


@pytest.mark.parametrize(
    ("environment", "https", "http"),
    [
        ({}, "", ""),
        ({"HTTPS_PROXY": NAMED}, NAMED, ""),
        ({"https_proxy": NAMED, "HTTPS_PROXY": "http://other"}, NAMED, ""),
        ({"http_proxy": NAMED}, "", NAMED),
        ({"HTTP_PROXY": NAMED}, "", NAMED),
        ({"HTTP_PROXY": NAMED, "REQUEST_METHOD": "GET"}, "", ""),  # httpoxy
        ({"http_proxy": NAMED, "REQUEST_METHOD": "GET"}, "", NAMED),
        ({"https_proxy": "", "HTTPS_PROXY": ""}, "", ""),
        ({"https_proxy": "proxy:3128"}, NAMED, ""),
        ({"https_proxy": "https://proxy:3128/"}, "https://proxy:3128", ""),
    ],
)
def test_which_variable(environment: dict[str, str], https: str, http: str) -> None:
    proxies = proxies_in(environment)
    assert (proxies.for_url("https://example.org/x"), proxies.for_url("http://example.org/x")) == (https, http)


@pytest.mark.parametrize(
    ("direct", "url", "is_direct"),
    [
        ("*", "https://example.org", True),
        ("example.org", "https://example.org", True),
        ("example.org", "https://EXAMPLE.org.", True),
        ("EXAMPLE.ORG", "https://www.example.org", True),
        (".example.org", "https://www.example.org", True),
        ("*.example.org", "https://www.example.org", True),
        ("example.org", "https://badexample.org", False),
        ("example.org", "https://example.org.evil.test", False),
        ("a.test, example.org ,b.test", "https://example.org", True),
        ("example.org:8443", "https://example.org:8443", True),
        ("example.org:8443", "https://example.org", False),
        ("example.org:443", "https://example.org", True),
        ("10.0.0.0/8", "https://10.200.3.4", True),
        ("10.0.0.0/8", "https://11.0.0.1", False),
        ("10.0.0.0/8", "https://example.org", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("2001:db8::/32", "https://[2001:db8::1]:8443", True),
        ("2001:db8::1", "https://[2001:db8::1]", True),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443", True),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]", False),
        ("nonsense/8", "https://example.org", False),
        (",,", "https://example.org", False),
        ("", "https://localhost:8443", True),
        ("", "https://127.0.0.9", True),
        ("", "https://[::1]:1", True),
    ],
)
def test_who_is_asked_directly(direct: str, url: str, is_direct: bool) -> None:
    proxies = proxies_in({"https_proxy": NAMED, "no_proxy": direct})
    assert (proxies.for_url(url) == "") is is_direct


def test_a_password_is_not_shown() -> None:
    proxies = proxies_in({"https_proxy": "http://me:s%40cret@proxy:3128", "http_proxy": "http://me:s%40cret@proxy:3128"})
    assert login_in(proxies.for_url("https://example.org")) == "me:s@cret"
    assert "cret" not in repr(StoreSpec("https://example.org", proxies=proxies))
