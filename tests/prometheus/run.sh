#!/usr/bin/env bash
# A real Prometheus scrapes the demo: metrics lint clean, rules hold, every panel has data, nobody's name gets out.
# Installs Debian's prometheus (with promtool) and prometheus-alertmanager (with amtool) where they are missing.
# Usage: run.sh [BINARY]; VITALSQL names the binary where no argument does.
set -euo pipefail
cd "$(dirname "$0")"
binary=${1:-${VITALSQL:?set VITALSQL to the binary, or give it as argument}}
binary=$(realpath "$binary")
missing=()
for need in prometheus:prometheus promtool:prometheus amtool:prometheus-alertmanager; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
exec timeout 300 python3 check.py "$binary"
