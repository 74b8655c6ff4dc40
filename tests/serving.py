"""A real `mirror serve`, in a process of its own, on a port that was free; and keys for it.

    with Served(folder) as server:
        server.init("www")
        spec = server.spec("www")

Run as a program it serves with a gate that takes any key and any bytes: for the conformance suite of stores, which is about the
protocol and not about what is in an object.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Self

from servers import comes_up, with_few_files

ROOT = Path(__file__).resolve().parents[1]


class Served:
    """One server. options: further words for `mirror serve`. anything: objects are not examined. files: how many it may have open,
    where that is to be few."""

    def __init__(self, folder: Path, *options: str, anything: bool = False, files: int = 0) -> None:
        self.folder, self.root, self.keys = folder, folder / "root", folder / "keys.json"
        self._options, self._anything, self._files = options, anything, files
        self._log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.root.mkdir(parents=True, exist_ok=True)
        self.key_file = self.new_key("nightly", "read,append")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            assert self.stop() == 130, self.log

    def start(self) -> None:
        """Start it, and wait until it says where it listens."""
        few = with_few_files(self._files)
        program = [str(Path(__file__))] if self._anything else ["-W", "error", "-m", "mirror", "serve"]
        words = [str(self.root), "--keys", str(self.keys), *([] if self._anything else ["--listen", "127.0.0.1:0", *self._options])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MIRROR_CACHE_DIR": str(self.folder / "cache")}
        began = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*few, sys.executable, *program, *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        found: list[str] = []

        def is_up() -> bool:
            found[:] = re.findall(r"listening on (https?://[\w.:\[\]]+)", self.log[began:])
            return bool(found)

        assert comes_up(self.process, is_up), f"mirror serve did not come up:\n{self.log}"
        self.url = found[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; its exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(30)

    def new_key(self, name: str, rights: str) -> Path:
        """A key, in a file of its own."""
        from mirror.access import KeyFile, line_of

        path = self.folder / f"{name}.key"
        path.write_text(line_of(KeyFile(str(self.keys)).add(name, tuple(rights.split(",")))))
        path.chmod(0o600)
        return path

    def init(self, name: str, layout: str = "packed") -> Path:
        """A target, made where the server is."""
        from mirror.create import init
        from mirror.making import Making
        from mirror.store import StoreSpec
        from mirror.target import TargetSpec

        init(TargetSpec(StoreSpec(str(self.root / name))), Making(layout=layout, site="www"))
        return self.root / name

    def spec(self, name: str, key_file: Path | None = None) -> Any:
        """What a client opens."""
        from mirror.store import StoreSpec

        return StoreSpec(f"{self.url}/{name}", key_file=str(key_file or self.key_file))


class Anything:
    """A gate that everything passes."""

    def knows(self, key: str) -> bool:
        return True

    def most(self, key: str) -> int:
        return 1 << 30

    def examine(self, key: str, read: Any, size: int, hashed: bytes, rights: Container[str]) -> None:
        return None

    def may_go(self, keys: Sequence[str]) -> None:
        return None

    def close(self) -> None:
        return None


def main() -> None:
    """Serve without examining."""
    from mirror.events import Job
    from mirror.serve.receiver import ReceiveOptions, receive

    root, _, keys = sys.argv[1:]
    options = ReceiveOptions(keys, ("127.0.0.1", 0), min_free=0)
    job = Job("serve", [lambda stamped: sys.stderr.write(getattr(stamped.event, "text", "") + "\n")])
    sys.exit(receive(root, options, job, gates=lambda store, uuid, cache, tree: Anything()).exit_code)


if __name__ == "__main__":
    main()
