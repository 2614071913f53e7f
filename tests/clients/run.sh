#!/usr/bin/env bash
# Other people's Kafka clients against VitalSQL: each produces and consumes ten thousand records with every codec it has, two members
# of a group share and take over, and each reads what the others wrote. Installs what it needs: the Python clients into a virtual
# environment, kafkajs, the Java client and kcat.
#
#   run.sh [BINARY]                  starts a node of its own; VITALSQL names the binary where no argument does
#   BOOTSTRAP=HOST:PORT run.sh       asks a broker that is there already, Apache Kafka for one
#   ONLY="kcat java" run.sh          some of them
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-clients}
work=$(mktemp -d)
node=""
mkdir -p "$cache"
ended() {
  if [ -n "$node" ]; then kill "$node" 2>/dev/null; wait "$node" 2>/dev/null; fi
  rm -rf "$work"
}
trap ended EXIT

need() { # COMMAND PACKAGE: Debian's package where the command is missing
  command -v "$1" >/dev/null && return
  [ -e "$work/updated" ] || apt-get update -qq && touch "$work/updated"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}
wanted() { [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]]; }

install_python() {
  need python3 python3
  if ! cmp -s "$here/requirements.txt" "$cache/venv/requirements.txt"; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || need pyvenv python3-venv
    python3 -m venv --clear "$cache/venv" && "$cache/venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" && cp "$here/requirements.txt" "$cache/venv/"
  fi
}
install_kafkajs() {
  need node nodejs
  need npm npm
  mkdir -p "$cache/kafkajs" && cp "$here/kafkajs/test.mjs" "$cache/kafkajs/"
  if ! cmp -s "$here/kafkajs/package.json" "$cache/kafkajs/installed.json"; then
    cp "$here/kafkajs/package.json" "$cache/kafkajs/" && (cd "$cache/kafkajs" && npm install --no-audit --no-fund --no-package-lock --silent) && cp "$here/kafkajs/package.json" "$cache/kafkajs/installed.json"
  fi
}
install_java() {
  need javac default-jdk-headless
  need mvn maven
  mkdir -p "$cache/java"
  if ! cmp -s "$here/java/pom.xml" "$cache/java/pom.xml"; then
    rm -rf "$cache/java/jars"
    cp "$here/java/pom.xml" "$cache/java/installing.xml" && mvn -q -B -Dstyle.color=never -f "$cache/java/installing.xml" dependency:copy-dependencies -DoutputDirectory="$cache/java/jars" -DincludeScope=runtime && mv "$cache/java/installing.xml" "$cache/java/pom.xml"
  fi
  javac -d "$work/classes" -cp "$cache/java/jars/*" "$here/java/JavaClient.java"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start_node() {
  local binary kafka=9092 http
  binary=$(realpath "${1:-${VITALSQL:?set VITALSQL to the binary, give it as argument, or set BOOTSTRAP}}") || exit 1
  # The port of the tutorials where it is free.
  if listens "$kafka"; then kafka=$(free_port); fi
  http=$(free_port)
  (cd "$work" && exec "$binary" serve --data-dir "$work/data" --kafka "127.0.0.1:$kafka" --http "127.0.0.1:$http") >"$work/node.log" 2>&1 </dev/null &
  node=$!
  bootstrap=127.0.0.1:$kafka
  for _ in $(seq 100); do
    if ! kill -0 "$node" 2>/dev/null; then echo "the node ended:"; cat "$work/node.log"; node=""; exit 1; fi
    if listens "$http"; then return; fi
    sleep 0.1
  done
  echo "the node is not there after 10 s:"; cat "$work/node.log"; exit 1
}

export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 KAFKAJS_NO_PARTITIONER_WARNING=1
python="$cache/venv/bin/python"
passed=0 failed=0
table=""
run() { # NAME INSTALL COMMAND..
  local name=$1 prepare=$2 begun=$SECONDS code p f
  shift 2
  wanted "$name" || return
  if ! $prepare >"$work/install.log" 2>&1; then
    echo "FAIL $name could not be installed"; tail -20 "$work/install.log"
    failed=$((failed + 1)); table+=$(printf '\n%-14s could not be installed' "$name")
    return
  fi
  begun=$SECONDS
  timeout --kill-after=10 240 "$@" "$bootstrap" 2>&1 | tee "$work/$name.out"
  code=${PIPESTATUS[0]}
  read -r p f < <(sed -n 's/^[a-z-]*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/$name.out" | tail -1)
  p=${p:-0} f=${f:-0}
  if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; echo "FAIL $name ended with $code"; fi
  passed=$((passed + p)) failed=$((failed + f))
  table+=$(printf '\n%-14s %3d passed %3d failed  %4d s' "$name" "$p" "$f" $((SECONDS - begun)))
}

need python3 python3
if [ -n "${BOOTSTRAP:-}" ]; then bootstrap=$BOOTSTRAP; else start_node "${1:-}"; fi
cd "$here"
run tutorial install_python "$python" tutorial.py
run kafka-python install_python "$python" kafka_python.py
run confluent install_python "$python" confluent.py
run aiokafka install_python "$python" aiokafka_client.py
run kcat "need kcat kcat" ./kcat.sh
run kafkajs install_kafkajs node "$cache/kafkajs/test.mjs"
run java install_java java -Xmx512m -cp "$work/classes:$cache/java/jars/*" JavaClient
run cross install_python "$python" cross.py

if [ -n "$node" ]; then
  kill -TERM "$node"
  wait "$node"
  code=$?
  node=""
  if [ "$code" -eq 0 ]; then passed=$((passed + 1)); echo "ok   the node ends well"; else failed=$((failed + 1)); echo "FAIL the node ended with $code"; tail -20 "$work/node.log"; fi
fi
echo
echo "client${table}"
echo
echo "clients: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
