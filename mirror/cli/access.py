"""`mirror key`: the keys of those who may use a `mirror serve`. A secret is printed once, by `new`, alone on stdout."""

from __future__ import annotations

from mirror import config
from mirror.access import line_of
from mirror.cli.session import Session
from mirror.errors import UsageError

_ACTIONS = ("new", "list", "revoke")


def key(session: Session, words: list[str]) -> int:
    """`mirror key new NAME`, `mirror key list`, `mirror key revoke NAME`."""
    action, names = words[0], words[1:]
    if action not in _ACTIONS:
        raise UsageError(f"there is no {action!r} of keys", hint=f"say {', '.join(_ACTIONS)}")
    if (action == "list") == bool(names):
        wanted = "takes no name" if names else "needs the NAME of a key"
        raise UsageError(f"`mirror key {action}` {wanted}", hint="try `mirror key --help`")
    rights = config.rights(session.asked)
    file = config.key_file(session.asked)
    count = 1
    if action == "new":
        if not rights:
            raise UsageError("cannot make the key", where=names[0], why="it would have no rights", hint="say --rights read,append")
        made = file.add(names[0], rights)
        values = {
            "name": made.name,
            "rights": list(rights),
            "fingerprint": made.fingerprint,
            "created": file.keys()[made.name].created,
        }
        session.note(
            f"made {made.name} ({', '.join(rights)}), fingerprint {made.fingerprint}; keep this line in a file of the client:"
        )
        session.data("key", values | {"line": line_of(made)}, line_of(made))
    elif action == "revoke":
        file.revoke(names[0])
        session.note(f"revoked {names[0]}; a server that runs heeds it at once")
    else:
        known = file.keys()
        count = len(known)
        for each in known.values():
            values = {"name": each.name, "rights": list(each.rights), "fingerprint": each.key.fingerprint, "created": each.created}
            text = f"{each.name}  {','.join(each.rights)}  {each.key.fingerprint}  {each.created}"
            session.data("key", values | {"line": ""}, text)
    return session.finish_data({"action": action, "keys": count})
