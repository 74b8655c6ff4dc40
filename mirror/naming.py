"""Names that cannot stand together, or at all, where a tree is published: found from the plan, before anything is written.

Owns three questions. Do two paths mean one place there (`A.txt` and `a.txt`, two Unicode forms of one name)? Is a file to be where
a folder must be (object stores allow `a` and `a/b`, folders do not)? Can a path be there at all? The place answers for itself
(`Names`): what follows here from a spelling is only proposed, and asked of the place.

Of several names for one place the one that is there already stays, else a folder, else the first in order of path. What a run
deletes still has its name while the run writes, so a file that was only spelt anew can come one run later.

What is held is sorted on disk; the whole site is gone through only where the place folds names, or the source has no folders.

    with conflicts(survey.plan, parent, names) as found:
        for conflict in found:
            print(conflict)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from mirror.errors import UsageError
from mirror.events import Problem
from mirror.keys import parent_of, show
from mirror.manifest import Entry
from mirror.plan import NEW, Counts, Drop, Fetch, Item, Put, decode, encode
from mirror.site.open import open_writable
from mirror.spool import Sorter, Spool
from mirror.store.errnos import error_for
from mirror.target import Target

NAMED: Final = 20  # conflicts that an error names
_ONE_NAME, _ONE_KIND = "they are one name there", "a file and a folder cannot have one name there"
_STILL: Final = "that is one name there, which the other has until this run is over"
T = TypeVar("T")
_STAYS, _GOES, _COMES = b"0", b"1", b"2"  # in this order names have a right to a place


class Names(Protocol):
    """What a place makes of names.

    folds_case: names that differ in case alone may be one; normalises: so may Unicode forms of one name; together: a file `a` and
    something below `a/` can be there at once.
    """

    @property
    def folds_case(self) -> bool:
        """See above."""
        ...

    @property
    def normalises(self) -> bool:
        """See above."""
        ...

    @property
    def together(self) -> bool:
        """See above."""
        ...

    def fault(self, path: bytes) -> str:
        """Why nothing can have this path there, empty when something can."""
        ...

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two names (no `/` in them) are one there. Asked only of names that `folds_case` and `normalises` make alike."""
        ...


@dataclass(frozen=True, slots=True)
class ExactNames:
    """A place where every name is its own: an object store. fault: as `Names.fault`."""

    fault: Callable[[bytes], str] = lambda path: ""
    together: bool = True
    folds_case: bool = False
    normalises: bool = False

    def same(self, one: bytes, other: bytes) -> bool:
        """See `Names.same`."""
        return one == other


