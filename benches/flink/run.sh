#!/usr/bin/env bash
# The same readings and the same SQL through VitalSQL and through Apache Flink: do the rows agree (`rows`), and what does it take (`speed`).
# Usage: VITALSQL=BINARY run.sh rows|speed [--quick] [--rounds N] ..   (run.sh speed --help names all; ../README.md says what is measured)
# Data go to TMPDIR. Fetches apache-flink and duckdb with pip, and Flink's connector to Kafka with Maven, once; FLINK_PYTHON names a Python that has the two already.
set -euo pipefail
cd "$(dirname "$0")"
: "${VITALSQL:?set VITALSQL to the binary}"
VITALSQL=$(realpath "$VITALSQL")
for need in java mvn python3; do
  command -v "$need" >/dev/null || { echo "benches/flink: $need is missing; Java 17, Maven and Python 3.9 to 3.12 are needed" >&2; exit 2; }
done
export VITALSQL PYTHONDONTWRITEBYTECODE=1
home=${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-flink
if [ -z "${FLINK_PYTHON:-}" ]; then
  if ! cmp -s requirements.txt "$home/requirements.txt"; then
    rm -rf "$home/venv" && mkdir -p "$home"
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install -q -r requirements.txt >&2
    cp requirements.txt "$home/requirements.txt"
  fi
  FLINK_PYTHON=$home/venv/bin/python
fi
export FLINK_PYTHON
case ${1:-} in
  rows) shift; exec python3 rows.py "$@" ;;
  speed)
    shift
    if ! cmp -s pom.xml "$home/pom.xml"; then
      rm -rf "$home/jars" && mkdir -p "$home"
      mvn -q -B -Dstyle.color=never -f pom.xml dependency:copy-dependencies -DoutputDirectory="$home/jars" -DincludeScope=runtime -DexcludeTransitive=true >&2 </dev/null
      cp pom.xml "$home/pom.xml"
    fi
    FLINK_KAFKA_JAR=$(echo "$home"/jars/flink-sql-connector-kafka-*.jar)
    export FLINK_KAFKA_JAR
    python3 ../../tests/differential/apache.py
    exec python3 compare.py "$@" ;;
  *) echo "usage: VITALSQL=BINARY benches/flink/run.sh rows|speed .." >&2; exit 2 ;;
esac
