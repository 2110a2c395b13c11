#!/usr/bin/env bash
# Writes the lock files from pyproject.toml: every version pinned, every file by hash, no download address. Needs uv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Extras stay in the names: pip before 23.3 takes `google-auth[requests]` for another package than the pinned `google-auth`, and
# refuses the lock as soon as a newer one is released.
lock() {
    uv pip compile pyproject.toml --universal --python-version 3.12 --generate-hashes --no-header --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-strip-extras "$@"
}
lock --group build --output-file requirements/base.txt
lock --group build --group test --constraint requirements/base.txt --output-file requirements/test.txt
