#!/usr/bin/env bash
# What strangers, mistakes and a full disk can do to a node, from outside. Needs python3; the full disk needs to mount a small file
# system and says so where it cannot. Usage: run.sh [SECONDS of random frames]; VITALSQL names the binary.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
exec timeout 600 python3 hostile.py "$(realpath "$VITALSQL")" "${1:-120}"
