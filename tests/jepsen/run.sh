#!/usr/bin/env bash
# Mixed load on a node that is killed with -9 at random moments; what was acknowledged must be there, once and in order, and what was
# aborted must not be seen. Usage: run.sh [ROUNDS]   5 without; JEPSEN_SEED=n repeats the choices of a run. JEPSEN_COMMAND
# is the command of any other broker, with {port} and {dir} in it.
set -euo pipefail
cd "$(dirname "$0")"
if [ -z "${JEPSEN_COMMAND:-}" ]; then
  : "${VITALSQL:?set VITALSQL to the binary}"
  VITALSQL=$(realpath "$VITALSQL")
fi
cache=${CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-clients}/jepsen
if ! cmp -s requirements.txt "$cache/requirements.txt"; then
  python3 -m venv --clear "$cache" && "$cache/bin/pip" install -q --disable-pip-version-check -r requirements.txt && cp requirements.txt "$cache/"
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/bin/python" jepsen.py "${VITALSQL:-}" "${1:-5}"
