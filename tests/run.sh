#!/usr/bin/env bash
# Run the test suite in an environment of its own, .venv-tests: ./tests/run.sh [pytest arguments]
#
#   ./tests/run.sh                        everything but what is marked corpus or long; a real S3 server included
#   ./tests/run.sh -k restore -x          some of it
#   ./tests/run.sh -m corpus              the real trees (downloads them once)
#   ./tests/run.sh -n 0 -s -k restore     in this process; else two at once, each with the servers that its tests need
#
# The first run installs (a minute, needs the network), later ones only when pyproject.toml has changed. With CI set, a skipped test is
# a failed test.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
. "$root/.ci/venv.sh"
make_venv "$root/.venv-tests" '[test]'

# The shell finds the tools of this environment first, as the tests do that call rclone, s5cmd or weed.
export PATH="$root/.venv-tests/bin:$PATH"
case "${CI:-}" in
    '' | 0 | false) exec python -m pytest -n 2 --dist loadfile "$@" ;;
    *) exec python -m pytest -p tests.no_skips -n 2 --dist loadfile "$@" ;;
esac
