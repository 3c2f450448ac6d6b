#!/usr/bin/env bash
# The whole job on the embedded model: no key, no GPU, no model hub. Arguments go on to `selfinstruct demo` (--smoke, --out DIR).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"
exec "${VENV:-$root/.venv}/bin/selfinstruct" demo "$@"
