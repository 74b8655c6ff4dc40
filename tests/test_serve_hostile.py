"""A client with a key and bad intentions: whatever it sends, nothing but what is whole, true and in its place gets a name in a
target, and an honest client beside it goes on.

Each bad object is made from a good one: a target of the same uuid is filled on this side, and its objects are sent one by one,
spoilt. The server is a process of its own; what it has is looked at in its folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import psutil
import pytest
import zstandard
from blake3 import blake3
from serving import Served
from test_serve import Raw, things
from xxhash import xxh3_64_intdigest

import mirror
from mirror.access import read_client_key
from mirror.chunking import chunk_id
from mirror.envelope import CHUNKS, FOOTER, FRAGMENT, NODE, SEGMENT, digest_of, header, seal, sealed_json, unseal, unsealed_json
from mirror.errors import AuthError, MirrorError
from mirror.index import StoredPack, decode_fragment, encode_fragments
from mirror.keys import INDEX, MANIFEST, PACK, ObjectName, record_key
from mirror.manifest import File, Folder, encode, encode_node, encode_segment
from mirror.pack import HEAD_SIZE, PackBuilder
from mirror.signing import digest_of_body, sign_request
from mirror.store.fs import FolderStore
from mirror.store.served import ServedStore


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server"), "--client-timeout", "3s") as server:
        server.new_key("pruner", "read,append,prune")
        yield server


class Good:
    """A target on the server, empty, and a good copy of what could be in it. long: with a file whose chunks have a list of their
    own."""

    def __init__(self, server: Served, folder: Path, *, long: bool = True) -> None:
        self.server, self.name, self.there = server, folder.name, server.init(folder.name)
        site = folder / "site"
        (site / "below").mkdir(parents=True)
        for number in range(30):
            (site / f"below/page{number}.html").write_text(f"<p>{number}</p>\n" * 50)
        (site / "noise.bin").write_bytes(os.urandom(200_000))
        if long:
            (site / "long.bin").write_bytes(os.urandom(3 << 20))  # more than 64 chunks
        self.site, self.here = site, FolderStore(str(folder / "copy"))
        shutil.copytree(self.there, self.here.root)
        mirror.sync(site, self.here.root)
        self.objects = things(Path(self.here.root))
        self.store = ServedStore(server.spec(self.name), patience_seconds=0)

    def keys(self, place: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(place))

    def send(self, *places: str) -> None:
        """Good objects of these places, in the order of a sync."""
        for place in places:
            for key in self.keys(place):
                assert self.store.create(key, self.objects[key])

    def refused(self, key: str, data: bytes, words: str, store: ServedStore | None = None) -> None:
        """This object is not accepted, for that reason, and nothing of it stays."""
        before = things(self.there)
        with pytest.raises(MirrorError, match=words) as caught:
            (store or self.store).create(key, data)
        assert "\n" not in str(caught.value)
        assert things(self.there) == before
        assert list((self.there / ".mirror-tmp").glob("*")) == []

    @property
    def record(self) -> dict[str, object]:
        return unsealed_json(self.objects[record_key(1)], "")


@pytest.fixture
def good(server: Served, tmp_path: Path) -> Good:
    return Good(server, tmp_path)


def test_the_good_one_is_accepted(good: Good) -> None:
    good.send("packs/", "index/", "manifests/", "log/")
    assert things(good.there) == good.objects
    assert mirror.verify(good.there, against=good.site).exit_code == 0


# Packs


def packed(data: bytes) -> str:
    """The key of a pack with these bytes."""
    return ObjectName(PACK, blake3(data).digest(), 0).key()


def with_block(
    stored: bytes, codec: int, plain: int, lengths: list[int], footer: Callable[[bytes], bytes] = lambda payload: payload
) -> bytes:
    """A pack of one block that claims what is said, right in every checksum."""
    table = struct.pack(f"<{len(lengths)}I", *lengths)
    checksum = xxh3_64_intdigest(table + stored)
    head = struct.pack("<4sBBHIIIQI", b"MBLK", 1, codec, 0, len(stored), plain, len(lengths), checksum, 0)
    line = [16, HEAD_SIZE + len(table) + len(stored), plain, checksum, lengths]
    told = seal(FOOTER, footer(msgspec.msgpack.encode([line])))
    body = header(msgspec.convert(ord("P"), int), 0) + head + table + stored + told  # type: ignore[arg-type]
    return body + struct.pack("<IQ4s", len(told), xxh3_64_intdigest(told), b"MEND")


def bomb(size: int) -> bytes:
    """A zstd frame of a few bytes that unpacks to `size` zeros and says so."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)) + compressor.flush()


