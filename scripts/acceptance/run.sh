#!/usr/bin/env bash
# Every scenario of this folder against a running server, PASS or FAIL for each; 1 if any fails.
# PICOPAY_URL names the server (http://localhost:8000), PICOPAY_DATA_DIR its folder (.picopay).
set -uo pipefail
here=$(dirname "$0")
python=${PYTHON:-.venv/bin/python}
failed=0
for scenario in "$here"/*.py; do
    name=$(basename "$scenario" .py)
    [ "$name" = story ] && continue
    if told=$("$python" "$scenario" 2>&1); then
        echo "PASS  $name"
    else
        echo "FAIL  $name"
        printf '%s\n' "$told" | sed 's/^/      /'
        failed=1
    fi
done
exit $failed
