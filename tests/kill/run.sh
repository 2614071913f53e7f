#!/usr/bin/env bash
# Kills a node with -9 at random moments while a recording is replayed into running queries, and compares what the
# output topics hold with an uninterrupted run. Usage: run.sh ROUNDS
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
exec python3 kill.py "$VITALSQL" "${1:-10}"
