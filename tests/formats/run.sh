#!/usr/bin/env bash
# The formats of streams against the programs that others write them with: see outside.py. Installs what it needs into a virtual
# environment.
# Usage: run.sh [ROWS [SEED]]; VITALSQL names the binary.
set -euo pipefail
: "${VITALSQL:?set VITALSQL to the binary}"
binary=$(realpath "$VITALSQL")
cd "$(dirname "$0")"
cache=${FORMATS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-formats}
mkdir -p "$cache"
if ! cmp -s requirements.txt "$cache/requirements.txt"; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null
  python3 -m venv --clear "$cache/venv"
  "$cache/venv/bin/pip" install -q --disable-pip-version-check -r requirements.txt
  cp requirements.txt "$cache/requirements.txt"
fi
exec timeout 300 "$cache/venv/bin/python" outside.py "$binary" "$@"
