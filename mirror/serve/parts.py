"""Objects that come in parts, because the link breaks before one of them has come in a piece.

    parts = Parts(store)
    parts.have(whole)                    how much of it is there
    parts.add(whole, at, part, finish)   so much more

Who sends says of each part what the whole is (`Whole`), and where the part begins: just behind what is there, else it is refused
and told where that is. A part counts when all of it has come and is what its digest says; then it is added to a temporary file that
stays when a connection, a client or the server ends. With the last part the whole goes through the same gate as an object that
comes in a piece. So broken connections and two senders at once do no harm: each part is added once, by whoever is first.

The file belongs to one client (the name of its key) and to these very bytes: nobody can add to what another one sends, and two
machines with one key only help each other. Of one client there are so many in a store at most: for one more the one goes that has
waited longest. What nobody has added to for a day goes as well: by then the night after has sent, or not needed, it. Knows nothing
of HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from mirror.serve.examine import Hash, Rejected
from mirror.store.fs import Draft, FolderStore
from mirror.store.lasting import PREFIX, LastingDrafts
from mirror.store.leftovers import DAY

T = TypeVar("T")
_PIECE: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Whole:
    """What a part is a part of. client: the name of the key of who sends it; size: bytes; sha256: of all of them."""

    client: str
    key: str
    size: int
    sha256: bytes

    @property
    def name(self) -> str:
        """Of its temporary file."""
        meant = f"{self.client}\n{self.key}\n{self.size}\n{self.sha256.hex()}"
        return _prefix(self.client) + hashlib.sha256(meant.encode()).hexdigest()[:32]


class Misplaced(Exception):
    """A part that does not begin where the one before it ended. have: the bytes that are there."""

    def __init__(self, at: int, have: int) -> None:
        self.have = have
        super().__init__(f"the part begins at byte {at:,}, and {have:,} bytes of the object are here: send on from byte {have}")


class Parts:
    """What has come of the objects of one store. Any thread may use it, and other servers on the same store."""

    def __init__(self, store: FolderStore) -> None:
        self._store, self._drafts = store, LastingDrafts(store)

    def have(self, whole: Whole) -> int:
        """How many bytes of it are there."""
        return min(self._drafts.size(whole.name), whole.size)

    def make_room(self, whole: Whole, most: int) -> None:
        """Before the first part of an object: of this client there shall be `most` files with it, and none that was given up."""
        ages = self._drafts.ages(PREFIX)
        given_up = [name for name, age in ages.items() if age > DAY]
        own = [name for name in ages if name.startswith(_prefix(whole.client)) and name != whole.name and ages[name] <= DAY]
        own.sort(key=lambda name: ages[name])
        for name in given_up + own[max(0, most - 1) :]:
            self._drafts.discard(name)

    def add(self, whole: Whole, at: int, part: Draft, finish: Callable[[Draft, Hash], T]) -> T | int | None:
        """Add a part that has come as it should, `at` bytes from the beginning: the bytes that are there now. With the last of them
        the whole is handed to `finish`: what that gives. None where there is an object of that key already. Misplaced; Rejected,
        and the parts are thrown away, when the whole is not what it was said to be or `finish` does not accept it."""
        with self._drafts.hold(whole.name) as draft:
            if self._store.size(whole.key) is not None:  # somebody else's came meanwhile
                draft.drop()
                return None
            if at != draft.size:
                if not draft.size:  # made just now
                    draft.drop()
                raise Misplaced(at, draft.size)
            for start in range(0, part.size, _PIECE):
                draft.write(part.read(start, start + _PIECE))
            if draft.size < whole.size:
                return draft.size
            try:
                done = finish(draft, _whole_hash(whole, draft))
            except Rejected:
                draft.drop()
                raise
            draft.drop()
            return done


def _whole_hash(whole: Whole, draft: Draft) -> Hash:
    """The hash of what has come in parts. Rejected when that is not what all parts said it would be."""
    name, sha256 = Hash(), hashlib.sha256()
    for start in range(0, draft.size, _PIECE):
        piece = draft.read(start, start + _PIECE)
        name.update(piece)
        sha256.update(piece)
    if draft.size != whole.size or sha256.digest() != whole.sha256:
        raise Rejected("its parts are not the object that they were said to be: send it anew", "altered")
    return name


def _prefix(client: str) -> str:
    return f"{PREFIX}{hashlib.sha256(client.encode()).hexdigest()[:16]}-"
