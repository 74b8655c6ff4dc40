"""`mirror serve` as its clients meet it: a target on another machine, used by the verbs; and who does not belong there.

The server is a process of its own. What it has is looked at in its folder, past the server.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import certified
from servers import free_ports
from serving import Served

import mirror
from mirror.access import ClientKey, line_of, read_client_key
from mirror.errors import AuthError, MirrorError, NotFound, TargetMissingError, TemporaryError, UsageError
from mirror.serve.listening import listen
from mirror.signing import WINDOW, digest_of_body, sign_request
from mirror.store import MaintainedStore, StoreSpec
from mirror.store.open import open_store
from mirror.store.served import ServedStore

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        server.new_key("reader", "read")
        server.new_key("pruner", "read,append,prune")
        yield server


@pytest.fixture
def name(server: Served, tmp_path: Path) -> str:
    """A fresh target of the server."""
    server.init(tmp_path.name)
    return tmp_path.name


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    for number in range(40):
        path = folder / f"{number % 4}" / f"page{number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<p>page {number}</p>\n" * (number + 1))
    (folder / "noise.bin").write_bytes(os.urandom(300_000))
    (folder / "link").symlink_to("0/page0.html")
    return folder


def things(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, but unfinished writes and the hint."""
    every = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and ".mirror-tmp" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in every if path.name != "latest.json"}


