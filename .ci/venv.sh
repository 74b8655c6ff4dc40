# Sourced by examples/quickstart.sh and tests/run.sh. Needs bash, and $root: the top folder of the checkout.
#
#   make_venv DIR EXTRAS    a virtual environment in DIR with the project installed from $root, EXTRAS as in "[test]" or "".
#
# Installed in place, so the code in the checkout is the code that runs; installed again only when pyproject.toml, the checkout's
# place or the Python has changed. Never touches another environment: PYTHONPATH and the user's site-packages are left out.

unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# Prints a Python that is new enough; ${PYTHON} first, if that is set.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die 'no Python 3.11 or newer found; install one, or say where it is with PYTHON=/path/to/python3'
}

make_venv() {
    local dir=$1 extras=$2 python stamp
    python=$(find_python)
    stamp=$("$python" - "$root" "$extras" <<'PYTHON'
import hashlib, pathlib, sys
root, extras = sys.argv[1:]
state = [sys.version, sys.executable, root, extras, pathlib.Path(root, "pyproject.toml").read_text("utf-8")]
print(hashlib.sha256(repr(state).encode()).hexdigest())
PYTHON
    )
    if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && "$dir/bin/python" -c 'import mirror' 2>/dev/null; then
        return
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        die "$python has no ensurepip, so it cannot make a virtual environment; on Debian and Ubuntu: apt install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    "$python" -m venv --clear "$dir"
    "$dir/bin/python" -m pip install -qq --editable "$root$extras" || die 'pip could not install the project, see above; it needs the network the first time'
    printf '%s\n' "$stamp" >"$dir/stamp"
}
