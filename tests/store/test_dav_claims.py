"""Who creates an object in rounds of MKCOL: many interleavings of the requests of three writers, some of whom die.

The server here is a dictionary that does one request at a time, as its writers are told to go on; its MOVE looks first and acts
later, as nginx's does. That real servers make one folder for two who ask is in test_dav.py.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from mirror.errors import NotFound
from mirror.store import Data
from mirror.store.dav_claims import Claims
from mirror.store.dav_server import Made, Moved

KEY = "log/000000000001.json"
SCHEDULES = 250


class Died(BaseException):
    """The writer is no more."""


class Server:
    """Folders and files. `turn` is called before each thing that happens."""

    exclusive = True

    def __init__(self, turn: Callable[[], None]) -> None:
        self.turn = turn
        self.files: dict[str, bytes] = {}
        self.folders = {"", "log/", "claims/", "claims/log/"}
        self.ever: set[bytes] = set()

    def where(self, path: str) -> str:
        return f"http://test/{path}"

    def get(self, path: str, limit: int) -> bytes:
        self.turn()
        if path not in self.files:
            raise NotFound(path)
        assert len(self.files[path]) <= limit
        return self.files[path]

    def size(self, path: str) -> int | None:
        self.turn()
        return len(self.files[path]) if path in self.files else None

    def make(self, folder: str) -> Made:
        self.turn()
        assert folder.endswith("/")
        there = folder in self.folders
        if there and not self.exclusive:
            return Made.MADE
        self.folders.add(folder)
        return Made.THERE if there else Made.MADE

    def make_folders(self, path: str) -> None:
        assert path[: path.rstrip("/").rfind("/") + 1] in self.folders

    def forget_folders(self) -> None:
        pass

    def stage(self, data: Data) -> str:
        self.turn()
        name = f"tmp/{random.random()}"
        self.files[name] = bytes(data)
        return name

    def move(self, path: str, to: str, *, overwrite: bool) -> Moved:
        self.turn()
        if to in self.files and not overwrite:
            return Moved.TAKEN
        self.turn()
        if path not in self.files:
            return Moved.GONE
        self.files[to] = self.files.pop(path)
        if to == KEY:
            self.ever.add(self.files[to])
        return Moved.DONE


class Stage:
    """Lets one writer do one thing at a time, in an order that a seed gives; one may be told to die instead."""

    def __init__(self, seed: int, deaths: int, server: type[Server] = Server) -> None:
        self._chance = random.Random(seed)
        self._deaths = deaths
        self._mine = threading.local()
        self._back = threading.Semaphore(0)
        self.server = server(self._turn)

    def _turn(self) -> None:
        self._back.release()
        self._mine.go.acquire()
        if self._mine.dies():
            raise Died

    def play(self, writers: int) -> dict[int, bool]:
        """What each writer that lived was told."""
        told: dict[int, bool] = {}
        gates = [threading.Semaphore(0) for _ in range(writers)]
        doomed = set(self._chance.sample(range(writers), self._deaths))
        left = {number: self._chance.randrange(1, 14) for number in doomed}
        running = set(range(writers))

        def write(number: int) -> None:
            def dies() -> bool:
                left[number] = left.get(number, 0) - 1
                return number in doomed and left[number] <= 0

            self._mine.go, self._mine.dies = gates[number], dies
            gates[number].acquire()
            try:
                claims = Claims(self.server, "claims/", self.server.stage, sleep=lambda _: self._turn())
                told[number] = claims.create(KEY, b"of %d" % number)
            except Died:
                pass
            finally:
                running.discard(number)
                self._back.release()

        threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(writers)]
        for thread in threads:
            thread.start()
        while running:
            # Mostly the same one goes on, which reaches states that a fair order hardly ever does.
            number = self._chance.choice(sorted(running))
            for _ in range(self._chance.choice((1, 1, 2, 5, 20))):
                if number in running:
                    gates[number].release()
                    assert self._back.acquire(timeout=30)
        for thread in threads:
            thread.join(30)
        return told


def faults(stage: Stage, told: dict[int, bool], deaths: int) -> list[str]:
    """What is wrong with how it ended."""
    found = []
    winners = [number for number, made in told.items() if made]
    if len(stage.server.ever) > 1:
        found.append(f"two contents stood under one key: {stage.server.ever}")
    if len(winners) > 1:
        found.append(f"{winners} were told that they created it")
    if winners and stage.server.files.get(KEY) != b"of %d" % winners[0]:
        found.append("the winner's content is not there")
    if told and KEY not in stage.server.files:
        found.append("somebody was answered, and there is no object")
    if not deaths and len(winners) != 1:
        found.append("nobody died, and nobody won")
    return found


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_one_content_whatever_the_order_and_whoever_dies(deaths: int) -> None:
    for seed in range(SCHEDULES):
        stage = Stage(seed, deaths)
        told = stage.play(3)
        assert len(told) >= 3 - deaths, seed  # some have finished before they were to die
        assert faults(stage, told, deaths) == [], seed


def test_a_server_that_makes_a_folder_twice_would_be_found_out() -> None:
    class Careless(Server):
        exclusive = False

    def goes_wrong(seed: int) -> bool:
        stage = Stage(seed, 0, Careless)
        return bool(faults(stage, stage.play(3), 0))

    assert any(goes_wrong(seed) for seed in range(SCHEDULES))


def test_what_a_dead_writer_had_decided_is_written_by_the_next() -> None:
    """It dies between the round behind its own and the last MOVE: nobody sees the object, and it exists all the same."""

    class Dies(Server):
        def move(self, path: str, to: str, *, overwrite: bool) -> Moved:
            if to == KEY and dying:
                raise Died
            return super().move(path, to, overwrite=overwrite)

    dying = [True]
    server = Dies(lambda: None)
    with pytest.raises(Died):
        Claims(server, "claims/", server.stage).create(KEY, b"theirs")
    assert KEY not in server.files
    dying.clear()
    assert Claims(server, "claims/", server.stage, sleep=lambda _: None).create(KEY, b"ours") is False
    assert server.files[KEY] == b"theirs"
    assert Claims(server, "claims/", server.stage).create(KEY, b"ours") is False


def test_what_was_deleted_can_be_created_again() -> None:
    server = Server(lambda: None)
    claims = Claims(server, "claims/", server.stage, sleep=lambda _: None)
    assert claims.create(KEY, b"first") is True
    del server.files[KEY]
    assert claims.create(KEY, b"second") is True
    assert server.files[KEY] == b"second"
