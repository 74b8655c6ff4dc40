"""docs/events.md and the code say the same, both ways: events and their fields, summaries, kinds of problems, notices, errors."""

from __future__ import annotations

import ast
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mirror import contents, create, errors, events, explain, manifest, progress, publish, restore, rollback, spelling, sync, verify
from mirror.cli import listing, words
from mirror.serve import receiver, site

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs/events.md").read_text("utf-8")
SOURCES = sorted((ROOT / "mirror").rglob("*.py"))

# How the document calls a Python type.
TYPES = {
    str: "text",
    bytes: "text",
    datetime: "text",
    int: "integer",
    float: "number",
    bool: "yes/no",
    list[events.Problem]: "list",
    list[str]: "list of text",
    tuple[str, ...]: "list of text",
    dict[str, int]: "object",
    tuple[tuple[bytes, bytes], ...]: "object",
    tuple[tuple[str, str], ...]: "object",
}
REPORTS = {
    "init": create.InitReport,
    "sync": sync.SyncReport,
    "restore": restore.RestoreReport,
    "rollback": rollback.RollbackReport,
    "publish": publish.PublishReport,
    "verify": verify.VerifyReport,
    "serve": site.SiteReport,
    "serve --keys": receiver.ReceiveReport,
}


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    parts = re.split(r"^#+ (.+)$", TEXT, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def table(heading: str) -> dict[str, list[str]]:
    """First cell → other cells of the table below a heading."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section(heading), flags=re.M)
    assert rows, heading
    assert len({name for name, _ in rows}) == len(rows), f"{heading}: a name twice"
    return {name: rest.split(" | ") for name, rest in rows}


def headings(level: str, below: str) -> list[str]:
    """The headings of a level within a section of level two."""
    part = re.split(r"^## (.+)$", TEXT, flags=re.M)
    (body,) = (body for name, body in zip(part[1::2], part[2::2], strict=True) if name == below)
    return re.findall(rf"^{level} (.+)$", body, flags=re.M)


def said(annotation: Any) -> str:
    """A type as the document says it."""
    if isinstance(annotation, types.UnionType):
        (one,) = (each for each in typing.get_args(annotation) if each is not type(None))
        return f"{TYPES[one]} or null"
    return TYPES[annotation]


def described(heading: str) -> dict[str, str]:
    return {name: cells[0] for name, cells in table(heading).items()}


def members(kind: type) -> dict[str, str]:
    return {name: said(each) for name, each in typing.get_type_hints(kind).items() if name in progress.field_names(kind)}


def test_every_event_is_described() -> None:
    assert headings("###", "Events") == [f"`{name}`" for name in events.NAMES.values()]
    assert set(events.NAMES) == set(typing.get_args(events.Event))


@pytest.mark.parametrize("kind", events.NAMES, ids=lambda kind: events.NAMES[kind])
def test_every_field_of_an_event_is_described(kind: type) -> None:
    shown = events.Problem if kind is events.ProblemFound else kind
    assert list(described(f"`{events.NAMES[kind]}`").items()) == list(members(shown).items())


def test_the_envelope_is_described() -> None:
    seen: list[bytes] = []

    class Stream:
        def write(self, data: bytes) -> None:
            seen.append(data)

        def flush(self) -> None:
            pass

    events.Job("sync", [progress.JsonLines(Stream())]).say(events.SnapshotCommitted(7))
    names = set(re.findall(r'"(\w+)":', seen[0].decode()))
    assert names - {"snapshot"} == set(table("Envelope"))
    assert str(events.VERSION) in table("Envelope")["version"][1]


def test_data_is_described() -> None:
    assert headings("###", "Data") == ["`listed`", "`entry`", "`sum`", "`filter`", "`key`"]
    assert described("`listed`") == members(contents.SnapshotLine)
    in_entries: dict[str, str] = {"kind": "text"}
    for kind in typing.get_args(manifest.Entry):
        in_entries |= {name: said(each) for name, each in typing.get_type_hints(kind).items() if name not in listing._UNTOLD}
    assert described("`entry`") == in_entries
    assert described("`sum`") == {"hash": "text", "sum": "text", "path": "text"}
    assert list(described("`filter`").items()) == list(members(explain.Verdict).items())


@pytest.mark.parametrize("verb", REPORTS)
def test_reports_are_described(verb: str) -> None:
    report = REPORTS[verb]
    hints = typing.get_type_hints(report)
    assert list(described(f"Summary of `{verb}`").items()) == [(each.name, said(hints[each.name])) for each in fields(report)]


def test_every_verb_with_json_has_its_summary_described() -> None:
    speaking = {name for name, verb in words.VERBS.items() if words.JSON in verb.flags}
    assert set(re.findall(r"^### Summary of `([\w-]+)`$", TEXT, flags=re.M)) == speaking == set(words.VERBS) - {"cat"}
    assert "all but `cat`" in TEXT or "every command but `cat`" in TEXT


def test_hashes_are_named() -> None:
    for heading in ("`sum`", "Summary of `sums`"):
        assert re.findall(r"`(\w+)`", table(heading)["hash"][1]) == list(spelling.HASHES) == list(contents.ALGORITHMS)


# Kinds


def calls() -> Iterator[tuple[str, ast.Call]]:
    """(name of the function, call) of every call in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node


def constant(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_problem_kinds_are_described() -> None:
    assert {kind: int(cells[0]) for kind, cells in table("Problems of paths").items()} == events.PROBLEM_KINDS


def test_problems_have_known_kinds() -> None:
    used = {constant(call.args[1]) for name, call in calls() if name == "Problem" and len(call.args) > 1} - {""}
    assert used
    assert used <= set(events.PROBLEM_KINDS)


def test_notice_kinds_are_described() -> None:
    used = {constant(call.args[0]) for name, call in calls() if name in ("Notice", "say", "_say", "notice") and len(call.args) == 2}
    assert used - {""} == set(table("Notices"))


def classes() -> dict[str, type[errors.MirrorError]]:
    return {name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.MirrorError)}


def test_error_kinds_are_described() -> None:
    known = {each.kind: each.exit_code for each in classes().values()}
    for name, call in calls():
        for keyword in call.keywords:
            kind = constant(keyword.value) if keyword.arg == "kind" else ""
            if name in classes() and kind:
                known[kind] = classes()[name].exit_code
            assert name in classes() or not kind or kind in events.PROBLEM_KINDS, f"kind={kind!r} of {name}"
    described = {kind: int(cells[0]) for kind, cells in table("Errors").items()}
    assert described == known
    assert list(described.values()) == sorted(described.values())
