#!/bin/sh
# Runs the official openai client against the built program.
#
#   tests/e2e/run.sh [PROGRAM]      default: builds target/debug/bessemer
#
# PYTHON names the interpreter (3.10 or later), E2E_VENV the folder of the virtual environment.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
venv=${E2E_VENV:-"$root/target/e2e-venv"}

if [ $# -gt 0 ]; then
    program=$1
else
    (cd "$root" && cargo build --package bessemer)
    program=${CARGO_TARGET_DIR:-"$root/target"}/debug/bessemer
fi

if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
BESSEMER=$program exec "$venv/bin/python" "$here/openai_client.py"