def run(*words: str | Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """`mirror` on the client's machine."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, "-W", "error", "-m", "mirror", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


# The verbs


def test_there_and_back(server: Served, name: str, site: Path, tmp_path: Path) -> None:
    url, key = f"{server.url}/{name}", {"key_file": server.key_file}
    first = mirror.sync(site, url, **key)
    assert (first.exit_code, first.snapshot, first.added) == (0, 1, 47)
    (site / "0/page0.html").write_text("changed")
    (site / "1/page1.html").unlink()
    second = mirror.sync(site, url, **key)
    assert (second.exit_code, second.snapshot, second.changed, second.deleted) == (0, 2, 1, 1)
    assert second.bytes_stored < 5000
    assert [line.number for line in mirror.snapshots(url, **key)] == [1, 2]
    assert mirror.verify(url, against=site, **key).exit_code == 0
    assert mirror.restore(url, tmp_path / "back", **key).exit_code == 0
    assert things(tmp_path / "back") == things(site)
    assert mirror.restore(url, tmp_path / "old", at="1", **key).exit_code == 0
    assert (tmp_path / "old/1/page1.html").exists()
    assert [entry.path for entry in mirror.ls(url, ["link"], **key)] == [b"link"]
    # What came over the wire is a target like any other, on the machine where it is.
    assert mirror.verify(server.root / name).exit_code == 0
    assert not list((server.root / name / ".mirror-tmp").iterdir())


def test_a_night_without_changes_costs_a_few_questions(server: Served, name: str, site: Path) -> None:
    url = f"{server.url}/{name}"
    mirror.sync(site, url, key_file=server.key_file)
    before = things(server.root / name)
    report = mirror.sync(site, url, key_file=server.key_file)
    assert (report.snapshot, report.entries) == (0, 47)
    assert sum(count for kind, count in report.requests.items() if not kind.startswith("bytes")) <= 8
    assert things(server.root / name) == before


def test_with_two_workers(server: Served, name: str, site: Path) -> None:
    for number in range(700):
        (site / f"many{number}").write_bytes(os.urandom(40_000))
    url = f"{server.url}/{name}"
    assert mirror.sync(site, url, key_file=server.key_file, workers=2).exit_code == 0
    assert mirror.verify(url, key_file=server.key_file, against=site).exit_code == 0


def test_two_syncs_at_once_both_end_well(server: Served, name: str, site: Path, tmp_path: Path) -> None:
    url = f"{server.url}/{name}"
    caches = [tmp_path / "cache1", tmp_path / "cache2"]  # two hosts: no lock between them
    reports = []

    def sync(cache: Path) -> None:
        reports.append(mirror.sync(site, url, key_file=server.key_file, cache_dir=cache, tag=[cache.name]))

    threads = [threading.Thread(target=sync, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.snapshot for report in reports) == [1, 2]
    assert mirror.verify(url, key_file=server.key_file).exit_code == 0


def test_from_the_command_line(server: Served, name: str, site: Path, tmp_path: Path) -> None:
    url = f"{server.url}/{name}"
    assert run("sync", site, url, MIRROR_KEY_FILE=server.key_file).returncode == 0
    (tmp_path / "mirror.toml").write_text(f'[mirrors.www]\nsource = "{site}"\ntarget = "{url}"\nkey-file = "my.key"\n')
    shutil.copy2(server.key_file, tmp_path / "my.key")
    listed = run("snapshots", "www", "--json", "--config", tmp_path / "mirror.toml")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout.splitlines()[0])["number"] == 1
    without = run("ls", url)
    assert (without.returncode, without.stdout) == (7, "")
    assert "--key-file" in without.stderr


def test_a_reader_reads(server: Served, name: str, site: Path, tmp_path: Path) -> None:
    url = f"{server.url}/{name}"
    mirror.sync(site, url, key_file=server.key_file)
    before = things(server.root / name)
    assert mirror.restore(url, tmp_path / "back", key_file=server.folder / "reader.key").exit_code == 0
    (site / "new").write_text("new")
    with pytest.raises(AuthError, match="has not the right append; ask there for a key with that right"):
        mirror.sync(site, url, key_file=server.folder / "reader.key")
    assert things(server.root / name) == before


def test_targets_are_made_where_the_server_is(server: Served, site: Path) -> None:
    done = run("sync", site, f"{server.url}/unheard-of", "--new-target", MIRROR_KEY_FILE=server.key_file)
    assert done.returncode == 3
    assert "mirror init ROOT/unheard-of" in done.stderr
    assert not (server.root / "unheard-of").exists()


def test_a_tree_whose_store_is_elsewhere_is_refused_in_words(server: Served, site: Path, tmp_path: Path) -> None:
    mirror.init(server.root / "apart", layout="tree", store=tmp_path / "its store")
    with pytest.raises(UsageError, match="it is a tree whose store is elsewhere: sync into it where it is"):
        mirror.sync(site, f"{server.url}/apart", key_file=server.key_file)


# Who asks


def stranger(server: Served, key: ClientKey, tmp_path: Path) -> Path:
    path = tmp_path / "strange.key"
    path.write_text(line_of(key))
    path.chmod(0o600)
    return path


def test_unknown_and_wrong_keys(server: Served, name: str, tmp_path: Path) -> None:
    url = f"{server.url}/{name}"
    with pytest.raises(AuthError, match="there is no key 'stranger'; ask for a key there: mirror key new"):
        mirror.snapshots(url, key_file=stranger(server, ClientKey("stranger", bytes(32)), tmp_path))
    wrong, right = ClientKey("nightly", bytes(32)), read_client_key(str(server.key_file))
    with pytest.raises(AuthError) as caught:
        mirror.snapshots(url, key_file=stranger(server, wrong, tmp_path))
    assert f"that of the client has fingerprint {wrong.fingerprint}, that of the server {right.fingerprint}" in str(caught.value)
    assert "127.0.0.1: GET" in [line for line in server.log.splitlines() if "wrong-secret" in line][-1]


@pytest.mark.parametrize("path", ["", "/www/below", "/w%77w", "/-"])
def test_a_url_that_names_no_target_of_a_server(path: str, server: Served) -> None:
    with pytest.raises(UsageError, match=r"it is not the URL of a target of a `mirror serve`; write https://HOST/NAME"):
        mirror.snapshots(f"{server.url}{path}", key_file=server.key_file)


def test_a_revoked_key_is_none_at_once(server: Served, name: str) -> None:
    from mirror.access import KeyFile

    path = server.new_key("leaver", "read")
    store = open_store(server.spec(name, path))
    assert store.size("mirror.json")
    KeyFile(str(server.keys)).revoke("leaver")
    with pytest.raises(AuthError, match="there is no key 'leaver'"):
        store.size("mirror.json")


class Raw:
    """Requests as they are written, without the client."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.key = read_client_key(str(server.key_file))

    def ask(
        self, method: str, target: str, body: bytes | None = None, sign: bool = True, now: float | None = None, **headers: str
    ) -> tuple[int, dict[str, object]]:
        """(status, JSON of the answer)."""
        return self.send(method, target, self.headers(method, target, body, now, **headers) if sign else headers, body)

    def headers(self, method: str, target: str, body: bytes | None, now: float | None = None, **headers: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named = {"content-length": str(len(body)), "content-digest": digest_of_body(body)} | named
        return sign_request(self.key, method, f"http://127.0.0.1{target}", named, now)

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection._validate_path = lambda _: None  # type: ignore[attr-defined]
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for header, value in headers.items():
                connection.putheader(header, value)
            connection.endheaders(body)
            got = connection.getresponse()
            data = got.read()
            return got.status, json.loads(data) if data.startswith(b"{") else {}
        finally:
            connection.close()


@pytest.fixture
def raw(server: Served) -> Raw:
    return Raw(server)


def test_without_a_signature_nothing(raw: Raw, name: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE", "OPTIONS"):
        status, said = raw.ask(method, f"/{name}/mirror.json", sign=False)
        assert (status, said["kind"]) == (401, "not-signed")
    assert f"GET /{name}/mirror.json: the request is not signed: name the file" in raw.server.log


@pytest.mark.parametrize("seconds", [-WINDOW - 100, WINDOW + 100])
def test_a_clock_that_is_wrong_is_told_by_how_much(raw: Raw, name: str, seconds: int) -> None:
    status, said = raw.ask("GET", f"/{name}/mirror.json", now=time.time() + seconds)
    assert (status, said["kind"]) == (401, "clock")
    found = re.search(r"(\d+) seconds (ahead of|behind)", str(said["detail"]))
    assert found
    assert abs(int(found[1]) - abs(seconds)) < 30
    assert found[2] == ("ahead of" if seconds > 0 else "behind")


def test_a_request_that_was_heard_is_not_heard_again(raw: Raw, name: str) -> None:
    target = f"/{name}/mirror.json"
    signed = raw.headers("GET", target, None)
    assert raw.send("GET", target, signed)[0] == 200
    status, said = raw.send("GET", target, signed)
    assert (status, said["kind"]) == (401, "replayed")
    assert raw.send("GET", f"/{name}/latest.json", raw.headers("GET", target, None))[1]["kind"] == "altered"


def test_a_body_that_was_changed_on_the_way(raw: Raw, name: str) -> None:
    target = f"/{name}/latest.json"
    signed = raw.headers("PUT", target, b'{"number": 1}')
    status, said = raw.send("PUT", target, signed, b'{"number": 9}')
    assert (status, said["kind"]) == (400, "altered")
    assert not (raw.server.root / name / "latest.json").exists()


class Between:
    """A proxy that changes what passes; `spoil` gets the bytes of an answer."""

    def __init__(self, port: int, spoil: Callable[[bytes], bytes]) -> None:
        self._to, self._spoil = port, spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._to)) as there:
                there.sendall(client.recv(1 << 20))
                there.settimeout(1)
                answer = b""
                while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
                    answer += there.recv(1 << 20)
                client.sendall(self._spoil(answer))

    def close(self) -> None:
        self._listener.close()


def _length(answer: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", answer)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda answer: re.sub(rb"signature(-input)?: [^\r]*\r\n", b"", answer), "the remote does not sign its answers; is it a"),
        (lambda answer: answer.replace(b'"packed"', b'"peckad"'), "the body of the answer is not what was signed"),
        (lambda answer: answer.replace(b"200 OK", b"206 Partial"), "cannot be believed|answers 206"),
        (lambda answer: b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "does not sign its answers"),
        (lambda answer: b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/\r\ncontent-length: 0\r\n\r\n",
         "it redirects to http://evil.example/"),
        (lambda answer: b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "as no `mirror serve` does"),
    ],
)  # fmt: skip
def test_an_answer_that_was_changed_is_not_believed(server: Served, name: str, spoil: Callable[[bytes], bytes], words: str) -> None:
    between = Between(server.port, spoil)
    try:
        store = ServedStore(StoreSpec(f"http://127.0.0.1:{between.port}/{name}", key_file=str(server.key_file)), patience_seconds=0)
        with pytest.raises(MirrorError, match=words):
            store.get("mirror.json", 1 << 20)
    finally:
        between.close()


