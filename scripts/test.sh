#!/usr/bin/env bash
# Runs all tests. Arguments go on to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
venv=$(mkdir -p "$venv" && cd "$venv" && pwd)
VENV=$venv bash "$root/scripts/setup.sh"
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
