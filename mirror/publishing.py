"""How a tree is published: what may be chosen.

>>> PublishOptions(grace=1).check(True, "/srv/www")
"""

from __future__ import annotations

from dataclasses import dataclass

from mirror.errors import UsageError
from mirror.spelling import MOST_GRACE


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """grace: for how many further snapshots assets and other files stay in the live tree after they left the site."""

    grace: int = 0

    def check(self, tree: bool, where: str) -> None:
        """UsageError where the target is no tree and something is chosen that only a tree has, or for what cannot be."""
        if not 0 <= self.grace <= MOST_GRACE:
            raise UsageError("cannot use --delete-grace", where=str(self.grace), why=f"0 to {MOST_GRACE:,} snapshots are possible")
        chosen = ["--delete-grace"] if self.grace else []
        if chosen and not tree:
            raise UsageError(
                f"cannot use {chosen[0]}",
                where=where,
                why="it is of layout packed, which has no live files",
                hint="leave it out; to serve the files give `--layout tree` and a new place",
            )
