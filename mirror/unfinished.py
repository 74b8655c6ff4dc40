"""What is not as it should be in a tree before a run begins: what one that died left open, and that all is gone. Looked at, never
changed."""

from __future__ import annotations

import os

from mirror import log
from mirror.elsewhere import is_bare
from mirror.keys import STORE
from mirror.store import ReadableStore
from mirror.target import Target


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


def is_emptied(target: Target, newest: log.Record) -> bool:
    """Whether nothing stands in a tree that has something as of its newest snapshot."""
    if not target.in_bucket:
        return newest.manifest.entries > 1 and is_bare(target.tree)
    from mirror.site.live_bucket import LiveBucket

    with LiveBucket(target.live) as live:
        return newest.standing.plain > 0 and live.is_empty()
