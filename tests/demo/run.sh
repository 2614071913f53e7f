#!/usr/bin/env bash
# The demo as a newcomer meets it: ready soon, an alert soon, a clean end, and a second start that goes on.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
exec python3 demo.py "$VITALSQL"
