"""Objects that are not as large as they should be: the one wording of it for every store."""

from __future__ import annotations

from mirror.errors import DamageError


def too_large(where: str, size: int, limit: int) -> DamageError:
    """The error for an object of `size` bytes that may have `limit`."""
    return DamageError("cannot read", where=where, why=f"it has {size} bytes, more than the {limit} it may have")


def too_short(where: str, end: int, size: int | None = None) -> DamageError:
    """The error for an object that ends before byte `end`, which was asked for. size: in bytes, if that is known."""
    if size is None:
        return DamageError("cannot read", where=where, why=f"it is shorter than the {end} bytes it should have")
    return DamageError("cannot read", where=where, why=f"it has {size} bytes, and bytes up to {end} were asked for")
