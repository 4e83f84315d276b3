#!/usr/bin/env bash
# The tests under each Python that is at hand: a classifier of pyproject.toml stands for a version
# that passed here. Usage: tests/matrix.sh [3.11 3.12 3.13]; each gets its own .venv-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
for version in "${@:-3.11 3.12 3.13}"; do
    for one in $version; do
        python="$(command -v "python$one" || true)"
        if [ -z "$python" ]; then
            missing+=("$one")
            continue
        fi
        echo "== Python $one"
        "$python" -m venv ".venv-$one"
        ".venv-$one/bin/pip" install --quiet --editable '.[dev]'
        ".venv-$one/bin/python" -m pytest -q
    done
done
if [ "${#missing[@]}" -gt 0 ]; then
    echo "not tested, no such Python here: ${missing[*]}"
    exit 1
fi
