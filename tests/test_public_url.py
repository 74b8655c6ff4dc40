"""`--public-url`: a tree is not published into while everybody can fetch its `.mirror/`, as real HTTP servers that serve it say."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from drive import cli, shape
from mirrors import BEGINNING, write
from servers import free_ports, mute_socket

import mirror
from mirror import public
from mirror.errors import UsageError
from mirror.public import exposure

Rule = Callable[[http.server.SimpleHTTPRequestHandler], bool]


@contextmanager
def served(folder: Path, rule: Rule | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server over a folder: (its URL, headers and path of each request). rule: answers a request itself and says so."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({**dict(self.headers.items()), "path": self.path})
            if rule is None or not rule(self):
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Rule:
    """A rule that gives this to everything below `.mirror/`."""

    def rule(request: http.server.SimpleHTTPRequestHandler) -> bool:
        if "/.mirror/" not in request.path:
            return False
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return True

    return rule


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write(tmp_path / "site/index.html", b"<h1>one</h1>")
    return tmp_path / "site"


@pytest.fixture(params=["inside", "elsewhere"])
def tree(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Path:
    """A tree with a snapshot, and a page that waits to be published."""
    more = ["--store", tmp_path / "history"] if request.param == "elsewhere" else []
    assert cli("sync", site, tmp_path / "www", "--min-free", "0", *more).code == 0
    write(site / "index.html", b"<h1>two</h1>", BEGINNING + 1)
    return tmp_path / "www"


def sync(site: Path, tree: Path, url: str, *more: object) -> Any:
    """A sync of it."""
    return cli("sync", site, tree, "--min-free", "0", "--public-url", url, *more)


def is_published(tree: Path) -> bool:
    """Whether the second page is live."""
    return (tree / "index.html").read_bytes() == b"<h1>two</h1>"


def test_a_server_without_the_rule_stops_the_run(site: Path, tree: Path) -> None:
    before = shape(tree)
    name = "mirror.json" if (tree / ".mirror/mirror.json").exists() else "store.json"
    with served(tree) as (url, seen):
        for more in ([], ["-n"]):
            done = sync(site, tree, f"{url}/", *more)
            assert done.code == 2
            assert f"cannot publish into {tree}: everybody can read {url}/.mirror/{name}" in done.error
            assert "in nginx: location ^~ /.mirror/ { return 404; }" in done.error
        assert [each["path"] for each in seen] == [f"/.mirror/{name}"] * 2, "asked once, and for nothing else"
    assert shape(tree) == before


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_a_server_with_the_rule_is_fine(site: Path, tree: Path, status: int) -> None:
    with served(tree, answer(status, b"no", WWW_Authenticate="Basic realm=x")) as (url, _):
        done = sync(site, tree, url)
        assert (done.code, "note:" in done.err, is_published(tree)) == (0, False, True), done
        assert cli("verify", tree, "--public-url", url).code == 0


def test_a_page_for_everything_is_no_leak(site: Path, tree: Path) -> None:
    """As a single-page application has it: whatever is asked for, the answer is 200 and index.html."""
    for body in (b"<!doctype html><title>app</title>", b"", b'{"uuid": "' + b"0" * 32 + b'"}', b"\xff" * 70_000):
        with served(tree, answer(200, body)) as (url, _):
            done = sync(site, tree, url)
            assert (done.code, "note:" in done.err) == (0, False), done
    assert is_published(tree)


def test_a_new_tree_is_looked_at_before_anything_of_the_site_is_there(site: Path, tmp_path: Path) -> None:
    tree = tmp_path / "www"
    tree.mkdir()
    with served(tree) as (url, _):
        assert sync(site, tree, url, "-n").code == 0, "nothing is there that could be found"
        assert os.listdir(tree) == []
        assert sync(site, tree, url).code == 2
    assert os.listdir(tree) == [".mirror"]
    assert not (tree / ".mirror/log").exists()
    with served(tree, answer(404)) as (url, _):
        assert sync(site, tree, url).code == 0
    assert (tree / "index.html").exists()


def test_below_a_path(site: Path, tree: Path) -> None:
    with served(tree.parent) as (url, _):
        done = sync(site, tree, f"{url}/www")
        assert (done.code, "location ^~ /www/.mirror/ {" in done.error) == (2, True), done


def test_verify_names_it_and_goes_on(site: Path, tree: Path) -> None:
    write(tree / "index.html", b"a stranger's", BEGINNING + 9)
    with served(tree) as (url, _):
        done = cli("verify", tree, "--public-url", url, "--json")
    assert done.code == 4
    problems = {each["kind"]: each for each in json.loads(done.out.splitlines()[-1])["problems"]}
    assert problems.keys() >= {"public", "differs"}
    assert problems["public"]["path"].startswith(f"{url}/.mirror/")
    assert "return 404" in problems["public"]["hint"]


def test_a_server_that_cannot_be_reached_is_said(site: Path, tree: Path) -> None:
    """The tree may not be served yet."""
    (port,) = free_ports(1)
    done = sync(site, tree, f"http://127.0.0.1:{port}")
    assert (done.code, is_published(tree)) == (0, True), done
    assert f"note: whether http://127.0.0.1:{port}/.mirror/" in done.err
    assert "is hidden cannot be told: there was no answer (" in done.err
    assert sync(site, tree, f"http://127.0.0.1:{port}", "-q").err == ""
    assert "cannot be told" in sync(site, tree, "http://no-such-host.invalid").err
    assert "cannot be told" in cli("verify", tree, "--public-url", f"https://127.0.0.1:{port}").err


@pytest.mark.parametrize("status", [500, 502, 429])
def test_a_server_that_fails_is_said(site: Path, tree: Path, status: int) -> None:
    with served(tree, answer(status)) as (url, _):
        done = sync(site, tree, url)
    assert (done.code, f"cannot be told: it answered {status}" in done.err) == (0, True), done


def test_redirects(site: Path, tree: Path) -> None:
    """On the same host they are followed, as from http to https. To another host no request is made."""
    with served(tree) as (open_url, asked):
        path = f"{open_url}/.mirror/" + ("mirror.json" if (tree / ".mirror/mirror.json").exists() else "store.json")
        with served(tree, answer(301, Location=path)) as (url, _):
            assert sync(site, tree, url).code == 2
        assert len(asked) == 1
        elsewhere = path.replace("127.0.0.1", "localhost"), path.replace("//", "//user:secret@")
        for place in (*elsewhere, "file:///etc/passwd", "//x/", "?"):
            with served(tree, answer(302, Location=place)) as (url, _):
                done = sync(site, tree, url)
                assert (done.code, "cannot be told" in done.err) == (0, True), done
                assert "secret" not in done.err
        assert len(asked) == 1
        with served(tree, answer(302, Location=path.replace("127.0.0.1", "localhost"))) as (url, _):
            assert "it leads to another host ('localhost'): name that one" in sync(site, tree, url).err


def test_no_credentials_are_sent(site: Path, tree: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None that lie around on this machine."""
    (isolated / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (isolated / ".netrc").chmod(0o600)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with served(tree, answer(401, WWW_Authenticate='Basic realm="x"')) as (url, seen):
        assert sync(site, tree, url).code == 0
    assert {name.lower() for name in seen[0]} == {"host", "user-agent", "cache-control", "accept-encoding", "connection", "path"}
    assert base64.b64encode(b"me:secret").decode() not in str(seen)


def test_it_takes_at_most_so_long(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server that is silent nor one that drips keeps a night from being published."""
    monkeypatch.setattr(public, "_SECONDS", 0.5)
    with mute_socket() as place:
        assert "timed out" in exposure(f"http://{place}", "mirror.json", "0" * 32).unsure
    stop = threading.Event()

    def drip(request: http.server.SimpleHTTPRequestHandler) -> bool:
        request.send_response(200)
        request.end_headers()
        while not stop.wait(0.1):
            try:
                request.wfile.write(b".")
            except OSError:
                break
        return True

    with served(tree, drip) as (url, _):
        found = exposure(url, "mirror.json", "0" * 32)
        stop.set()
    assert (found.is_open, found.unsure) == (False, "its answer did not end in time")


def test_the_tree_of_another_mirror_is_said(site: Path, tree: Path, tmp_path: Path) -> None:
    assert cli("sync", site, tmp_path / "other").code == 0
    data = (tmp_path / "other/.mirror/mirror.json").read_bytes()
    with served(tree, answer(200, data)) as (url, _):
        done = sync(site, tree, url)
    assert (done.code, "the tree of another mirror is there: is that the right URL?" in done.err) == (0, True), done


def test_said_by_variable_file_and_api(site: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tree) as (url, _):
        text = f"[mirrors.www]\nsource = '{site}'\ntarget = '{tree}'\npublic-url = '{url}'\n"
        (tmp_path / "mirror.toml").write_text(text)
        assert cli("sync", "www", "--config", tmp_path / "mirror.toml").code == 2
        assert cli("verify", "www", "--config", tmp_path / "mirror.toml").code == 4
        with pytest.raises(UsageError, match="everybody can read"):
            mirror.sync(site, tree, public_url=url)
        assert mirror.verify(tree, public_url=url).exit_code == 4
        monkeypatch.setenv("MIRROR_PUBLIC_URL", url)
        assert cli("sync", site, tree).code == 2
        assert cli("verify", tree).code == 4
        assert cli("ls", tree).code == 0


def test_a_packed_target_is_not_asked_about(site: Path, tmp_path: Path) -> None:
    with served(tmp_path) as (url, seen):
        done = sync(site, tmp_path / "packed", url, "--layout", "packed")
        assert (done.code, "only a tree is to be served" in done.err, seen) == (0, True, [])
        assert cli("verify", tmp_path / "packed", "--public-url", url).code == 0


@pytest.mark.parametrize(
    "value",
    ["www.example.org", "ftp://example.org", "https://", "https://a b/", "http://x:99999999", "https://x/?q", "file:///srv/www"],
)
def test_wrong_values(site: Path, tmp_path: Path, value: str) -> None:
    done = sync(site, tmp_path / "www", value)
    assert (done.code, done.error) == (2, f"cannot use --public-url {value!r}: it is no URL such as https://www.example.org")
    assert not (tmp_path / "www").exists()


def test_credentials_in_the_url_are_refused_and_not_repeated(site: Path, tmp_path: Path) -> None:
    done = sync(site, tmp_path / "www", "https://me:secret@www.example.org")
    assert (done.code, "it is not to have credentials in it" in done.error, "secret" in done.err) == (2, True, False)
    (tmp_path / "mirror.toml").write_text("[mirrors.x]\npublic-url = 'https://me:secret@www.example.org'\n")
    done = cli("ls", "x", "--config", tmp_path / "mirror.toml")
    assert (done.code, "credentials" in done.error, "secret" in done.err) == (2, True, False)
