#!/usr/bin/env bash
# Douane's one entrance: finds a Python, keeps .venv in step with the lock file, then does what was asked.
#   ./run.sh                 start the gateway          ./run.sh demo    see it work, no key needed
#   ./run.sh run -- CMD…     run CMD governed           ./run.sh test    run the tests
#   ./run.sh bench           measure                    ./run.sh ARGS…   the douane command
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DOUANE_HOME=${DOUANE_HOME:-$here}

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        if fits "$PYTHON"; then echo "$PYTHON"; return; fi
        echo "run.sh: \$PYTHON is $PYTHON, which is no Python 3.12 or newer" >&2; return 1
    fi
    for candidate in python3.13 python3.12 python3.14 python3 \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then command -v "$candidate"; return; fi
    done
    if command -v uv >/dev/null 2>&1 && candidate=$(uv python find '>=3.12' 2>/dev/null) && fits "$candidate"; then
        echo "$candidate"; return
    fi
    echo "run.sh: no Python 3.12 or newer found. Install one (for example: apt install python3.13, brew install python@3.13," >&2
    echo "        uv python install 3.13) or name it: PYTHON=/path/to/python ./run.sh" >&2
    return 1
}

# $1: which lock file (base, test). Installed again only when the lock has changed; hashes are checked by pip.
setup() {
    local lock="$here/requirements/$1.txt" stamp="$here/.venv/.douane-$1" python sum
    sum=$(cat "$lock" "$here/pyproject.toml" | cksum)
    if [ -x "$here/.venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then return; fi
    python=$(find_python) || exit 2
    if ! fits "$here/.venv/bin/python" 2>/dev/null; then
        echo "run.sh: making .venv with $("$python" --version)" >&2
        "$python" -m venv --clear "$here/.venv"
    fi
    echo "run.sh: installing requirements/$1.txt" >&2
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" || exit 3
    "$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$here" || exit 3
    printf '%s' "$sum" >"$stamp"
}

case "${1:-}" in
    test) setup test; shift; cd "$here"; exec "$here/.venv/bin/python" -m tests.run "$@" ;;
    bench) setup test; shift; cd "$here"; exec "$here/.venv/bin/python" -m bench.road "$@" ;;
    demo) setup test; exec "$here/.venv/bin/douane" "$@" ;;
    "") setup base; exec "$here/.venv/bin/douane" serve ;;
    *) setup base; exec "$here/.venv/bin/douane" "$@" ;;
esac
