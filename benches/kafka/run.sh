#!/usr/bin/env bash
# Starts a VitalSQL node and a real Apache Kafka on loopback and measures them side by side with Kafka's own client.
# Usage: VITALSQL=BINARY run.sh [--quick] [--fsync] [--rounds N] ..   (run.sh --help names all; ../README.md says what is measured)
# Data go to TMPDIR. Fetches Kafka's jars through Maven, once, where tests/suites and tests/differential keep them.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
VITALSQL=$(realpath "$VITALSQL")
for need in java javac mvn python3; do
  command -v "$need" >/dev/null || { echo "benches/kafka: $need is missing; Java 17 or later with its compiler, Maven and Python 3 are needed" >&2; exit 2; }
done
export VITALSQL PYTHONDONTWRITEBYTECODE=1
../../tests/suites/kafka_tool install
python3 ../../tests/differential/apache.py
exec python3 compare.py "$@"
