"""A store on WebDAV when things go wrong: servers that promise nothing, answers that are lost, listings that lie.

Real nginx, rclone and SeaweedFS, and somebody in between who spoils what they say. What every store promises is in
test_conformance.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from davservers import DAV_BLOCK, LOST, DavServer, NginxDav, between
from servers import free_ports
from webservers import Asked, Say, WebServer

from mirror.errors import AuthError, DamageError, InTheWayError, MirrorError, NotFound, TemporaryError, UsageError
from mirror.keys import record_key
from mirror.store import MaintainedStore, Stat, StoreSpec
from mirror.store.dav import DavStore
from mirror.store.dav_access import login_for, with_login
from mirror.store.dav_listing import multistatus
from mirror.store.open import normalise_url, open_store

KEY = "packs/ab/" + "ab" * 32 + ".0"  # named by what it holds
RECORD = record_key(1)
OPERATIONS: dict[str, Callable[[MaintainedStore], Any]] = {
    "get": lambda store: store.get(KEY, 100),
    "get_ranges": lambda store: store.get_ranges(KEY, [(0, 1)]),
    "size": lambda store: store.size(KEY),
    "list": lambda store: list(store.list("packs/")),
    "create": lambda store: store.create(KEY, b"x"),
    "create a record": lambda store: store.create(RECORD, b"x"),
    "put_hint": lambda store: store.put_hint("latest.json", b"x"),
    "delete": lambda store: store.delete([KEY]),
    "sweep": lambda store: store.sweep(),
    "free_bytes": lambda store: store.free_bytes(),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS)
Through = Callable[..., StoreSpec]


@pytest.fixture
def through() -> Iterator[Through]:
    """`through(server, folder, twist)`: how to reach a folder of a server with somebody in between."""
    with ExitStack() as running:

        def reach(server: DavServer, folder: str, twist: Callable[[Asked], Say | str | None], host: str = "") -> StoreSpec:
            proxy = running.enter_context(between(server, twist, host))
            return replace(server.spec(folder), url=f"dav+{proxy.url}{folder}")

        yield reach


def failure(store: MaintainedStore, operation: str, kind: type[MirrorError]) -> MirrorError:
    """The error of an operation: of this very class, one sentence, with the URL, telling nothing secret."""
    with pytest.raises(MirrorError) as caught:
        OPERATIONS[operation](store)
    error, text = caught.value, str(caught.value)
    assert type(error) is kind, text
    assert store.url in text
    assert error.hint
    assert "\n" not in text
    assert "password:" not in text
    return error


def findings(server: DavServer, folder: str) -> dict[str, Any]:
    (name,) = [name for name in server.names(f"{folder}/.mirror-dav/") if name.endswith(".json")]
    found: dict[str, Any] = json.loads(server.raw("GET", f"{folder}/.mirror-dav/{name}").body)
    return found


# What servers can promise


@pytest.mark.parametrize(
    ("name", "calls_itself", "found"),
    [
        ("nginx", "nginx/", {"mkcol": True, "put": False}),
        ("apache", "Apache/", {"mkcol": True}),
        ("rclone", "rclone/", {"mkcol": False, "move": True, "put": False}),
        ("weed", "", {"mkcol": True, "move": True, "put": False}),
    ],
)
def test_what_real_servers_were_found_to_do(
    dav_servers: Callable[[str], DavServer], name: str, calls_itself: str, found: dict[str, bool]
) -> None:
    server = dav_servers(name)
    folder = server.new_place()
    told = findings(server, folder)
    assert told["server"].startswith(calls_itself)
    assert {each: told[each] for each in found} == found


def test_two_who_create_the_same_record_again_and_again(dav: DavServer) -> None:
    spec = dav.spec(dav.new_place())
    stores = [open_store(spec), open_store(spec)]
    with ThreadPoolExecutor(2) as pool:
        for number in range(1, 21):
            key = record_key(number)
            made = list(pool.map(lambda side, key=key: stores[side].create(key, b"%d" % side * 1000), range(2)))
            assert made.count(True) == 1
            assert stores[0].get(key, 1000) == b"%d" % made.index(True) * 1000


def test_a_server_is_asked_once_and_what_it_was_asked_with_is_gone(dav: DavServer) -> None:
    folder = f"/{os.urandom(6).hex()}"
    assert open_store(dav.spec(folder)).create(KEY, b"x")
    before = dav.files(f"{folder}/.mirror-dav/")
    assert list(before) == [name for name in before if name.endswith(".json")]
    assert open_store(dav.spec(folder)).create(RECORD, b"x")
    assert {name: data for name, data in dav.files(f"{folder}/.mirror-dav/").items() if "claims/" not in name} == before
    assert not [name for name in dav.names(f"{folder}/.mirror-dav/") if name.startswith("probe-")]


def test_reading_asks_nothing_and_writes_nothing(dav: DavServer) -> None:
    folder = f"/{os.urandom(6).hex()}"
    dav.plant(f"{folder}/{KEY}", b"x")
    store = open_store(dav.spec(folder))
    assert store.get(KEY, 1) == b"x"
    assert list(store.list("")) == [Stat(KEY, 1)]
    assert store.sweep() == 0
    assert dav.names(f"{folder}/") == {"packs": True}


@pytest.fixture
def careless(dav_servers: Callable[[str], DavServer], through: Through) -> StoreSpec:
    """A server whose MKCOL lets everybody win, and whose MOVE overwrites."""
    server = dav_servers("rclone")

    def twist(asked: Asked) -> None:
        if "overwrite" in asked.headers:
            asked.headers["overwrite"] = "T"

    return through(server, f"/{os.urandom(6).hex()}", twist)


def test_where_nothing_is_safe_nothing_is_written(careless: StoreSpec) -> None:
    with pytest.raises(UsageError, match="of two runs that write at once this server lets both win") as caught:
        open_store(careless).create("mirror.json", b"x")
    assert "--single-writer" in caught.value.hint
    assert list(open_store(careless).list("")) == []


def test_where_nothing_is_safe_one_may_vouch(careless: StoreSpec) -> None:
    alone = open_store(replace(careless, single_writer=True))
    assert alone.create("mirror.json", b"x") is True
    assert alone.create("mirror.json", b"y") is False
    alone.put_hint("latest.json", b"1")
    alone.put_hint("latest.json", b"2")
    assert alone.get("mirror.json", 1) + alone.get("latest.json", 1) == b"x2"
    for operation in ("create", "create a record", "put_hint"):
        failure(open_store(careless), operation, UsageError)  # written down, and still nobody vouches


@pytest.mark.parametrize(
    ("replaced", "by", "why", "hint"),
    [
        ("dav_methods PUT DELETE MKCOL MOVE;", "", "it takes no files (PUT: 405)", "dav_methods"),
        ("DELETE MKCOL MOVE", "DELETE MKCOL", "this server cannot do that (405", "is it the right URL?"),
        ("autoindex_format json;", "", "the server knows neither PROPFIND nor a listing in JSON", "autoindex_format json"),
        ("autoindex on;", "", "the server knows neither PROPFIND nor a listing in JSON", "autoindex_format json"),
    ],
)
def test_an_nginx_that_is_not_set_up_for_it(tmp_path: Path, replaced: str, by: str, why: str, hint: str) -> None:
    assert DAV_BLOCK.count(replaced) == 1
    with NginxDav(tmp_path, DAV_BLOCK.replace(replaced, by)) as server:
        with pytest.raises(MirrorError) as caught:
            open_store(server.spec("/new")).create("mirror.json", b"{}")
        assert why in caught.value.why
        assert hint in caught.value.hint
        assert server.raw("GET", "/new/mirror.json").status == 404


def test_spoilt_findings_are_told(dav: DavServer) -> None:
    folder = dav.new_place()
    (name,) = dav.files(f"{folder}/.mirror-dav/")
    for spoilt in (b"", b"{}", b'{"format":1}\n', b"\xff" * 100):
        dav.plant(f"{folder}/.mirror-dav/{name}", spoilt)
        error = failure(open_store(dav.spec(folder)), "create", DamageError)
        assert name in error.where
        assert "remove it" in error.hint


def test_another_server_is_asked_anew(dav_servers: Callable[[str], DavServer]) -> None:
    """What nginx could promise was copied along to rclone, which cannot."""
    nginx, rclone = dav_servers("nginx"), dav_servers("rclone")
    folder = nginx.new_place()
    copied = f"/{os.urandom(6).hex()}"
    for name, data in nginx.files(f"{folder}/.mirror-dav/").items():
        rclone.plant(f"{copied}/.mirror-dav/{name}", data)
    assert open_store(rclone.spec(copied)).create("mirror.json", b"{}")
    assert len([name for name in rclone.files(f"{copied}/.mirror-dav/") if name.endswith(".json")]) == 2


# Failures


@pytest.mark.parametrize("name", ["apache", "rclone"])
@every_operation
def test_wrong_password(dav_servers: Callable[[str], DavServer], operation: str, name: str) -> None:
    server = dav_servers(name)
    for login in (("", ""), ("someone", "else"), (server.login[0], "wrong")):
        spec = replace(server.spec(server.new_place()), dav_user=login[0], dav_password=login[1])
        error = failure(open_store(spec), operation, AuthError)
        assert "MIRROR_DAV_USER" in error.hint


def test_nobody_there_is_told_within_seconds() -> None:
    def attempt(address: str, operation: str) -> float:
        start = time.monotonic()
        failure(open_store(StoreSpec(f"dav+http://{address}/x")), operation, TemporaryError)
        return time.monotonic() - start

    with ThreadPoolExecutor(len(OPERATIONS)) as pool:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        assert max(pool.map(lambda operation: attempt(address, operation), OPERATIONS)) < 15


def test_a_full_disk(dav: DavServer, through: Through) -> None:
    spec = through(dav, dav.new_place(), lambda asked: Say(507) if asked.method == "PUT" and asked.body == b"x" else None)
    for operation in ("create", "create a record", "put_hint"):
        error = failure(open_store(spec), operation, TemporaryError)
        assert error.kind == "disk-full"
    assert list(open_store(spec).list("")) == []


def test_what_go_says_of_a_full_disk(dav_servers: Callable[[str], DavServer], through: Through) -> None:
    server = dav_servers("rclone")
    spec = through(server, server.new_place(), lambda asked: Say(405) if asked.method == "PUT" and asked.body == b"x" else None)
    assert "is its disk full?" in failure(open_store(spec), "create", TemporaryError).hint


@pytest.mark.parametrize("method", ["PUT", "MOVE", "MKCOL", "DELETE"])
def test_a_passing_lock_is_waited_for(dav: DavServer, through: Through, method: str) -> None:
    refused: set[tuple[str, str]] = set()

    def twist(asked: Asked) -> Say | None:
        if asked.method != method or (asked.method, asked.path) in refused:
            return None
        refused.add((asked.method, asked.path))
        return Say(423)

    store = open_store(through(dav, dav.new_place(), twist))
    assert store.create(KEY, b"x")
    assert store.create(RECORD, b"y")
    store.put_hint("latest.json", b"z")
    store.delete([KEY])
    assert {key for key, _ in store.list("")} == {RECORD, "latest.json"}
    assert refused


@pytest.mark.parametrize("name", ["apache", "weed"])
def test_a_lasting_lock_is_somebody_in_the_way(dav_servers: Callable[[str], DavServer], name: str) -> None:
    """A real one, that a person has taken with another program."""
    server = dav_servers(name)
    folder = server.new_place()
    server.plant(f"{folder}/{KEY}", b"x")
    lock = b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>'
    assert server.raw("LOCK", f"{folder}/{KEY}", lock, Depth="0", Timeout="Second-600").status == 200
    store = DavStore(server.spec(folder), lock_seconds=0.3)
    error = failure(store, "delete", InTheWayError)
    assert "locked" in error.why
    assert store.get(KEY, 1) == b"x"


@pytest.mark.parametrize("method", ["PUT", "MOVE", "MKCOL"])
def test_lost_answers(dav: DavServer, through: Through, method: str) -> None:
    """Of some requests of a kind, among them the first, the answer is lost when they are done."""
    chance, count = random.Random(2), 0

    def twist(asked: Asked) -> str | None:
        nonlocal count
        count += asked.method == method
        return LOST if asked.method == method and (count == 1 or chance.random() < 0.3) else None

    folder = dav.new_place()
    store = open_store(through(dav, folder, twist))
    for key in (KEY, RECORD, "mirror.json"):
        made = store.create(key, b"content of this one")
        # As the contract has it: False may mean ours, and the caller reads back.
        assert store.get(key, 100) == b"content of this one"
        assert made or method == "MOVE"
    assert count
    assert {key for key in dav.files(f"{folder}/") if not key.startswith(".mirror-dav/")} == {KEY, RECORD, "mirror.json"}


def test_a_server_that_is_called_otherwise_behind_a_proxy(dav: DavServer, through: Through) -> None:
    """Its own name is not in the Destination that we send, so that is given as a path."""
    store = open_store(through(dav, f"/{os.urandom(6).hex()}", lambda _: None, host="backend.internal:8080"))
    assert store.create(KEY, b"x")
    assert store.create(RECORD, b"y")
    assert {key for key, _ in store.list("")} == {KEY, RECORD}


def test_a_proxy_that_has_lost_its_server_for_a_moment(dav: DavServer, through: Through) -> None:
    """502 is also what a server says that does not know itself by our name for it: that must not decide all the others."""
    moves = 0

    def twist(asked: Asked) -> Say | None:
        nonlocal moves
        moves += asked.method == "MOVE"
        return Say(502) if asked.method == "MOVE" and moves % 4 == 1 else None

    store = open_store(through(dav, dav.new_place(), twist))
    for number in range(1, 5):
        assert store.create(record_key(number), b"x" * number)
        assert store.get(record_key(number), 10) == b"x" * number
    assert moves > 4


def test_an_apache_that_does_not_know_its_name(dav_servers: Callable[[str], DavServer], through: Through) -> None:
    """One that compares the Destination with its own name and takes no path alone, as Apache has done for long."""
    server = dav_servers("apache")

    def twist(asked: Asked) -> Say | None:
        return Say(400) if asked.headers.get("destination", "").startswith("http") else None

    spec = through(server, server.new_place(), twist)
    for operation in ("create", "create a record", "put_hint"):
        assert "RequestHeader edit Destination" in failure(open_store(spec), operation, MirrorError).hint


def test_a_redirect_is_told_and_not_followed() -> None:
    with WebServer(lambda asked: Say(301, b"", {"Location": "http://127.0.0.1:9/elsewhere"})) as server:
        for operation in OPERATIONS:
            store = open_store(StoreSpec(f"dav+{server.url}/x", dav_user="u", dav_password="p"))
            error = failure(store, operation, UsageError)
            assert "it redirects to http://127.0.0.1:9/elsewhere" in error.why


@pytest.mark.parametrize("name", ["nginx", "apache", "rclone"])  # weed removes no folder that has something in it
def test_folders_that_others_removed_are_made_again(dav_servers: Callable[[str], DavServer], name: str) -> None:
    dav = dav_servers(name)
    folder = dav.new_place()
    store = open_store(dav.spec(folder))
    assert store.create(KEY, b"x")
    for gone in ("packs/",) if name == "nginx" else ("packs/", ".mirror-dav/tmp/"):  # nginx says 500 then, which may be anything
        assert dav.raw("DELETE", f"{folder}/{gone}", Depth="infinity").status == 204
    assert store.create(KEY, b"y")
    assert store.create(RECORD, b"z")
    assert store.get(KEY, 1) + store.get(RECORD, 1) == b"yz"


WRITER = """
import sys
from mirror.store import StoreSpec
from mirror.store.dav import DavStore
store = DavStore(StoreSpec(sys.argv[1], dav_user=sys.argv[2], dav_password=sys.argv[3]))
store._found_way()
store._stage(b"half of something")
print("staged", flush=True)
sys.stdin.read()
"""


def test_what_a_dead_writer_left_is_removed(dav: DavServer) -> None:
    folder = dav.new_place()
    spec = dav.spec(folder)
    store = open_store(spec)
    command = [sys.executable, "-c", WRITER, spec.url, spec.dav_user, spec.dav_password]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **streams) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "staged\n"
        assert store.sweep() == 0  # it is alive
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(store.list("")) == []
    assert store.sweep() == 1
    assert store.sweep() == 0
    assert dav.names(f"{folder}/.mirror-dav/tmp/") == {}


def test_of_other_hosts_only_what_is_older_than_a_day_is_removed(dav: DavServer) -> None:
    folder = dav.new_place()
    now = int(time.time())
    names = {age: f"00000000-1-{'0' * 16}-{now - age:x}" for age in (3600, 90_000)}
    for name in (*names.values(), "strange"):
        dav.plant(f"{folder}/.mirror-dav/tmp/{name}", b"x")
    assert open_store(dav.spec(folder)).sweep() == 1
    assert set(dav.names(f"{folder}/.mirror-dav/tmp/")) == {names[3600], "strange"}


# Listings that lie


def told(*responses: str, head: str = '<?xml version="1.0"?>') -> bytes:
    return f'{head}<m:multistatus xmlns:m="DAV:">{"".join(responses)}</m:multistatus>'.encode()


def response(href: str, size: object = 1, status: str = "HTTP/1.1 200 OK", kind: str = "") -> str:
    numbers = f"<m:getcontentlength>{size}</m:getcontentlength><m:resourcetype>{kind}</m:resourcetype>"
    part = f"<m:propstat><m:prop>{numbers}</m:prop><m:status>{status}</m:status></m:propstat>"
    return f"<m:response><m:href>{href}</m:href>{part}</m:response>"


SELF = response("/x/log/", "", kind="<m:collection/>")
BOMB = '<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def listed(body: bytes, pieces: int = 7) -> list[tuple[str, bool, int | None]]:
    parts = [body[start : start + pieces] for start in range(0, len(body), pieces)]
    return [tuple(each) for each in multistatus(parts, "/x/log/", "dav+http://h/x/log/")]


def test_only_what_is_in_the_folder_is_believed() -> None:
    outside = [
        "/x/other", "/x/log/../../etc/passwd", "/x/log/%2e%2e", "/x/log/..", "/x/log/a%2fb", "/x/log/a/b", "/etc/passwd", "log/1",
        "http://[bad", "/x/log/%ff", "/x/log/a%00b", "", "//x/log/1", "/x/log//a",
    ]  # fmt: skip
    body = told(
        SELF, *map(response, outside), response("/x/log/1"), response("http://other.example/x/log/2", 22), response("/x/log/f/")
    )
    assert listed(body) == [("1", False, 1), ("2", False, 22), ("f", True, 1)]


def test_numbers_and_kinds_count_only_with_their_status() -> None:
    body = told(
        SELF,
        response("/x/log/1", 5, "HTTP/1.1 404 Not Found", "<m:collection/>"),
        response("/x/log/2", -5),
        response("/x/log/3", "9" * 30),
        response("/x/log/4", "\u0663"),
        response("/x/log/5", "", kind="<m:collection/>"),
    )
    assert listed(body) == [("1", False, None), ("2", False, None), ("3", False, None), ("4", False, None), ("5", True, None)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>hello",
        b"{}",
        told(SELF)[:-5],
        told(SELF, "&b;", head=BOMB),
        told(SELF, head='<?xml version="1.0"?><!DOCTYPE m SYSTEM "file:///etc/passwd">'),
        told(SELF, response("/x/log/" + "a" * 100_000)),
        told("<m:a>" * 100 + "</m:a>" * 100),
        told(response("/x/log/1")),
        told(),
        told(response("/other/", kind="<m:collection/>"), response("/other/1")),
    ],
    ids=["empty", "html", "json", "cut", "bomb", "outside", "long name", "deep", "not of it", "nothing", "of another folder"],
)
def test_what_is_no_honest_listing_is_refused(body: bytes) -> None:
    with pytest.raises(DamageError, match="cannot list dav") as caught:
        listed(body)
    assert caught.value.hint


@pytest.mark.parametrize("encoding", ["none-such", "utf-7", "hex", "shift_jis", "idna"])
def test_an_encoding_that_expat_does_not_know(encoding: str) -> None:
    with pytest.raises(DamageError):
        listed(told(SELF, head=f'<?xml version="1.0" encoding="{encoding}"?>'), pieces=1000)


@pytest.mark.parametrize("before", ["<a b='", "<!-- ", "<", "<?pi "])
def test_what_never_ends_is_not_held(before: str) -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield told(SELF).removesuffix(b"</m:multistatus>") + before.encode()
        while taken < 1 << 26:
            taken += 1 << 16
            yield b"x" * (1 << 16)

    with pytest.raises(DamageError, match="a tag that does not end"):
        list(multistatus(pieces(), "/x/log/", "dav+http://h/x/log/"))
    assert taken < 1 << 22


def test_a_long_listing_is_read_as_it_comes() -> None:
    """Nothing is asked for before what came is told, and nothing that was told is kept."""
    given = 0

    def pieces() -> Iterator[bytes]:
        nonlocal given
        yield told(SELF).removesuffix(b"</m:multistatus>")
        for number in range(10_000):
            given += 1
            yield response(f"/x/log/{number}", number).encode()
        yield b"</m:multistatus>"

    for number, each in enumerate(multistatus(pieces(), "/x/log/", "dav+http://h/x/log/")):
        assert (each.name, each.size) == (str(number), number)
        assert given == number + 1
    assert given == 10_000


def test_a_listing_without_end_ends_soon() -> None:
    """Folders in folders for ever: no deeper than a store can be."""
    asked = []

    def speak(request: Asked) -> Say:
        asked.append(request.path)
        here = response(request.path, "", kind="<m:collection/>")
        return Say(207, told(here, response(f"{request.path}a/", "", kind="<m:collection/>"), response(f"{request.path}1")))

    with WebServer(speak) as server:
        found = list(open_store(StoreSpec(f"dav+{server.url}/x")).list(""))
    assert len(found) == len(asked) < 20


def test_a_name_of_nginx_leads_nowhere() -> None:
    names = ["../../x", "", "..", "a/b", "a\nb", "fine"]
    body = json.dumps([{"name": name, "type": "file", "size": 1} for name in names]).encode()

    def speak(request: Asked) -> Say:
        return Say(405) if request.method == "PROPFIND" else Say(200, body, {"Content-Type": "application/json"})

    with WebServer(speak) as server:
        assert list(open_store(StoreSpec(f"dav+{server.url}/x")).list("log/")) == [Stat("log/fine", 1)]


def quota(free: str, used: str = "") -> bytes:
    numbers = f"<m:quota-available-bytes>{free}</m:quota-available-bytes><m:quota-used-bytes>{used}</m:quota-used-bytes>"
    return told(SELF.replace("<m:getcontentlength>", f"{numbers}<m:getcontentlength>"))


@pytest.mark.parametrize(
    ("say", "room"),
    [
        (Say(207, quota("1000", "24")), (1000, 1024)),
        (Say(207, quota("1000")), (1000, 1000)),
        (Say(207, quota("-1", "24")), None),
        (Say(207, told(SELF)), None),
        (Say(405), None),
        (Say(404), None),
    ],
)
def test_room_is_known_where_the_server_tells_it(say: Say, room: tuple[int, int] | None) -> None:
    with WebServer(lambda _: say) as server:
        assert open_store(StoreSpec(f"dav+{server.url}/x/log")).free_bytes() == room


def test_what_is_there_is_not_sent_again(dav_servers: Callable[[str], DavServer], through: Through) -> None:
    sent: list[int] = []
    server = dav_servers("nginx")
    store = open_store(through(server, server.new_place(), lambda asked: sent.append(len(asked.body))))
    assert store.create(KEY, bytes(100_000)) is True
    assert store.create(KEY, bytes(100_000)) is False
    assert [size for size in sent if size > 10_000] == [100_000]


# URLs and logins


@pytest.mark.parametrize(
    ("url", "spelt"),
    [
        ("dav+https://Example.org:443/a/b/", "dav+https://example.org/a/b"),
        ("dav+http://127.0.0.1:8080", "dav+http://127.0.0.1:8080"),
        ("dav+https://example.org/a b", "dav+https://example.org/a%20b"),
    ],
)
def test_urls(url: str, spelt: str) -> None:
    assert normalise_url(url) == spelt
    assert open_store(StoreSpec(url)).url == spelt


@pytest.mark.parametrize(
    "url", ["dav+https://", "dav+https://u:secret@h/x", "dav+https://h/x?a=secret", "dav+ftp://h/x", "dav+https://h/../x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalise_url(url)
    assert "secret" not in str(caught.value)


def test_plain_http_to_another_machine_must_be_accepted() -> None:
    with pytest.raises(UsageError, match="--insecure"):
        open_store(StoreSpec("dav+http://example.org/x"))
    assert open_store(StoreSpec("dav+http://example.org/x", insecure=True)).url == "dav+http://example.org/x"


@pytest.mark.parametrize("key", ["", "/", "/abs", "a//b", "a/", "../a", "a/../b", "a/./b", ".", "..", "a\0b", ".mirror-dav/x"])
def test_what_is_no_key_is_refused(key: str) -> None:
    store = open_store(StoreSpec("dav+http://127.0.0.1:9/x"))
    for act in (lambda: store.create(key, b"x"), lambda: store.get(key, 1), lambda: store.size(key), lambda: store.delete([key])):
        with pytest.raises(UsageError):
            act()


def test_who_we_are(tmp_path: Path) -> None:
    spec = StoreSpec("dav+https://dav.example.org/x")
    (tmp_path / ".netrc").write_text(
        "machine dav.example.org login me password of-netrc\nmachine other login you password theirs\n"
    )
    (tmp_path / "mine").write_text("default login anyone password of-mine\n")
    home = {"HOME": str(tmp_path)}
    assert login_for(with_login(spec, {})) == ("", "")
    assert login_for(with_login(spec, home)) == ("me", "of-netrc")
    assert login_for(with_login(replace(spec, url="dav+https://third.example.org"), home)) == ("", "")
    assert login_for(with_login(spec, home | {"NETRC": str(tmp_path / "mine")})) == ("anyone", "of-mine")
    told = with_login(spec, home | {"MIRROR_DAV_USER": "env", "MIRROR_DAV_PASSWORD": "of-env"})
    assert login_for(told) == ("env", "of-env")
    assert "of-env" not in repr(told)
    assert with_login(StoreSpec("s3://b"), home | {"MIRROR_DAV_USER": "env"}) == StoreSpec("s3://b")


def test_a_login_that_cannot_be_understood(tmp_path: Path) -> None:
    spec = StoreSpec("dav+https://dav.example.org/x")
    with pytest.raises(UsageError, match="no MIRROR_DAV_USER"):
        with_login(spec, {"MIRROR_DAV_PASSWORD": "secret"})
    for content in (b"machine\n", b"\xff\xfe", b"nonsense here"):
        (tmp_path / "netrc").write_bytes(content)
        with pytest.raises(UsageError, match="cannot read"):
            open_store(with_login(spec, {"NETRC": str(tmp_path / "netrc")}))
    with pytest.raises(UsageError, match="cannot read"):
        open_store(with_login(spec, {"NETRC": str(tmp_path)}))


def test_a_missing_place_holds_nothing_and_is_made_by_the_first_write(dav: DavServer) -> None:
    folder = f"/{os.urandom(6).hex()}"
    store = open_store(dav.spec(folder))
    assert list(store.list("")) == []
    with pytest.raises(NotFound):
        store.get("mirror.json", 1)
    assert store.create("mirror.json", b"x")
    assert store.get("mirror.json", 1) == b"x"
