"""`mirror filter-test`: which rule lets a path in or leaves it out, and where that rule stands.

    for verdict in explain([b"notes.tmp"], rules, None, Job("filter-test")):
        verdict.included, verdict.rule, verdict.place

The rules are asked as a scan asks them, folder by folder from the root, by the same matcher. Nothing of the site is looked at but
the `.mirrorignore` files of the folders above a path, so it need not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mirror.errors import NotFound, SourceError, UsageError
from mirror.events import Job, RunStarted
from mirror.keys import path_fault, show
from mirror.site import Filter, Site, SiteSpec
from mirror.site.filters import IGNORE_FILE, IGNORE_FILE_MAX, Decision, Matcher, Placed
from mirror.site.open import open_site

_KEPT = 64  # `.mirrorignore` files kept while neighbouring paths are asked for, each at most 1 MiB


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules make of a path. included: it is let in; rule: the one that decides, empty where none does; place: where that
    rule stands; folder: the folder that it leaves out with all that is below, empty where it decides on the path itself; porous: a
    folder that is left out and looked into all the same: it comes back when something below it is let in."""

    path: str
    included: bool
    rule: str = ""
    place: str = ""
    folder: str = ""
    porous: bool = False


def explain(paths: Sequence[bytes], rules: Sequence[Placed], source: SiteSpec | None, job: Job) -> Iterator[Verdict]:
    """One verdict for each path, in order. A path that ends in `/` is a folder. rules: in order, as `Settings.rules` gives them.
    source: the site whose `.mirrorignore` files count; none when None. SourceError when it or one of them cannot be read,
    UsageError for what is no path of a site."""
    wanted = [_path(path) for path in paths]
    site = open_site(source) if source else None
    if site:
        site.check()
    job.say(RunStarted("filter-test", site.url if site else "", ""))
    ignoring = lru_cache(_KEPT)(lambda folder: _ignore_file(site, folder) if site else None)
    matcher = Matcher(Filter(tuple((rule.kind, rule.pattern) for rule in rules)))
    for path in wanted:
        entered = 0
        end = 0
        verdict = None
        while verdict is None:
            content = ignoring(path[:end])
            if content is not None:
                matcher.enter(path[:end], content)
                entered += 1
            end = path.find(b"/", end) + 1 or len(path)
            decision = matcher.explain(path[:end]) if path else None
            if end == len(path):
                verdict = _verdict(path, path, decision, rules, matcher)
            elif decision and not decision.lets_in and not _is_porous(decision, matcher):
                verdict = _verdict(path, path[:end], decision, rules, matcher)
        for _ in range(entered):
            matcher.leave()
        yield verdict


def _verdict(path: bytes, decided: bytes, decision: Decision | None, rules: Sequence[Placed], matcher: Matcher) -> Verdict:
    if decision is None:
        return Verdict(show(path), True)
    if decision.number is not None:
        place = rules[decision.number].place
    else:
        place = f"{show(decision.file.encode('utf-8', 'surrogateescape'))} line {decision.line}"
    folder = show(decided) if decided != path else ""
    porous = not decision.lets_in and path[-1:] == b"/" and not folder and _is_porous(decision, matcher)
    return Verdict(show(path), decision.lets_in, decision.rule, place, folder, porous)


def _is_porous(decision: Decision, matcher: Matcher) -> bool:
    return decision.number is not None and matcher.looks_below(decision.rule)


def _path(given: bytes) -> bytes:
    """A path as a user gives it, as a site has it."""
    path = given.removeprefix(b"./").lstrip(b"/")
    path = b"" if path == b"." else path
    if fault := path_fault(path):
        raise UsageError("cannot ask for", where=show(given), why=fault, hint="give paths as `mirror ls` prints them")
    return path


def _ignore_file(site: Site, folder: bytes) -> bytes | None:
    """The folder's `.mirrorignore`, None where there is none."""
    try:
        content = site.open(folder + IGNORE_FILE)
        read = bytearray()
        with content.stream:
            while len(read) <= IGNORE_FILE_MAX and (piece := content.stream.read(1 << 16)):
                read += piece
        if len(read) > IGNORE_FILE_MAX:
            raise OSError(0, f"it is larger than {IGNORE_FILE_MAX} bytes")
    except NotFound:
        return None
    except OSError as error:
        why = error.strerror or str(error)
        hint = "nothing of its folder can be mirrored until it can be read"
        raise SourceError("cannot read", where=show(folder + IGNORE_FILE), why=why, hint=hint) from None
    return bytes(read)
