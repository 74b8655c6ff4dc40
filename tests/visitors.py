"""`python tests/visitors.py PORT PAGES THREADS SECONDS`: people who look at a site of `releases.py` while it is published.

Each of them asks for a page by chance, takes a moment as a browser does (up to SECONDS), asks for the assets that the page names,
and looks whether all of it is whole: a page carries its own checksum, the name of an asset is the checksum of its content.
Goes on until standard input ends; then writes, as JSON lines, what each view was: when it began and ended (seconds since 1970), of
which release the page was, and what was wrong (empty: nothing). Needs only the standard library: it shares nothing with mirror.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import sys
import threading
import time

PAGE = re.compile(rb"<!-- ([0-9a-f]{32}) -->\n(<html><!-- release (\d+) -->.*</html>\n)", re.S)
ASSET = re.compile(rb"(?:src|href)=\"(/assets/[\w-]+\.([0-9a-f]{32})\.\w+)\"")
ASSETS = 5


class Visitor(threading.Thread):
    """One of them, on one connection. views: (begun, ended, release, what was wrong)."""

    def __init__(self, port: int, pages: int, patience: float, seed: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.views: list[tuple[float, float, int, str]] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._pages, self._patience, self._chance, self._over = pages, patience, random.Random(seed), over

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.is_set():
            begun = time.time()
            release, wrong = self._view(f"/pages/{self._chance.randrange(self._pages):03}.html")
            self.views.append((begun, time.time(), release, wrong))

    def _view(self, url: str) -> tuple[int, str]:
        body, wrong = self._get(url)
        if wrong:
            return 0, wrong
        found = PAGE.fullmatch(body)
        if not found or hashlib.md5(found[2]).hexdigest().encode() != found[1]:
            return 0, f"{url} is torn: {len(body)} bytes"
        assets, release = ASSET.findall(body), int(found[3])
        if len(assets) != ASSETS:
            return release, f"{url} names {len(assets)} assets"
        time.sleep(self._chance.random() * self._patience)
        for asset, checksum in assets:
            body, wrong = self._get(asset.decode())
            if not wrong and hashlib.md5(body).hexdigest().encode() != checksum:
                wrong = f"{asset.decode()} is torn: {len(body)} bytes"
            if wrong:
                return release, f"{url} of release {release}: {wrong}"
        return release, ""

    def _get(self, url: str) -> tuple[bytes, str]:
        try:
            self._connection.request("GET", url)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return b"", f"{url}: {error!r}"
        return body, "" if answer.status == 200 else f"{url}: status {answer.status}"


def main() -> None:
    """See above."""
    port, pages, threads = map(int, sys.argv[1:4])
    over = threading.Event()
    visitors = [Visitor(port, pages, float(sys.argv[4]), seed, over) for seed in range(threads)]
    for visitor in visitors:
        visitor.start()
    sys.stdin.read()
    over.set()
    for visitor in visitors:
        visitor.join(60)
    for visitor in visitors:
        sys.stdout.writelines(json.dumps(view) + "\n" for view in visitor.views)


if __name__ == "__main__":
    main()
