"""How a site is published into a tree: what may be chosen, and what a record says of that, so that who takes over does the same.

>>> PublishOptions(order=("*.css", "...")).members
{'order': ['*.css', '...']}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mirror.errors import UsageError
from mirror.spelling import MOST_GRACE, MOST_ORDER

REST: Final = "..."  # among the globs of an order: all that none of them matches


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """order: globs, what matches the first of them is published first (steps.Order). never_delete: what left the site stays, in the
    target as in its snapshots. grace: for how many further snapshots assets and other files stay in the live tree after they left
    the site. history: whether what is displaced is kept, for older snapshots."""

    order: tuple[str, ...] = ()
    never_delete: bool = False
    grace: int = 0
    history: bool = True

    @property
    def lingers(self) -> int:
        """For how many snapshots what left the site stays in the live tree beside them."""
        return MOST_GRACE if self.never_delete else self.grace

    @property
    def members(self) -> dict[str, Any]:
        """What the record of a publish says of them."""
        order = {"order": list(self.order)} if self.order else {}
        return order | ({} if self.history else {"history": False})

    @property
    def wishes(self) -> dict[str, Any]:
        """What the record of an import says of them: all, for who publishes it knows nothing else."""
        grace = {"grace": self.grace} if self.grace else {}
        return self.members | grace | ({"never_delete": True} if self.never_delete else {})

    @classmethod
    def wished(cls, wishes: dict[str, Any]) -> PublishOptions:
        """What `wishes` gave. UsageError for what cannot be."""
        options = cls(
            tuple(map(str, wishes.get("order", ()))),
            wishes.get("never_delete") is True,
            int(wishes.get("grace", 0)),
            wishes.get("history") is not False,
        )
        options.check(True, "the import")
        return options

    def check(self, tree: bool, where: str) -> None:
        """UsageError where the target is no tree and something is chosen that only a tree has, or for what cannot be."""
        if not 0 <= self.grace <= MOST_GRACE:
            raise UsageError("cannot use --delete-grace", where=str(self.grace), why=f"0 to {MOST_GRACE:,} snapshots are possible")
        if self.grace and self.never_delete:
            raise UsageError("cannot use --delete-grace", why="with --delete never nothing that left the site goes at all")
        self._check_order()
        chosen = {"--order": bool(self.order), "--delete-grace": bool(self.grace), "--no-history": not self.history}
        for flag, said in chosen.items():
            if said and not tree:
                why = "it is of layout packed, which has no live files"
                hint = "leave it out; to serve the files give `--layout tree` and a new place"
                raise UsageError(f"cannot use {flag}", where=where, why=why, hint=hint)

    def _check_order(self) -> None:
        """They stand in a record, which has 1 MiB at most."""
        if len(self.order) > MOST_ORDER or any(len(glob) > _LONGEST for glob in self.order):
            why = f"at most {MOST_ORDER} globs of {_LONGEST:,} characters are possible"
            raise UsageError("cannot use --order", where=f"{len(self.order)} globs", why=why)
        if len(set(self.order)) < len(self.order):
            twice = next(glob for at, glob in enumerate(self.order) if glob in self.order[:at])
            raise UsageError("cannot use --order", where=repr(twice), why="it is given twice")
        if self.order:
            from mirror.site.filters import EXCLUDE, compile_rule

            for glob in self.order:
                if glob != REST:
                    compile_rule(EXCLUDE, glob, "--order")


_LONGEST: Final = 1000
