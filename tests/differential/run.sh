#!/usr/bin/env bash
# The same requests, valid and not, to a real Apache Kafka and to a node, in lock-step, and their decoded answers compared.
# Usage: run.sh [EXCHANGES] [SEED]   600 exchanges without a word, and a seed by chance, which is printed and repeats a run.
# VITALSQL names the binary. Fetches Kafka's jars through Maven, once; says so where Java or Maven are not there, and ends well.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
VITALSQL=$(realpath "$VITALSQL")
skip() { echo "differential: skipped, $1: there is no Apache Kafka to compare with"; exit 0; }
for need in java mvn; do
  command -v "$need" >/dev/null || skip "$need is missing"
done
export PYTHONDONTWRITEBYTECODE=1
python3 intended.py --check
cache=${CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-clients}/differential
if ! cmp -s requirements.txt "$cache/requirements.txt"; then
  python3 -m venv --clear "$cache" && "$cache/bin/pip" install -q --disable-pip-version-check -r requirements.txt && cp requirements.txt "$cache/"
fi
"$cache/bin/python" apache.py || skip "Maven could not fetch Kafka's jars"
[ -z "${2:-}" ] || export SEED=$2
export VITALSQL
exec "$cache/bin/python" differential.py "${1:-600}"
