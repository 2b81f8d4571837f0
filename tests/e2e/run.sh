#!/bin/sh
# Runs real clients against the built program: the official openai client, the terminal board, and Prometheus with the
# queries of the dashboard.
#
#   tests/e2e/run.sh [PROGRAM [TEST...]]      default: builds target/debug/bessemer; all tests
#
# PYTHON names the interpreter (3.10 or later), E2E_VENV the folder of the virtual environment. `dashboards` needs prometheus
# and promtool, which are in Debian's package prometheus.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
venv=${E2E_VENV:-"$root/target/e2e-venv"}

if [ $# -gt 0 ]; then
    program=$1
    shift
else
    (cd "$root" && cargo build --package bessemer)
    program=${CARGO_TARGET_DIR:-"$root/target"}/debug/bessemer
fi
[ $# -gt 0 ] || set -- openai_client terminal_board dashboards

if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
for test in "$@"; do
    BESSEMER=$program "$venv/bin/python" "$here/$test.py"
done
