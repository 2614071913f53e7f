#!/usr/bin/env bash
# What strangers, mistakes and a full disk can do to a node, from outside. Needs python3 alone; the full disk is a small file system,
# mounted as root or in a user's own namespace, and the script says so loudly where neither can be had.
# Usage: run.sh [SECONDS of random frames]; VITALSQL names the binary, SEED repeats a run's random frames.
set -euo pipefail
: "${VITALSQL:?set VITALSQL to the binary}"
binary=$(realpath "$VITALSQL")
cd "$(dirname "$0")"
exec timeout 600 python3 hostile.py "$binary" "${1:-120}"
