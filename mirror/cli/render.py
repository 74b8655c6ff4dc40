"""Reports as lines for people. Values in, text out; nothing is printed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mirror.events import Problem
from mirror.progress import size_text

_NAMED: Final = 20
_WORDS: Final = {
    "added": "new",
    "changed": "changed",
    "moved": "moved",
    "described": "described anew",
    "deleted": "deleted",
    "same": "same",
}


def report_lines(report: Any, verbose: bool) -> Iterator[str]:
    """What a verb did, in a few lines."""
    match type(report).__name__:
        case "SyncReport":
            yield from _sync(report)
        case "RestoreReport":
            yield from _restore(report)
        case "RollbackReport":
            yield from _rollback(report)
        case "PublishReport":
            yield from _publish(report)
        case "VerifyReport":
            yield from _verify(report)
        case "ReceiveReport":
            yield f"{report.answers:,} answers, {report.refusals:,} of them refusals; {report.imported:,} objects came"
        case "InitReport":
            yield _init(report)
        case "SiteReport":
            yield _site(report)
    if verbose and getattr(report, "requests", None):
        yield "requests: " + ", ".join(f"{count:,} {kind}" for kind, count in report.requests.items() if count)


def problem_lines(problems: Sequence[Problem], kinds: Mapping[str, int] | None = None) -> Iterator[str]:
    """The first twenty problems by path, then how many more there are of each kind. kinds: all of them, where `problems` is not."""
    left = Counter(kinds if kinds is not None else (problem.kind for problem in problems))
    for problem in problems[:_NAMED]:
        yield f"! {problem}"
        left[problem.kind] -= 1
    more = {kind: count for kind, count in left.items() if count > 0}
    if more:
        yield f"! and {sum(more.values()):,} more: " + ", ".join(f"{count:,} {kind}" for kind, count in more.items())


def counts(report: Any) -> str:
    """The paths by what became of them."""
    found = [(getattr(report, name, 0), word) for name, word in _WORDS.items()]
    return ", ".join(f"{count:,} {word}" for count, word in found if count) or "nothing"


def _sync(report: Any) -> Iterator[str]:
    whole = f"{report.entries:,} entries, {size_text(report.bytes)}"
    if report.dry_run:
        yield f"would be: {counts(report)}; {report.files_read:,} files, {size_text(report.bytes_read)} would be read"
    elif report.snapshot:
        yield f"snapshot {report.snapshot}: {whole}: {counts(report)}"
    elif report.waits:
        yield f"imported as record {report.waits}, not published yet: {whole}: {counts(report)}"
    else:
        yield f"nothing changed since snapshot {report.parent}: {whole}"
    if not report.dry_run and (report.bytes_uploaded or report.bytes_read):
        yield (
            f"read {size_text(report.bytes_read)}, new {size_text(report.bytes_new)}, stored {size_text(report.bytes_stored)}, "
            f"uploaded {size_text(report.bytes_uploaded)}, reused {size_text(report.bytes_reused)}, {report.seconds:.1f} s"
        )
    yield from _history(report)
    if report.forgotten:
        yield f"no history is kept: {report.forgotten:,} older snapshots are forgotten"
    if report.kept:
        yield f"kept although they left the site: {report.kept:,}"
    if report.files_resumed:
        yield f"{report.files_resumed:,} files had been read by an earlier run that did not end"
    for rule, count in report.rules.items():
        yield f"left out by {rule}: {count:,}"
    if report.protected:
        yield f"kept as they were although the rules leave them out: {report.protected:,}"
    if report.incomplete:
        yield "a folder could not be listed, so nothing was deleted"


def _history(report: Any) -> Iterator[str]:
    """What the history of a tree takes and what is left, and what a dry run says of the cost."""
    free = f"{size_text(report.bytes_free)} are free" if report.bytes_free is not None else ""
    if report.dry_run and report.requests_planned:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.requests_planned.items())
        yield f"requests that it would take, about: {kinds}"
    if report.bytes_history_total is None and not report.bytes_history and not report.bytes_displaced:
        return
    if report.dry_run:
        parts = [f"{size_text(report.bytes_displaced)} more before compression"]
    else:
        parts = [f"{size_text(report.bytes_history)} more"]
    if report.bytes_history_total is not None:
        parts.append(f"{size_text(report.bytes_history_total)} {'so far' if report.dry_run else 'in all'}")
    yield "history: " + "; ".join([", ".join(parts), *([free] if free else [])])


def _restore(report: Any) -> Iterator[str]:
    extra = f", {report.extra:,} not in the snapshot" if report.extra else ""
    if report.dry_run:
        yield f"would be: {counts(report)}{extra}"
        return
    yield f"snapshot {report.snapshot}: {report.entries:,} entries, {size_text(report.bytes)}: {counts(report)}{extra}"
    if report.files_written or report.bytes_read:
        yield (
            f"wrote {size_text(report.bytes_written)} in {report.files_written:,} files, "
            f"read {size_text(report.bytes_read)} from the target, {report.seconds:.1f} s"
        )


def _rollback(report: Any) -> Iterator[str]:
    if report.dry_run:
        yield f"would be: {counts(report)}; {report.files_staged:,} files, {size_text(report.bytes_staged)} would be written"
    elif report.snapshot:
        whole = f"{report.entries:,} entries, {size_text(report.bytes)}"
        yield f"snapshot {report.snapshot}, which is snapshot {report.rollback_of} again: {whole}: {counts(report)}"
        yield f"staged {size_text(report.bytes_staged)} in {report.files_staged:,} files, {report.seconds:.1f} s"
    else:
        yield f"nothing differs between snapshots {report.parent} and {report.rollback_of}"
    if report.bytes_history:
        yield f"history: {size_text(report.bytes_history)} for what was overwritten or deleted"
    if report.protected:
        yield f"kept as they were since the rules leave them out: {report.protected:,} (--delete-excluded takes them along)"


def _publish(report: Any) -> Iterator[str]:
    whole = f"{report.entries:,} entries, {size_text(report.bytes)}"
    if not report.of:
        yield (
            f"nothing waits to be published; snapshot {report.parent}: {whole}"
            if report.parent
            else "nothing waits to be published"
        )
        return
    yield f"snapshot {report.snapshot}, of import {report.of}: {whole}: {counts(report)}"
    if report.files_staged:
        yield f"staged {size_text(report.bytes_staged)} in {report.files_staged:,} files, {report.seconds:.1f} s"
    if report.bytes_history:
        yield f"history: {size_text(report.bytes_history)} for what was overwritten or deleted"


def _verify(report: Any) -> Iterator[str]:
    how = "looked at" if report.quick else "read"
    packs = report.packs_checked + report.packs_resumed
    part = f" (part {report.part})" if report.part else ""
    yield (
        f"{report.snapshots:,} snapshots with {report.objects:,} objects, {how} {packs:,} of {report.packs:,} packs{part}, "
        f"{size_text(report.bytes_read)}, {report.seconds:.1f} s"
    )
    if report.packs_resumed:
        yield f"{report.packs_resumed:,} of these packs had been found right by a run that was stopped"
    if report.against:
        described = f", {report.described:,} of them with other times, mode or owner" if report.described else ""
        yield f"compared with {report.against}: {report.compared:,} files{described}"
    if report.packs_unlisted:
        yield f"{report.packs_unlisted:,} packs are in no index: left by a run that did not end, and harmless"
    if not report.finished:
        yield "stopped by --max-duration: run it again to go on"
    if report.problem_count:
        files = f", {report.files_damaged:,} files are damaged" if report.files_damaged else ""
        yield f"found {report.problem_count:,} problems{files}"
    elif report.finished:
        yield "all is right"


def _site(report: Any) -> str:
    failures = f", {report.failures:,} of them failures" if report.failures else ""
    return f"{report.answers:,} answers{failures}, {size_text(report.bytes)}, {report.seconds:.1f} s"


def _init(report: Any) -> str:
    return f"{'made' if report.made else 'already there'}: layout {report.layout}, site {report.site}, {report.uuid}"
