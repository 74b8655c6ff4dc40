#!/usr/bin/env bash
# Mirror a sample site, change it, sync again, see what moved, restore the first night, and prove that it is identical.
#
# Needs Python 3.11 or newer, a checkout of this project, and 200 MB of room; the network for the first run alone. Writes into
# .venv-quickstart in the checkout and into a temporary folder, which it removes at the end. Nothing else is touched.
#
#   MIRROR_KEEP=1         keep the temporary folder and say where it is
#   MIRROR_DEMO_DIR=DIR   make the temporary folder in DIR instead of /tmp
#   MIRROR_DEMO_VENV=DIR  use this virtual environment, which has the project installed, and install nothing
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
. "$root/.ci/venv.sh"

venv=${MIRROR_DEMO_VENV:-$root/.venv-quickstart}
if [ -n "${MIRROR_DEMO_VENV:-}" ]; then
    [ -x "$venv/bin/mirror" ] || die "MIRROR_DEMO_VENV=$venv has no mirror in it"
    venv=$(cd "$venv" && pwd -P)
else
    printf 'Preparing %s (a minute the first time) ...\n' "$venv"
    export PIP_NO_CACHE_DIR=1
    make_venv "$venv" ''
fi
export PATH="$venv/bin:$PATH"

work=$(mktemp -d "${MIRROR_DEMO_DIR:-${TMPDIR:-/tmp}}/mirror-quickstart.XXXXXX")
work=$(cd "$work" && pwd -P)
finish() {
    if [ "${MIRROR_KEEP:-}" = 1 ]; then
        printf '\nKept: %s\n' "$work"
    else
        chmod -R u+rwX "$work" && rm -rf "$work"
    fi
}
trap finish EXIT

# What the tool keeps between runs, and where its options could come from, stays inside the demo.
for name in $(env | sed -n 's/^\(MIRROR_[A-Z_]*\)=.*/\1/p'); do
    case $name in MIRROR_KEEP | MIRROR_DEMO_*) ;; *) unset "$name" ;; esac
done
export MIRROR_CACHE_DIR="$work/cache"

explain() { printf '\n# %s\n' "$1"; }
show() { # prints a command as one would type it, and runs it
    printf '$ %s\n' "$1"
    eval "$1"
}

cd "$work"
ln -s "$root/examples" examples

explain 'A site to mirror: some 340 pages, drawings, a file of 24 MiB, and the odd names that people leave on servers.'
show 'python examples/make_site.py site'

explain 'The first night: a folder that a web server can serve, the files under their own names, their history in .mirror/.'
show 'mirror sync site www'
show 'ls -A www'

explain 'For the proof at the end: a copy of the site as it is now, made by cp and not by mirror.'
show 'cp -a site first-night'

explain 'The day after: change a page and one byte of the big file, add a page, move a folder, delete a file, touch another.'
show "echo '<!-- repainted -->' >> site/about.html"
show 'printf X | dd of=site/downloads/soundings.bin bs=1 seek=12000000 conv=notrunc status=none'
show "echo '<h1>Storm warning</h1>' > site/news/storm.html"
show 'mv site/news/2024 site/news/archive'
show 'rm site/odd/empty'
show 'touch site/robots.txt'

explain 'The second night. Only what changed is read; what it takes the place of is kept, one chunk of the big file.'
show 'mirror sync site www'

explain 'What happened between the two snapshots: + new, * changed, - deleted, > moved.'
show 'mirror diff www 2 4'

explain 'Both nights are there.'
show 'mirror snapshots www'

explain 'The disaster: bring the first night back, into a new folder.'
show 'mirror restore www restored --at 2'

explain 'The proof, with a program that knows nothing of mirror: content, modes, owners, times, links, odd names.'
show 'python examples/compare.py first-night restored'

explain 'And the mirror itself: read everything in it and check every byte.'
show 'mirror verify www'

explain 'Where nobody serves the copy (disaster recovery, a bucket, years of nights): few, compressed, deduplicated files.'
show 'mirror sync site backup --layout packed'

printf '\nThat was all: two nights kept, the first one back and identical.\n'