class Conflict(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A path that cannot be there; a folder's ends in `/` and stands for all below it. other: what has its place, if anything."""

    path: bytes
    other: bytes
    why: str

    def problem(self, hint: str) -> Problem:
        """It, as the problem of its path."""
        also = f"{show(self.other)} is there: " if self.other else ""
        return Problem(show(self.path), "name", f"{also}{self.why}", hint)

    def __str__(self) -> str:
        return f"{show(self.path)}{' and ' + show(self.other) if self.other else ''}: {self.why}"


class _Wanted(NamedTuple):
    """A path of the manifest that is to be, or one that goes; a folder's ends in `/`. right: to its name."""

    path: bytes
    right: bytes


def conflicts(plan: Iterable[Item], parent: Callable[[], Iterable[Entry]], names: Names, protected: bool = True) -> Spool[Conflict]:
    """What cannot be there of what a plan adds, in order of path; close it. parent: the entries of the snapshot before; protected:
    whether the plan leaves entries of it that the source may not have any more."""
    found: Spool[Conflict] = Spool(_encode, _decode)
    try:
        with Sorter() as lost:
            if any(map(is_new, plan)):
                for conflict in _all(plan, parent, names, protected):
                    lost.add(conflict.path, _encode(conflict))
            last = b""
            for path, data in lost:
                below = last.endswith(b"/") and path.startswith(last)
                if path != last and not below:
                    found.append(_decode(data))
                    last = path
    except BaseException:
        found.close()
        raise
    return found


def resolved(
    plan: Spool[Item],
    counts: Counts,
    parent: Callable[[], Iterable[Entry]],
    names: Names,
    place: str,
    skip: bool,
    on_problem: Callable[[Problem], None],
) -> Spool[Item]:
    """The plan, once nothing in it is in conflict: UsageError when something is, or (skip) that is left out and told. place: for
    people."""
    with conflicts(plan, parent, names, counts.protected > 0) as found:
        if not skip:
            refuse(found, place)
        for conflict in found:
            on_problem(conflict.problem("rename it in the source, or leave it out"))
        return without(plan, found, counts) if len(found) else plan


def refuse(found: Spool[Conflict], place: str) -> None:
    """UsageError that names the first conflicts, if there are any."""
    if not len(found):
        return
    named = [str(conflict) for conflict, _ in zip(found, range(NAMED), strict=False)]
    rest = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    raise UsageError(
        "cannot publish into",
        where=place,
        why=f"{len(found):,} {'name' if len(found) == 1 else 'names'} of the source cannot be there: {'; '.join(named)}{rest}",
        hint="rename them, leave them out with --exclude, or say --case-conflict skip",
        kind="names",
    )


def without(plan: Spool[Item], found: Spool[Conflict], counts: Counts, comes: Callable[[Item], bool] | None = None) -> Spool[Item]:
    """The plan without what is in conflict; it is closed, and the counts are put right. comes: which of its items are those that
    come, by default what is new."""
    comes = comes or is_new
    kept: Spool[Item] = Spool(encode, decode)
    try:
        for item, lost in judged(plan, lambda item: item.entry.path, found):
            if not (lost and comes(item)):
                kept.append(item)
                continue
            counts.added -= 1
            if isinstance(item, Fetch):
                counts.fetch_files -= 1
                counts.fetch_bytes -= item.entry.size
    except BaseException:
        kept.close()
        raise
    plan.close()
    return kept


def judged(each: Iterable[T], path_of: Callable[[T], bytes], found: Iterable[Conflict]) -> Iterator[tuple[T, bool]]:
    """Each of what is in order of path, and whether it is in conflict or in a folder that is."""
    ahead = iter(found)
    lost = next(ahead, None)
    for one in each:
        path = path_of(one)
        while lost is not None and lost.path < path and not (lost.path.endswith(b"/") and path.startswith(lost.path)):
            lost = next(ahead, None)
        yield one, lost is not None and (path == lost.path or (lost.path.endswith(b"/") and path.startswith(lost.path)))


def is_new(item: Item) -> bool:
    """Whether an item of a sync's plan is a path that was not there."""
    return (isinstance(item, Fetch) and item.before is None) or (isinstance(item, Put) and item.symbol == NEW)


def _all(plan: Iterable[Item], parent: Callable[[], Iterable[Entry]], names: Names, protected: bool) -> Iterator[Conflict]:
    for item in plan:
        if is_new(item) and (why := names.fault(item.entry.path)):
            yield Conflict(item.entry.path, b"", why)
    if names.folds_case or names.normalises:
        yield from _folded(_wanted(plan, parent()), names)
    elif not names.together:
        yield from _two_kinds(_wanted(plan, parent()), protected)


def _wanted(plan: Iterable[Item], parent: Iterable[Entry]) -> Iterator[_Wanted]:
    """All paths that are to be, and those that go, in order."""
    old = iter(parent)
    ahead = next(old, None)
    for item in plan:
        path = item.entry.path
        while ahead is not None and ahead.path < path:
            yield _Wanted(ahead.path, _STAYS)
            ahead = next(old, None)
        if ahead is not None and ahead.path == path:
            ahead = next(old, None)
        yield _Wanted(path, _GOES if isinstance(item, Drop) else _COMES if is_new(item) else _STAYS)
    while ahead is not None:
        yield _Wanted(ahead.path, _STAYS)
        ahead = next(old, None)


def _two_kinds(wanted: Iterator[_Wanted], protected: bool) -> Iterator[Conflict]:
    """Files that stand where a folder is to be. A source that has folders itself cannot have such, unless a filter protects what is
    there no more."""
    near: list[_Wanted] = []  # files whose folder may still come: the paths that the last one begins with, and those beside
    told = b""
    for path, right in wanted:
        if not path and not protected:
            return
        if right == _GOES:
            continue  # what goes makes room
        while near and path >= near[-1].path + b"0":  # "0" is the byte after "/"
            near.pop()
        for file in near:
            folder = file.path + b"/"
            if path.startswith(folder) and folder != told and _COMES in (right, file.right):
                told = folder
                # A new file gives way, whatever else is still to come in the folder.
                yield Conflict(folder, file.path, _ONE_KIND) if file.right == _STAYS else Conflict(file.path, folder, _ONE_KIND)
        if not path.endswith(b"/"):
            near.append(_Wanted(path, right))


def _key(wanted: _Wanted, names: Names) -> bytes:
    """What sorts together paths that may mean one place, those with the better right first."""
    kind = b"0" if wanted.path.endswith(b"/") else b"1"
    return b"%s\0%s%s%s" % (_fold(wanted.path, names), wanted.right, kind, wanted.path)


def _folded(wanted: Iterator[_Wanted], names: Names) -> Iterator[Conflict]:
    """Paths that mean one place, by sorting all of them by what they are folded to."""
    with Sorter() as sorter:
        sorter.extend((_key(each, names), b"") for each in _with_folders(wanted) if each.path)
        group, winners = b"", dict[bytes, list[_Wanted]]()
        for key, _ in sorter:
            folded, _, spelt = key.partition(b"\0")
            here = _Wanted(spelt[2:], spelt[:1])
            if folded != group:
                group, winners = folded, {}
            # Those in another spelling of the folder above are that folder's matter.
            before = winners.setdefault(parent_of(here.path), [])
            rival = next((other for other in before if _is_one(other, here, names)), None)
            if rival is None:
                before.append(here)
            elif here.right == _COMES:
                yield Conflict(here.path, rival.path, _why(rival, here))


def _is_one(one: _Wanted, other: _Wanted, names: Names) -> bool:
    first, second = (each.path.removesuffix(b"/").rpartition(b"/")[2] for each in (one, other))
    if first == second:
        return not names.together and one.right != _GOES
    return names.same(first, second)


def _why(one: _Wanted, other: _Wanted) -> str:
    if one.right == _GOES:
        return _STILL
    return _ONE_KIND if one.path.rstrip(b"/") == other.path.rstrip(b"/") else _ONE_NAME


def _with_folders(wanted: Iterator[_Wanted]) -> Iterator[_Wanted]:
    """All paths, and the folders above them once each, also where the source has none. A folder comes when all in it comes, and
    goes when all in it goes."""
    above: list[tuple[bytes, bytes]] = []  # folders that the path just seen is in: (path, the right of what is in it)
    for path, right in wanted:
        while above and not path.startswith(above[-1][0]):
            yield _Wanted(*above.pop())
        above = [(folder, right if right == so_far else _STAYS) for folder, so_far in above]
        known = above[-1][0] if above else b""
        end = path.find(b"/", len(known)) + 1
        while end:
            above.append((path[:end], right))
            end = path.find(b"/", end) + 1
        if not path.endswith(b"/"):
            yield _Wanted(path, right)
    while above:
        yield _Wanted(*above.pop())


def _fold(path: bytes, names: Names) -> bytes:
    """What paths have in common that may mean one place. NFD before and after: folding case can undo a form."""
    text = path.removesuffix(b"/").decode("utf-8", "surrogateescape")
    if not text.isascii() and names.normalises:
        text = unicodedata.normalize("NFD", text)
    if names.folds_case:
        text = text.casefold()
        if not text.isascii() and names.normalises:
            text = unicodedata.normalize("NFD", text)
    return text.encode("utf-8", "surrogateescape")


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Conflict).decode


def fitting(
    plan: Spool[Item],
    counts: Counts,
    before: Callable[[], Iterator[Entry]],
    target: Target,
    skip: bool,
    look_only: bool,
    on_problem: Callable[[Problem], None],
) -> Spool[Item]:
    """`resolved` for the live place of a tree. look_only: a folder is only looked at, no name is tried in it."""
    if target.in_bucket:
        fault = open_writable(target.live).fault
        exact = ExactNames(lambda path: fault(path) if path and not path.endswith(b"/") else "")
        return resolved(plan, counts, before, exact, target.tree, skip, on_problem)
    from mirror.site.probe import FolderNames

    try:
        with FolderNames(target.tree, look_only=look_only) as names:
            return resolved(plan, counts, before, names, target.tree, skip, on_problem)
    except OSError as error:
        raise error_for(error, "cannot publish into", target.tree) from error
