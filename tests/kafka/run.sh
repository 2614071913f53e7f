#!/usr/bin/env bash
# The engine on a real Apache Kafka, which Maven brings and this script starts: the contract of the bus, story by story; a node that is
# killed with -9 while it computes there, and three that share the work and are killed, stopped and put to sleep, on one broker and on three
# that are killed as well, each compared with an undisturbed one.
# Usage: run.sh [KILLS]   10 without a word, as many rounds with three, and half as many with three brokers.
# VITALSQL names the binary; without it only the contract is run, with CONTRACT=no all but the contract, with CONTRACT=tls the contract over
# SASL_SSL as well. Says so where Java or Maven are not there, and ends well.
set -euo pipefail
cd "$(dirname "$0")"
skip() { echo "kafka: skipped, $1: there is no Apache Kafka to run on"; exit 0; }
for need in java mvn; do
  command -v "$need" >/dev/null || skip "$need is missing"
done
export PYTHONDONTWRITEBYTECODE=1
python3 ../differential/apache.py || skip "Maven could not fetch Kafka's jars"
if [ "${CONTRACT:-}" != no ]; then
  python3 contract.py
  if [ "${CONTRACT:-}" = tls ]; then python3 contract.py --tls; fi
fi
if [ -n "${VITALSQL:-}" ]; then
  KILL_CLUSTER=1 python3 ../kill/kill.py "$(realpath "$VITALSQL")" "${1:-10}"
  python3 processes.py "$(realpath "$VITALSQL")" "${1:-10}"
  BROKERS=3 python3 processes.py "$(realpath "$VITALSQL")" "$((${1:-10} / 2 + 1))"
fi
