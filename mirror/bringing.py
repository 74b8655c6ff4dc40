"""A sync into a tree that another machine holds and publishes: what this end does about it, for `mirror sync`.

Chunks go there in packs as into a packed target, but not those that stand there in the live tree. Then a record of kind `import`
says what is to be published, and the server does that, or, where the key has not the right to have it done, it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mirror import log
from mirror.asking import Published, publish_there
from mirror.events import Job, Notice, Problem
from mirror.lookup import ChunkIndex
from mirror.manifest import File, Page
from mirror.publishing import PublishOptions
from mirror.snapshot import ManifestReader
from mirror.target import Target


@dataclass
class Bringing:
    """One run's dealings with one such tree."""

    target: Target
    reader: ManifestReader
    job: Job
    on_problem: Callable[[Problem], None]
    options: PublishOptions

    def base(self, head: log.Record | None) -> log.Record | None:
        """What a sync is compared with: the import that waits, else the newest snapshot."""
        return log.waiting(self.target.store, head) or log.newest_snapshot(self.target.store, head)

    def finish(self, head: log.Record) -> log.Record | None:
        """Have the server finish a publish that is open; the head afterwards."""
        publish_there(self.target, head, self.job, self.on_problem)
        return log.read_head(self.target.store, head.number)

    def stands(self, head: log.Record | None, index: ChunkIndex) -> None:
        """Tell the index which chunks need not be brought, since they stand in the live tree. O(entries), 1.5 µs a chunk. If the
        newest snapshot is incomplete, nothing is relied on: somebody may have been at the live files."""
        index.forget_standing()
        newest = log.newest_snapshot(self.target.store, head)
        if newest is None or not newest.body.get("complete", True):
            return
        for entry in self.reader.entries(newest.standing):
            if isinstance(entry, File | Page) and entry.size:
                index.stands(self.reader.chunk_ids(entry))

    def draft(self, base: log.Record | None, members: dict[str, Any]) -> dict[str, Any]:
        """The body of the record that says what is to be published."""
        live = base.live if base else log.Live()
        parents = [live[-1]] if live else []
        changed = {"parents": parents, "publish": self.options.wishes}
        return log.draft(log.IMPORT, self.target.uuid, base, live, **(members | changed))

    def publish(self, head: log.Record) -> Published | None:
        """Have published what waits as of a head. None when the key has not the right to: that is said."""
        done = publish_there(self.target, head, self.job, self.on_problem)
        if done is None:
            text = f"record {head.body['waits']} is imported and waits to be published"
            self.job.say(Notice("waits", f"{text}; whoever may says: mirror publish {self.target.url}"))
        return done
