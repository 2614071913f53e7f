#!/usr/bin/env bash
# Real recordings through the Kafka port. RECORDINGS names the folder that holds them; without it, a folder beside the project is tried.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
exec python3 recordings.py "$VITALSQL" "${RECORDINGS:-../../../shared/data}"
