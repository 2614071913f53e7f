#!/usr/bin/env bash
# A ward's day in a minute and a half, on a node whose clock runs as fast: disorder, repetitions, silent partitions, devices whose clock is
# fast; a query is replaced and the node killed on the way. Every result is compared with one worked out in Python: see soak.py.
# Usage: run.sh [HOURS_OF_EVENT_TIME [SPEED]]   24 and 1000 without; SOAK_SEED=n repeats a run's readings; VITALSQL names the binary.
set -euo pipefail
: "${VITALSQL:?set VITALSQL to the binary}"
binary=$(realpath "$VITALSQL")
cd "$(dirname "$0")"
cache=${SOAK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-soak}
if ! cmp -s requirements.txt "$cache/requirements.txt"; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null
  python3 -m venv --clear "$cache" && "$cache/bin/pip" install -q --disable-pip-version-check -r requirements.txt && cp requirements.txt "$cache/"
fi
export PYTHONDONTWRITEBYTECODE=1
exec timeout 1800 "$cache/bin/python" soak.py "$binary" "${1:-24}" "${2:-1000}"