# What there is to be asked for


def test_objects_by_range_and_condition(raw: Raw, name: str, site: Path) -> None:
    server = raw.server
    mirror.sync(site, f"{server.url}/{name}", key_file=server.key_file)
    (pack,) = [key for key in things(server.root / name) if key.startswith("packs/")]
    data = (server.root / name / pack).read_bytes()

    def get(**headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", f"/{name}/{pack}", headers=raw.headers("GET", f"/{name}/{pack}", None, **headers))
        got = connection.getresponse()
        try:
            return got.status, got.read(), got.headers
        finally:
            connection.close()

    status, body, headers = get()
    assert (status, body, headers["Content-Length"], headers["Accept-Ranges"]) == (200, data, str(len(data)), "bytes")
    status, body, told = get(range="bytes=10-19")
    assert (status, body, told["Content-Range"]) == (206, data[10:20], f"bytes 10-19/{len(data)}")
    assert get(range=f"bytes={len(data) - 5}-")[1] == data[-5:]
    assert get(range=f"bytes={len(data) - 5}-999999999")[1] == data[-5:]
    assert get(range=f"bytes={len(data)}-")[0] == 416
    assert get(range="bytes=9-5")[:2] == (200, data)
    assert get(range="pages=1-2")[0] == 200
    status, body, again = get(if_none_match=headers["ETag"])
    assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    assert get(if_none_match='"another"')[0] == 200


def test_pages_of_a_listing(raw: Raw, name: str) -> None:
    folder = raw.server.root / name
    for number in range(1, 26):
        (folder / "log").mkdir(exist_ok=True)
        (folder / f"log/{number:012}.json").write_text("x")
    (folder / "log/not-ours.txt").write_text("x")
    found: list[str] = []
    while True:
        after = found[-1] if found else ""
        status, page = raw.ask("GET", f"/{name}/-/list?prefix=log/&after={after}&limit=10")
        assert status == 200
        found += [key for key, size in page["objects"] if size == 1]  # type: ignore[attr-defined]
        if not page["more"]:
            break
    assert found == [f"log/{number:012}.json" for number in range(1, 26)]
    for query in ("limit=0", "limit=10001", "limit=x", "prefix=log", "prefix=../"):
        assert raw.ask("GET", f"/{name}/-/list?{query}")[0] == 400


def test_a_target_that_was_made_anew_is_another_one(server: Served, name: str, site: Path) -> None:
    url = f"{server.url}/{name}"
    mirror.sync(site, url, key_file=server.key_file)
    shutil.rmtree(server.root / name)
    with pytest.raises(TargetMissingError):
        mirror.snapshots(url, key_file=server.key_file)
    server.init(name)
    assert mirror.sync(site, url, key_file=server.key_file, new_target=True).snapshot == 1


def test_what_is_damaged_there_is_damage_here(server: Served, name: str, site: Path) -> None:
    url = f"{server.url}/{name}"
    mirror.sync(site, url, key_file=server.key_file)
    (pack,) = [key for key in things(server.root / name) if key.startswith("packs/")]
    path = server.root / name / pack
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert mirror.verify(url, key_file=server.key_file).exit_code == 4


# The process


def test_it_ends_when_it_is_told_and_goes_on_where_it_was(site: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = Served(tmp_path / "server")
    server.init("www")
    server._options = ("--listen", f"127.0.0.1:{port}")
    server.start()
    assert server.port == port
    mirror.sync(site, f"{server.url}/www", key_file=server.key_file)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert server.stop(number) == 130
        server.start()
    (site / "new").write_text("new")
    assert mirror.sync(site, f"{server.url}/www", key_file=server.key_file).snapshot == 2
    assert server.stop() == 130
    assert "Traceback" not in server.log


def test_a_server_that_is_killed_costs_the_client_only_time(site: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = Served(tmp_path / "server")
    server.init("www")
    server._options = ("--listen", f"127.0.0.1:{port}")
    server.start()
    for number in range(40):
        (site / f"large{number}").write_bytes(os.urandom(1 << 20))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MIRROR_KEY_FILE": str(server.key_file)}
    words = [sys.executable, "-m", "mirror", "sync", str(site), f"{server.url}/www", "-q"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) as client:
        give_up = time.monotonic() + 60
        while len(things(server.root / "www")) < 2 and client.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        assert server.process
        server.process.kill()
        server.process.wait()
        server.start()
        _, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    assert mirror.verify(server.root / "www", against=site).exit_code == 0
    server.stop()


def test_another_process_of_a_run_waits_for_the_server_from_its_first_request_on(tmp_path: Path) -> None:
    from mirror.target import TargetSpec, open_target

    (port,) = free_ports(1)
    server = Served(tmp_path / "server", "--listen", f"127.0.0.1:{port}")
    server.init("www")
    server.start()
    with open_target(TargetSpec(server.spec("www"))) as target:
        server.stop(signal.SIGKILL)
        with pytest.raises(TemporaryError, match="no connection"):  # nobody has ever seen it
            open_store(server.spec("www")).size("mirror.json")
        again = threading.Timer(1, server.start)
        again.start()
        assert open_store(target.spec.store).create("latest.json", b"{}")  # what a worker of this run would open
        again.join()
    server.stop()


def test_keys_that_the_server_cannot_use_are_no_fault_of_the_client(tmp_path: Path) -> None:
    with Served(tmp_path / "server") as server:
        server.init("www")
        store = ServedStore(server.spec("www"), patience_seconds=0)
        whole = server.keys.read_bytes()
        server.keys.write_bytes(b"{")
        with pytest.raises(TemporaryError, match=r"answers 500: the server cannot use its file of keys: it is spoilt"):
            store.get("mirror.json", 4096)
        server.keys.write_bytes(whole)
        assert store.size("mirror.json")


def test_a_client_that_is_killed_leaves_nothing_half(server: Served, name: str, site: Path) -> None:
    for number in range(40):
        (site / f"large{number}").write_bytes(os.urandom(1 << 20))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MIRROR_KEY_FILE": str(server.key_file)}
    words = [sys.executable, "-m", "mirror", "sync", str(site), f"{server.url}/{name}", "-q", "--workers", "0"]
    with subprocess.Popen(words, env=environment) as client:
        folder, give_up = server.root / name, time.monotonic() + 60
        while not any(key.startswith("packs/") for key in things(folder)) and time.monotonic() < give_up:
            time.sleep(0.01)
        client.kill()
    assert not any(key.startswith("log/") for key in things(folder))
    give_up = time.monotonic() + 40
    while list((folder / ".mirror-tmp").iterdir()) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert list((folder / ".mirror-tmp").iterdir()) == []
    report = mirror.sync(site, f"{server.url}/{name}", key_file=server.key_file)
    assert report.exit_code == 0
    assert mirror.verify(folder, against=site).exit_code == 0


def test_nobody_is_there(tmp_path: Path, server: Served) -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    with pytest.raises(TemporaryError, match="no connection to the server"):
        mirror.snapshots(f"http://127.0.0.1:{port}/www", key_file=server.key_file)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("nowhere --keys KEYS", 2, "nowhere: it is no folder; name the folder that holds the targets"),
        (". --keys none.json", 2, "no such file or directory; make one"),
        (".", 2, "or --keys FILE to hold targets for clients"),
        (". --keys KEYS --listen 0.0.0.0:0", 2, "or accept that with --insecure"),
        (". --keys KEYS --listen here", 2, "it is no address such as 127.0.0.1:8080"),
        (". --keys KEYS --listen 127.0.0.1:99999", 2, "it is no address"),
        (". --keys KEYS --listen 192.0.2.1:80 --insecure", 2, "cannot listen on 192.0.2.1:80"),
        (". --keys KEYS --listen a..b:0 --insecure", 2, "cannot listen on a..b:0: that is no name of a host; name another"),
        (". --keys KEYS --certfile KEYS", 2, "and the key that should be in it are no certificate with its key"),
        (". --keys KEYS --certfile none.pem", 2, "cannot read the certificate none.pem: no such file"),
        (". --keys KEYS --certfile KEYS --keyfile none.pem", 2, "cannot read the private key none.pem: no such file"),
        (". --keys KEYS --keyfile KEYS", 2, "there is no --certfile"),
        (". --keys KEYS --imports 0", 2, "it is no whole number from 1 up"),
        (". --keys KEYS --max-body much", 2, "it is no size"),
        (". --keys KEYS --max-body 0", 2, "it must be more than 0"),
        (". --keys KEYS --client-timeout 0s", 2, "it must be more than 0"),
        (". --keys KEYS --client-timeout soon", 2, "it is no duration"),
        (". --keys KEYS --min-free most", 2, "it is no size"),
    ],
)
def test_what_cannot_be_served_is_told(words: str, code: int, error: str, server: Served) -> None:
    done = run("serve", *words.replace("KEYS", str(server.keys)).split())
    assert (done.returncode, done.stdout) == (code, "")
    assert error in done.stderr


def test_a_target_is_not_the_folder_of_targets(tmp_path: Path, server: Served) -> None:
    for layout, name in (("packed", "one"), ("tree", "two")):
        assert run("init", str(tmp_path / name), "--layout", layout).returncode == 0
        done = run("serve", str(tmp_path / name), "--keys", str(server.keys))
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            f"it is a target itself, not the folder that holds targets; name the folder that it is in: mirror serve {tmp_path}"
            in done.stderr
        )


