"""Objects that come to a `mirror serve` in parts, asked as docs/http.md says: what counts, what is refused in which words, what
stays when somebody dies, and how much of it there may be.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served
from test_serve import Raw

from mirror.access import read_client_key
from mirror.chunking import chunk_id
from mirror.keys import PACK, ObjectName
from mirror.pack import PackBuilder

DAY = 86_400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server"), "--imports", "1", "--max-body", "8M") as server:
        server.new_key("reader", "read")
        server.new_key("other", "read,append")
        yield server


def a_pack(chunks: int = 5) -> tuple[str, bytes]:
    """The key and the bytes of a pack that no two tests have: so many chunks of 100 KB."""
    builder = PackBuilder()
    for _ in range(chunks):
        data = os.urandom(100_000)
        builder.add(chunk_id(data), data)
    pack = builder.finish()
    return ObjectName(PACK, pack.digest, 0).key(), pack.data


class Sender(Raw):
    """One client that sends one object to a target in parts, as a test tells it."""

    def __init__(self, server: Served, name: str, key: str, data: bytes, as_: str = "nightly") -> None:
        super().__init__(server)
        self.key = read_client_key(str(server.folder / f"{as_}.key"))
        self.there, self.object, self.data = server.root / name, key, data
        self.size, self.sha256 = len(data), hashlib.sha256(data).hexdigest()
        self._name = name

    @property
    def service(self) -> str:
        return f"/{self._name}/-/part?key={self.object}&of={self.size}&sha256={self.sha256}"

    def have(self) -> object:
        status, said = self.ask("GET", self.service)
        assert (status, said["result"]) == (200, "partly there"), said
        return said["have"]

    def put(self, at: int, end: int, **headers: str) -> tuple[int, dict[str, object]]:
        return self.ask("PUT", f"{self.service}&at={at}", self.data[at:end], **headers)

    def kept(self) -> list[Path]:
        """What lies in the store that is not an object."""
        return sorted((self.there / ".mirror-tmp").glob("*"))


@pytest.fixture
def sender(server: Served, tmp_path: Path) -> Sender:
    server.init(tmp_path.name)
    return Sender(server, tmp_path.name, *a_pack())


def test_part_by_part_it_becomes_an_object(sender: Sender) -> None:
    assert sender.have() == 0
    assert sender.kept() == []
    for at, end in ((0, 1), (1, 200_000), (200_000, 200_001), (200_001, 450_000)):
        assert sender.put(at, end) == (202, {"result": "partly there", "have": end})
        assert sender.have() == end
        assert not (sender.there / sender.object).exists()
    assert sender.put(450_000, sender.size) == (201, {"result": "imported"})
    assert (sender.there / sender.object).read_bytes() == sender.data
    assert sender.kept() == []
    assert sender.ask("GET", sender.service) == (200, {"result": "already there", "have": sender.size})
    assert sender.put(0, 100) == (412, {"result": "already there"})


def test_what_does_not_fit_is_refused_and_told_where_it_goes_on(sender: Sender) -> None:
    sender.put(0, 100_000)
    for at, end in ((0, 100_000), (99_999, 200_000), (100_001, 200_000), (300_000, sender.size), (0, sender.size)):
        status, said = sender.put(at, end)
        assert (status, said["kind"], said["have"]) == (409, "offset", 100_000)
        assert f"the part begins at byte {at:,}, and 100,000 bytes of the object are here" in str(said["detail"])
    for target, body, words in (
        (f"&at={sender.size - 5}", b"123456", "ends within the object"),
        ("&at=100000", b"", "a byte at least"),
        ("&at=-1", b"x", "at is a number of bytes"),
        ("&at=1e3", b"x", "at is a number of bytes"),
        ("", b"x", "at is a number of bytes"),
    ):
        status, said = sender.ask("PUT", sender.service + target, body)
        assert (status, said["kind"]) == (400, "bad-request")
        assert words in str(said["detail"])
    assert sender.have() == 100_000


@pytest.mark.parametrize(
    ("old", "new", "status", "kind"),
    [
        ("&of=", "&of=9", 413, "too-large"),
        ("&of=", "&of=x", 400, "bad-request"),
        ("&sha256=", "&sha256=00", 400, "bad-request"),
        ("?key=packs", "?key=other", 422, "rejected"),
        ("?key=packs", "?key=../packs", 422, "rejected"),
    ],
)
def test_what_is_meant_must_be_an_object(old: str, new: str, status: int, kind: str, sender: Sender) -> None:
    got, said = sender.ask("PUT", sender.service.replace(old, new) + "&at=0", b"x")
    assert (got, said["kind"]) == (status, kind)
    assert sender.kept() == []


def test_the_hint_does_not_come_in_parts(sender: Sender) -> None:
    sender.object = "latest.json"
    sender.size = 100
    assert sender.put(0, 10)[0] == 400


def test_a_reader_sends_nothing(server: Served, sender: Sender) -> None:
    reader = Sender(server, sender._name, sender.object, sender.data, "reader")
    assert reader.put(0, 100)[0] == 403
    assert reader.have() == 0
    assert sender.ask("POST", sender.service)[0] == 405


def test_a_part_that_was_changed_on_the_way_does_not_count(sender: Sender) -> None:
    sender.put(0, 100_000)
    target = f"{sender.service}&at=100000"
    part = sender.data[100_000:200_000]
    headers = sender.headers("PUT", target, part)
    status, said = sender.send("PUT", target, headers, part[:-1] + bytes([part[-1] ^ 1]))
    assert (status, said["kind"]) == (400, "altered")
    assert sender.have() == 100_000


def test_parts_that_are_another_object_are_thrown_away(sender: Sender) -> None:
    """What each part is, is right; what they are together is not what all of them said."""
    right = sender.data
    sender.data = right[:200_000] + bytes(200_000) + right[400_000:]
    sender.put(0, 300_000)
    status, said = sender.put(300_000, sender.size)
    assert (status, said["kind"]) == (400, "altered")
    assert "send it anew" in str(said["detail"])
    assert (sender.have(), sender.kept()) == (0, [])
    sender.sha256 = hashlib.sha256(sender.data).hexdigest()  # now they say so, and it is not what its name says
    sender.put(0, 300_000)
    status, said = sender.put(300_000, sender.size)
    assert (status, said["kind"]) == (422, "rejected")
    assert (sender.have(), sender.kept()) == (0, [])
    sender.data, sender.sha256 = right, hashlib.sha256(right).hexdigest()
    assert sender.put(0, sender.size)[0] == 201


def test_clients_do_not_see_each_others_parts(server: Served, sender: Sender) -> None:
    other = Sender(server, sender._name, sender.object, sender.data, "other")
    sender.put(0, 300_000)
    assert other.have() == 0
    assert other.put(300_000, other.size)[0] == 409
    assert other.put(0, 200_000)[0] == 202
    assert sender.have() == 300_000
    assert other.put(200_000, other.size)[0] == 201
    assert sender.put(300_000, sender.size)[0] == 412
    assert (sender.there / sender.object).read_bytes() == sender.data
    assert sender.kept() != []  # until a sweep: nobody has come for it
    assert [path.stat().st_nlink for path in sender.kept()] == [1]


@pytest.mark.parametrize("who", ["nightly", "other"])
def test_two_at_once_with_the_same_object(who: str, server: Served, sender: Sender) -> None:
    """As one key on two machines, or one machine whose first request the server has not given up yet; or as two keys."""
    both_send(*(Sender(server, sender._name, sender.object, sender.data, as_) for as_ in ("nightly", who)))
    assert (sender.there / sender.object).read_bytes() == sender.data


def test_two_at_once_by_two_servers_on_one_folder(server: Served, sender: Sender, tmp_path: Path) -> None:
    second = Served(tmp_path / "second")
    second.root, second.keys = server.root, server.keys
    with second:
        other = Sender(second, sender._name, sender.object, sender.data)
        other.key = sender.key
        both_send(sender, other)
    assert (sender.there / sender.object).read_bytes() == sender.data
    assert sender.kept() == []


def both_send(*others: Sender) -> None:
    """One of them gets it made, the other is told that it is there."""
    together, ends = threading.Barrier(2, timeout=60), []

    def send(one: Sender) -> None:
        together.wait()
        at = 0
        while True:
            status, said = one.put(at, min(at + 30_000, one.size))
            if status in (201, 412):
                ends.append(status)
                return
            assert status in (202, 409), said
            assert int(str(said["have"])) >= at
            at = int(str(said["have"]))

    threads = [threading.Thread(target=send, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [201, 412]


def test_a_killed_server_has_what_had_come(tmp_path: Path) -> None:
    with Served(tmp_path / "server") as server:
        server.init("www")
        sender = Sender(server, "www", *a_pack())
        sender.put(0, 300_000)
        server.stop(signal.SIGKILL)
        server.start()
        assert sender.have() == 300_000
        assert sender.put(300_000, sender.size)[0] == 201
        assert (sender.there / sender.object).read_bytes() == sender.data
        assert sender.kept() == []


def test_killed_before_the_object_has_its_name_or_its_parts_are_gone(sender: Sender) -> None:
    """All of it is there, and nothing is left to be sent; then the object has its name, and its parts have another one still."""
    sender.put(0, sender.size - 1)
    (part,) = sender.kept()
    with part.open("ab") as file:
        file.write(sender.data[-1:])
    assert sender.have() == sender.size
    os.link(part, sender.there / "mine")
    assert sender.have() == 0  # nobody knows what else that file is: it is not added to
    (sender.there / "mine").unlink()
    assert sender.put(sender.size, sender.size) == (201, {"result": "imported"})
    os.link(sender.there / sender.object, part)
    assert sender.put(0, 100)[0] == 412
    (sender.there / sender.object).rename(sender.there / "mine")  # gone, as by a prune
    assert sender.put(0, 100)[0] == 202
    assert (sender.there / "mine").read_bytes() == sender.data
    assert (sender.have(), part.read_bytes()) == (100, sender.data[:100])


def test_of_one_client_there_are_so_many_at_most(server: Served, sender: Sender) -> None:
    """Eight times --imports, as for what arrives at once: who begins one more gives the oldest up. Others are not touched."""
    other = Sender(server, sender._name, *a_pack(2), "other")
    other.put(0, 5)
    begun = [Sender(server, sender._name, *a_pack(2)) for _ in range(11)]
    for number, each in enumerate(begun):
        assert each.put(0, 1000)[0] == 202
        now = time.time() - 1000 + number
        for path in each.kept():
            if path.stat().st_mtime > time.time() - 500:
                os.utime(path, (now, now))
    assert [each.have() for each in begun] == [0] * 3 + [1000] * 8
    assert other.have() == 5
    assert len(sender.kept()) == 9
    assert begun[0].put(0, begun[0].size)[0] == 201


@pytest.mark.parametrize("hours", [23, 25])
def test_what_nobody_has_added_to_for_a_day_is_swept(hours: int, sender: Sender) -> None:
    sender.put(0, 1000)
    (part,) = sender.kept()
    then = time.time() - hours * 3600
    os.utime(part, (then, then))
    assert sender.ask("POST", f"/{sender._name}/-/sweep", b"") == (200, {"removed": int(hours == 25)})
    assert sender.have() == (0 if hours == 25 else 1000)


def test_who_begins_sweeps_what_others_gave_up(server: Served, sender: Sender) -> None:
    other = Sender(server, sender._name, sender.object, sender.data, "other")
    other.put(0, 1000)
    (part,) = sender.kept()
    os.utime(part, (time.time() - DAY - 60,) * 2)
    sender.put(0, 5)
    assert (other.have(), sender.have()) == (0, 5)


def test_a_link_planted_among_the_parts_leads_nowhere(sender: Sender, tmp_path: Path) -> None:
    sender.put(0, 1000)
    (part,) = sender.kept()
    part.unlink()
    (tmp_path / "victim").write_bytes(b"mine")
    part.symlink_to(tmp_path / "victim")
    assert sender.put(0, 1000)[0] >= 400
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_parts_do_not_fill_the_disk(tmp_path: Path) -> None:
    with Served(tmp_path / "server", "--min-free", "99.9%") as server:
        server.init("www")
        sender = Sender(server, "www", *a_pack())
        status, said = sender.put(0, 1000)
        assert (status, said["kind"]) == (507, "disk-full")
        assert sender.kept() == []