def lying(size: int, says: int) -> bytes:
    """A frame that unpacks to `size` zeros and says another number."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(size)))
    honest = struct.pack("<I", size)
    return bytes(frame).replace(honest, struct.pack("<I", says), 1)


PACKS: dict[str, tuple[bytes, str]] = {
    "not what its name says": (b"", "its content is not what its name says"),
    "rubbish": (os.urandom(5000), "does not begin with MIRR"),
    "empty": (b"", "a header alone has 16"),
    "bomb": (with_block(bomb(64 << 20), 1, 1 << 20, [1 << 20]), "claims 67108864 bytes"),
    "large block": (with_block(bomb(16 << 20), 1, 16 << 20, [1 << 20] * 16), "impossible sizes"),
    "lengths": (with_block(b"abcd", 0, 4, [1, 2]), "lengths do not add up"),
    "no chunks": (with_block(b"", 0, 0, []), "too many chunks, or none"),
    "empty chunks": (with_block(b"abcd", 0, 4, [0, 4]), "of a length that no chunk has"),
    "many chunks": (with_block(bytes(20_000), 0, 20_000, [1] * 20_000), "too many chunks"),
    "large chunk": (with_block(bytes(7 << 20), 0, 7 << 20, [7 << 20]), "of a length that no chunk has"),
    "footer": (with_block(b"abcd", 0, 4, [4], lambda payload: payload[:-1] + b"\x05"), "its footer does not say"),
    "footer of rubbish": (with_block(b"abcd", 0, 4, [4], lambda payload: b"\xdd\xff\xff\xff\xff"), "its footer does not say"),
    "codec": (with_block(b"abcd", 7, 4, [4]), "its head says what no version says"),
}


@pytest.mark.parametrize("case", PACKS)
def test_packs_that_are_none(case: str, good: Good) -> None:
    data, words = PACKS[case]
    key = packed(b"another") if case == "not what its name says" else packed(data)
    good.refused(key, data, words)


def test_a_block_that_was_damaged(good: Good) -> None:
    (key,) = good.keys("packs/")
    data = bytearray(good.objects[key])
    data[5000] ^= 1
    good.refused(packed(bytes(data)), bytes(data), "checksum does not match")
    cut = bytes(good.objects[key][:-1000])
    good.refused(packed(cut), cut, "trailer is damaged")
    twice = good.objects[key] + good.objects[key]
    good.refused(packed(twice), twice, "cannot|damaged|does not|have")


def test_the_test_makes_packs_that_would_do(good: Good) -> None:
    data = with_block(b"abcd", 0, 4, [1, 3])
    assert good.store.create(packed(data), data)


# Fragments and manifest objects


def fragment(good: Good, spoil: Callable[[list[object]], object]) -> tuple[str, bytes]:
    """The good fragment with other words: its key, and its bytes."""
    (key,) = good.keys("index/")
    _, payload = unseal(good.objects[key], (FRAGMENT,), None, "")
    wire = msgspec.msgpack.decode(payload)
    payload = msgspec.msgpack.encode(spoil(wire))
    return ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key(), seal(FRAGMENT, payload)


def moved(wire: list[object], at: int, by: int) -> list[object]:
    """The first place with one of its four numbers changed."""
    places = bytearray(wire[2])  # type: ignore[call-overload]
    number = struct.unpack_from("<I", places, 4 * at)[0]
    struct.pack_into("<I", places, 4 * at, number + by)
    return [wire[0], wire[1], bytes(places)]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda wire: moved(wire, 2, 1), "that is not there|outside its block"),
        (lambda wire: moved(wire, 3, -1), "that is not there"),
        (lambda wire: [wire[0], chunk_id(b"mine") + wire[1][32:], wire[2]], "that is not there|out of order"),
        (lambda wire: [wire[0], wire[1][::-1], wire[2]], "out of order|that is not there"),
        (lambda wire: [[[bytes(32), *wire[0][0][1:]]], wire[1], wire[2]], "which is not there"),
        (lambda wire: [[[*wire[0][0][:2], wire[0][0][2] + 1, wire[0][0][3]]], wire[1], wire[2]], "what that pack is not"),
        (lambda wire: [[[*wire[0][0][:3], wire[0][0][3][:-1]]], wire[1], wire[2]], "what that pack is not|outside its block"),
        (lambda wire: "nothing", "Expected"),
    ],
)
def test_fragments_that_lie(spoil: Callable[[list[object]], object], words: str, good: Good) -> None:
    good.send("packs/")
    good.refused(*fragment(good, spoil), words)


def test_a_fragment_before_its_pack(good: Good) -> None:
    (key,) = good.keys("index/")
    good.refused(key, good.objects[key], "it lists packs/.*, which is not there")


def test_a_fragment_is_judged_by_the_pack_on_the_disk_too(good: Good) -> None:
    """Also when the server has forgotten what was in the pack, as after a restart."""
    (pack,) = good.keys("packs/")
    path = good.there / pack
    path.parent.mkdir(parents=True)
    path.write_bytes(good.objects[pack])
    good.refused(*fragment(good, lambda wire: moved(wire, 3, -1)), "that is not there")
    good.send("index/")


def manifest(kind: int, payload: bytes, data: bytes | None = None) -> tuple[str, bytes]:
    """The key and the bytes of a manifest object."""
    return ObjectName(MANIFEST, digest_of(kind, payload), 0).key(), seal(kind, payload) if data is None else data  # type: ignore[arg-type]


EVIL = File(b"a", 0, bytes(16), 0, b"")
MANIFESTS = {
    "leads out": (SEGMENT, encode_segment([encode(File(b"../x", 0, bytes(16), 0, b""))]), "the path b'../x' is not allowed"),
    "absolute": (SEGMENT, encode_segment([encode(File(b"/etc/passwd", 0, bytes(16), 0, b""))]), "is not allowed"),
    "out of order": (SEGMENT, encode_segment([encode(EVIL), encode(EVIL)]), "out of order"),
    "many": (SEGMENT, encode_segment([encode(Folder(b"%09d/" % n)) for n in range(4097)]), "at most 4,096 entries"),
    "short array": (SEGMENT, b"\x91" + encode(EVIL), "at most 4,096 entries"),
    "rubbish": (SEGMENT, b"\xdd\x00\x00\x00\x01\xc1", "."),
    "nested": (NODE, b"\x91" * 100_000, "."),
    "level": (NODE, encode_node(9, []), "malformed"),
    "ids": (CHUNKS, b"x" * 33, "32 bytes"),
    "many ids": (CHUNKS, bytes(32 * 5000), "up to 4,096 ids"),
    "another kind": (FRAGMENT, b"\x93\x90\xc4\x00\xc4\x00", "it is of kind 'I'"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifest_objects_that_are_none(case: str, good: Good) -> None:
    kind, payload, words = MANIFESTS[case]
    good.refused(*manifest(kind, payload), words)


def test_a_manifest_object_that_unpacks_to_much(good: Good) -> None:
    key, _ = manifest(SEGMENT, b"x")
    good.refused(key, header(SEGMENT, 1) + bomb(64 << 20), "claims 67108864 bytes, at most 4194304")
    good.refused(key, header(SEGMENT, 1) + lying(1 << 20, 100), ".")
    good.refused(key, bytes(5 << 20), "at most 4,195,344|too large|are taken")


def test_an_epoch_of_the_future(good: Good) -> None:
    (key,) = good.keys("packs/")
    good.refused(key.removesuffix(".0") + ".7", good.objects[key], "its epoch is 7, and the newest prune record is 0")


# Records


def changed(good: Good, **members: object) -> bytes:
    return sealed_json({**good.record, **members})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"number": 2}, "does not describe number 1"),
        ({"target": "0" * 32}, "belongs to another target"),
        ({"previous": {"number": 0, "blake3": "0" * 64}}, "names no predecessor"),
        ({"live": []}, "live snapshots are not those"),
        ({"live": [[1, 1], [1, 1]]}, "out of order"),
        ({"prune": 1}, "as the newest prune before it"),
        ({"time": "yesterday"}, "malformed"),
        ({"kind": "publishing"}, "of kind 'publishing' is none that a client makes for a packed target"),
        ({"kind": "x" * 10_000}, "is none that a client makes for a packed target"),
        ({"kind": "forget"}, "needs the right prune, which this key has not"),
        ({"features": {"read": [], "write": ["magic"], "prune": []}}, "must know the features magic"),
        ({"format": 2}, "it has format 2"),
        ({"parents": [9]}, "no record before it"),
        ({"parents": None}, "malformed"),
        ({"deletes": {"blake3": "00" * 32, "epoch": 0, "count": 0, "bytes": 0}}, "only a tree's record has"),
        ({"manifest": {"blake3": "00" * 32, "epoch": 0, "count": 1, "bytes": 1}}, "which is not here"),
        ({"changes": {"blake3": "00" * 32, "epoch": 0, "count": 1, "bytes": 1}}, "which is not here"),
        ({"names": {"keys": [], "before": 1}}, "malformed|names"),
        ({"names": {"keys": ["index/" + "0" * 64 + ".0"], "before": 0}}, "it tells of index/.*, which is not here"),
        ({"names": {"keys": ["mirror.json"], "before": 0}}, "it tells of mirror.json, which is not here"),
        ({"names": {"keys": [], "before": 0, "more": {"blake3": "00" * 32, "epoch": 0, "count": 1, "bytes": 1}}}, "is not here"),
        ({"problems": "x" * 2_000_000}, "at most 1,048,576 are taken"),
    ],
)
def test_records_that_cannot_be(members: dict[str, object], words: str, good: Good) -> None:
    good.send("packs/", "index/", "manifests/")
    good.refused(record_key(1), changed(good, **members), words)


def test_a_record_that_names_what_is_missing(good: Good) -> None:
    record = good.objects[record_key(1)]
    good.refused(record_key(1), record, "it names manifests/.*, which is not here")
    good.send("manifests/")
    good.refused(record_key(1), record, "content of .* is not here: a pack, or the index fragment")
    good.send("packs/")
    good.refused(record_key(1), record, "content of .* is not here")
    good.send("index/")
    for key in good.keys("manifests/"):
        path = good.there / key
        data = path.read_bytes()
        path.unlink()
        good.refused(record_key(1), record, "which is not here")
        path.write_bytes(data)
    good.send("log/")


def test_records_out_of_turn(good: Good) -> None:
    good.send("packs/", "index/", "manifests/")
    good.refused(record_key(2), changed(good, number=2, previous={"number": 1, "blake3": "0" * 64}), "no record 1 yet")
    good.refused(record_key(10**11), good.objects[record_key(1)], "no record 99999999999 yet")
    good.send("log/")
    assert good.store.create(record_key(1), changed(good, tags=["evil"])) is False
    later = {"number": 2, "time": "2999-01-01T00:00:00.000Z", "live": [[1, 2]], "uuid": "0" * 32}
    good.refused(record_key(2), changed(good, **later, previous={"number": 1, "blake3": "0" * 64}), "another record 1 than")
    right = {"number": 1, "blake3": blake3(good.objects[record_key(1)]).hexdigest()}
    old = {**later, "time": good.record["time"]}
    good.refused(record_key(2), changed(good, **old, previous=right), "its time is not after")
    gone = {**later, "live": [[2, 2]]}
    good.refused(record_key(2), changed(good, **gone, previous=right), "no right but prune may forget one")
    silent = {"names": {"keys": [], "before": 0}}
    good.refused(record_key(2), changed(good, **later, **silent, previous=right), "does not tell of all index fragments")
    assert good.store.create(record_key(2), changed(good, **later, previous=right))


def test_an_index_that_is_spoilt_costs_nothing_but_time(good: Good) -> None:
    good.send("packs/", "index/", "manifests/", "log/")
    (state,) = (good.server.folder / "cache/served" / str(good.record["target"])).glob("state.sqlite")
    state.write_bytes(os.urandom(state.stat().st_size))
    right = {"number": 1, "blake3": blake3(good.objects[record_key(1)]).hexdigest()}
    later = {"number": 2, "time": "2999-01-01T00:00:00.000Z", "live": [[1, 2]], "uuid": "0" * 32, "previous": right}
    assert good.store.create(record_key(2), changed(good, **later))


def test_who_may_prune_may_forget_but_not_invent(good: Good) -> None:
    good.send("packs/", "index/", "manifests/", "log/")
    pruner = ServedStore(good.server.spec(good.name, good.server.folder / "pruner.key"), patience_seconds=0)
    right = {"number": 1, "blake3": blake3(good.objects[record_key(1)]).hexdigest()}
    forget = {"number": 2, "kind": "forget", "time": "2999-01-01T00:00:00.000Z", "uuid": "0" * 32, "previous": right}
    good.refused(record_key(2), changed(good, **forget, live=[[2, 2]]), "calls a snapshot live that was not", pruner)
    (pack,) = good.keys("packs/")
    with pytest.raises(MirrorError, match="no prune record has named packs/"):
        pruner.delete([pack])
    with pytest.raises(AuthError, match="has not the right prune"):
        good.store.delete([pack])
    assert (good.there / pack).exists()
    assert pruner.create(record_key(2), changed(good, **forget, live=[]))


# Keys, methods, lengths


@pytest.mark.parametrize(
    "key",
    [
        "../evil", "packs/../../evil", "packs/ab/../x", ".mirror-tmp/x", "packs//x", "/etc/passwd", "log/1.json",
        "log/0000000000001.json", "packs/ab/" + "ab" * 32 + ".0", "packs/00/" + "0" * 64 + ".01", "packs/00/" + "0" * 63 + "g.0",
        "index/" + "0" * 64, "x" * 250, "mirror.json", "lease.json", "whole/00/" + "0" * 32 + ".0", "packs/00/", "-/list",
        "%2e%2e/evil", "packs%2f00", "packs/\x00", "latest.json/x", "log/000000000000.json",
    ],
)  # fmt: skip
def test_keys_that_are_none(key: str, good: Good) -> None:
    raw, outside = Raw(good.server), things(good.server.root)
    target = f"/{good.name}/{key}"
    try:
        for method in ("PUT", "GET", "DELETE", "POST", "PATCH"):
            if (method, key) == ("GET", "mirror.json") or (method, key) == ("GET", "-/list"):
                continue
            body = b"evil" if method != "GET" else None
            status, _ = raw.ask(method, target, body, **({"if_none_match": "*"} if method == "PUT" else {}))
            assert status in (400, 401, 404, 405, 411, 409, 422), (method, status)
    except ValueError:
        assert "\x00" in key  # a client of ours cannot even sign it
    assert things(good.server.root) == outside
    assert not list(good.server.folder.glob("evil*"))


def test_nothing_is_ever_overwritten(good: Good) -> None:
    good.send("packs/", "index/", "manifests/", "log/")
    raw = Raw(good.server)
    for key in good.objects:
        assert raw.ask("PUT", f"/{good.name}/{key}", b"evil", if_none_match="*")[0] in (412, 422)
        status, said = raw.ask("PUT", f"/{good.name}/{key}", b"evil")
        assert status in (428, 422), said
    assert things(good.there) == good.objects


def test_lengths_that_lie(good: Good) -> None:
    (key,) = good.keys("packs/")
    data, target = good.objects[key], f"/{good.name}/{key}"
    raw = Raw(good.server)
    before = things(good.there)
    for length in ("-1", "1e9", str(10**14), "99999999999999999999", "0x10", "5, 5"):
        signed = raw.headers("PUT", target, data, if_none_match="*") | {"content-length": length}
        try:
            assert raw.send("PUT", target, signed, b"")[0] in (400, 401, 411, 413)
        except (ConnectionError, OSError, ValueError):
            pass  # cut off without a word
    signed = sign_request(
        raw.key,
        "PUT",
        f"http://x{target}",
        {"content-digest": digest_of_body(data), "content-length": str(10**9), "if-none-match": "*"},
    )
    assert raw.send("PUT", target, signed, None)[0] == 413
    chunked = raw.headers("PUT", target, data, if_none_match="*")
    del chunked["content-length"]
    assert raw.send("PUT", target, chunked | {"transfer-encoding": "chunked"}, b"0\r\n\r\n")[0] == 411
    assert things(good.there) == before


def test_a_body_that_ends_in_the_middle(good: Good) -> None:
    (key,) = good.keys("packs/")
    raw, target = Raw(good.server), f"/{good.name}/{key}"
    signed = raw.headers("PUT", target, good.objects[key], if_none_match="*")
    with socket.create_connection(("127.0.0.1", good.server.port)) as connection:
        lines = [f"PUT {target} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in signed.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + good.objects[key][:100_000])
        wait_for(lambda: bool(list((good.there / ".mirror-tmp").glob("*"))))
    wait_for(lambda: not list((good.there / ".mirror-tmp").glob("*")))
    assert not (good.there / key).exists()
    good.send("packs/")


def wait_for(happened: Callable[[], bool], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


# Beside an honest client


def test_who_is_slow_is_cut_off_and_an_honest_client_goes_on(good: Good) -> None:
    """Half a request line; headers one by one; a body byte by byte; an answer that nobody reads."""
    (key,) = good.keys("packs/")
    raw, target = Raw(good.server), f"/{good.name}/{key}"
    slow = []
    for number in range(30):
        signed = raw.headers("PUT", target, good.objects[key], if_none_match="*")
        lines = [f"PUT {target} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in signed.items())]
        whole = "\r\n".join([*lines, "", ""]).encode() + b"M"
        slow.append(socket.create_connection(("127.0.0.1", good.server.port)))
        slow[-1].sendall([b"GET /", whole[:200], whole][number % 3])
    try:
        assert mirror.sync(good.site, f"{good.server.url}/{good.name}", key_file=good.server.key_file).exit_code == 0
        for connection in slow[2::3]:  # silent within a body: 3 s
            connection.settimeout(25)
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        for connection in slow[0::3] + slow[1::3]:
            connection.settimeout(25)
            assert connection.recv(100) == b""
    finally:
        for connection in slow:
            connection.close()
    wait_for(lambda: not list((good.there / ".mirror-tmp").glob("*")))
    assert mirror.verify(good.there, against=good.site).exit_code == 0


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_tiny_requests_beside_an_honest_client(count: int, good: Good) -> None:
    raw, done = Raw(good.server), threading.Event()
    statuses: list[int] = []

    def shout() -> None:
        for number in range(count):
            signed = number % 3 == 0
            body = b"x" if number % 2 else None
            statuses.append(raw.ask("PUT" if number % 2 else "GET", f"/{good.name}/packs/{number}", body, sign=signed)[0])
        done.set()

    shouting = threading.Thread(target=shout)
    shouting.start()
    assert mirror.sync(good.site, f"{good.server.url}/{good.name}", key_file=good.server.key_file).exit_code == 0
    shouting.join()
    assert done.is_set()
    assert set(statuses) <= {401, 404, 422}
    assert mirror.verify(good.there, against=good.site).exit_code == 0


@pytest.mark.long
def test_memory_does_not_grow_with_clients_and_packs(server: Served, tmp_path: Path) -> None:
    """Four at once, each with packs of some 24 MiB; then large packs that are refused at their end."""
    names = [f"{tmp_path.name}-{number}" for number in range(4)]
    for name in names:
        server.init(name)
        (tmp_path / name).mkdir()
        for number in range(24):
            (tmp_path / name / f"{number}").write_bytes(os.urandom(4 << 20))
    assert server.process
    process, most, done = psutil.Process(server.process.pid), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    reports = []

    def sync(name: str) -> None:
        reports.append(
            mirror.sync(tmp_path / name, f"{server.url}/{name}", key_file=server.key_file, cache_dir=tmp_path / f"c{name}")
        )

    threads = [threading.Thread(target=sync, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = ServedStore(server.spec(names[0]), patience_seconds=0)
    data = os.urandom(60 << 20)
    with pytest.raises(MirrorError):
        store.create(packed(data), data)
    done.set()
    watching.join()
    assert [report.exit_code for report in reports] == [0] * 4
    assert most[0] < 150 << 20, f"{most[0] >> 20} MiB"


def test_the_good_copy_is_what_the_tests_think(good: Good) -> None:
    """That the objects which are spoilt here are the ones that a sync makes."""
    (key,) = good.keys("index/")
    _, payload = unseal(good.objects[key], (FRAGMENT,), None, "")
    assert decode_fragment(payload, "").chunks > 60
    builder = PackBuilder()
    builder.add(chunk_id(b"x"), b"x")
    pack = builder.finish()
    assert list(encode_fragments([StoredPack(ObjectName(PACK, pack.digest, 0), len(pack.data), pack.blocks)]))
    assert len(good.keys("manifests/")) >= 3
    assert hashlib.sha256(b"").digest() != read_client_key(str(good.server.key_file)).secret


def test_who_comes_when_all_places_are_taken_is_sent_away(tmp_path: Path) -> None:
    """With 256 open files there are 64 places: those who have one keep it, and when one leaves the next may come."""
    with Served(tmp_path / "server", files=256) as server, ExitStack() as stack:
        there = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(64)]
        for number in range(8):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as late, suppress(ConnectionError):
                assert late.recv(1) == b"", number
        for each in there:
            each.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert each.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 401"
        there[0].close()
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as late, suppress(ConnectionError):
                late.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                if late.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 401":
                    return
        raise AssertionError("the place of who left is not given to the next")