def test_a_port_that_is_taken_is_told_in_one_clause(server: Served) -> None:
    done = run("serve", str(server.root), "--keys", str(server.keys), "--listen", f"127.0.0.1:{server.port}")
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}: address already in use; name another address" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_does_not_wait_for_an_acknowledgement(host: str) -> None:
    """On a connection that stays open each would take 40 ms more."""
    with listen(host, 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_from_python(site: Path, tmp_path: Path) -> None:
    """Also in the process of somebody's program, until a signal comes."""
    code = (
        "import mirror, os, signal, sys\n"
        "def stop(stamped):\n"
        "    if getattr(stamped.event, 'kind', '') == 'listening':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "report = mirror.serve(sys.argv[1], keys=sys.argv[2], listen='127.0.0.1:0', max_body='1M', listeners=[stop])\n"
        "print(report.exit_code, report.answers, report.targets)\n"
        "try:\n"
        "    mirror.serve(sys.argv[1], keys=sys.argv[2], at='1')\n"
        "except TypeError as error:\n"
        "    print(error)\n"
    )
    server = Served(tmp_path / "server")
    server.init("www")
    words = [sys.executable, "-W", "error", "-c", code, str(server.root), str(server.keys)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["130 0 ['www']", "mirror.serve() has no option 'at'"], done.stderr


def test_without_the_extra_it_says_what_to_install(server: Served) -> None:
    code = "import sys; sys.modules['starlette'] = None; from mirror.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "serve", str(server.root), "--keys", str(server.keys)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    told = "mirror: cannot serve: starlette is not installed; install the extra: pip install 'mirror-snapshot[serve]'\n"
    assert done.stderr == told


def test_plain_http_to_another_machine_must_be_accepted(server: Served) -> None:
    with pytest.raises(UsageError, match="accept that with --insecure"):
        mirror.snapshots("http://192.0.2.1/www", key_file=server.key_file)


def test_with_tls(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, private = certified(tmp_path)
    with Served(tmp_path / "server", "--certfile", str(certificate), "--keyfile", str(private)) as server:
        server.init("www")
        url = server.url.replace("127.0.0.1", "localhost") + "/www"
        assert url.startswith("https://")
        with pytest.raises(MirrorError, match="certificate is not trusted"):
            mirror.snapshots(url, key_file=server.key_file)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert mirror.sync(site, url, key_file=server.key_file).exit_code == 0
        assert mirror.restore(url, tmp_path / "back", key_file=server.key_file).exit_code == 0
    assert things(tmp_path / "back") == things(site)


def test_full_disks_are_told(site: Path, tmp_path: Path) -> None:
    with Served(tmp_path / "server", "--min-free", "100%") as server:
        server.init("www")
        store: MaintainedStore = ServedStore(server.spec("www"), patience_seconds=0)
        with pytest.raises(TemporaryError) as caught:
            store.create("packs/00/" + "0" * 64 + ".0", b"x")
        assert caught.value.kind == "disk-full"
        with pytest.raises(NotFound):
            store.get("packs/00/" + "0" * 64 + ".0", 10)
