"""What a run that died left open in a tree, as the log tells it. Looked at, never changed."""

from __future__ import annotations

import os

from mirror import log
from mirror.keys import STORE
from mirror.store import ReadableStore


def unfinished(store: ReadableStore, head: log.Record | None) -> log.Record | None:
    """The publishing that is open as of a head, or the snapshot whose deletions are due; None when the tree is as it should be."""
    record = head
    while record is not None:
        if record.kind == log.PUBLISHING:
            return record
        if record.kind == log.SNAPSHOT:
            return record if record.body.get("deletes") else None
        if record.kind == log.DONE:
            return None
        number = int(record.body["of"]) if record.kind == log.TAKEOVER else record.number - 1
        record = log.read_record(store, number) if number else None
    return None


def has_drafts(root: str) -> bool:
    """Whether drafts lie in the tree at `root`. What would open them takes 7 ms to import, which a night without changes need not
    spend."""
    staged = os.path.join(root, STORE, "staged")
    try:
        return any(os.listdir(os.path.join(staged, shard)) for shard in os.listdir(staged))
    except FileNotFoundError:
        return False
