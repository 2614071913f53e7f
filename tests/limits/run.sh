#!/usr/bin/env bash
# What a node does at its limits, from outside: its start, empty and after a gigabyte, ten thousand connections, ten thousand partitions,
# frames of 100 MiB, a disk that may suddenly only be read, an fsync that fails, a clock that is set by hours. Needs python3 and cc; the
# read-only disk needs root and a loop device, and the script says so loudly where there is none.
# Usage: run.sh [PART...]; VITALSQL names the binary.
set -euo pipefail
: "${VITALSQL:?set VITALSQL to the binary}"
binary=$(realpath "$VITALSQL")
cd "$(dirname "$0")"
exec timeout 900 python3 limits.py "$binary" "$@"
