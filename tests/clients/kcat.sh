#!/usr/bin/env bash
# kcat.sh BOOTSTRAP: kcat, as one types it: metadata, produce and consume with keys, headers and each codec, two members of a group.
set -uo pipefail
server=${1:?usage: kcat.sh HOST:PORT}
count=10000
run="$$-$(date +%s)"
work=$(mktemp -d)
passed=0 failed=0
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done; rm -rf "$work"' EXIT
check() { # NAME CODE [DETAIL]
  if [ "$2" -eq 0 ]; then passed=$((passed + 1)); echo "ok   $1 ${3:-}"; else failed=$((failed + 1)); echo "FAIL $1 ${3:-}"; fi
}
version=$(kcat -V 2>&1 | sed -n 's/.*Version \([0-9.]*\).*/\1/p' | head -1)
echo "# kcat $version"

timeout 20 kcat -b "$server" -L -J >"$work/meta.json" 2>"$work/err"
python3 -c 'import json,sys; m=json.load(open(sys.argv[1])); sys.exit(0 if m["brokers"] and all(b["id"] >= 0 for b in m["brokers"]) else 1)' "$work/meta.json"
check "kcat -L" $? "$(head -c 200 "$work/err")"

# key TAB value; every tenth value is empty, every hundredth key too.
awk -v n="$count" 'BEGIN { for (i = 0; i < n; i++) printf "%s\t%s\n", (i % 100 == 99 ? "" : "patient-" i % 97), (i % 10 == 9 ? "" : "{\"n\":" i ",\"text\":\"reading " i * i "\"}") }' >"$work/sent"

sorted_by_key() { sort -s -t "$(printf '\t')" -k1,1 "$1"; } # stable: the records of a key keep their order

for codec in none gzip snappy lz4 zstd; do
  topic="clients.kcat.$codec.$run"
  # Naming the topic makes it (with the node's default of partitions).
  timeout 30 kcat -b "$server" -t "$topic" -P -K "$(printf '\t')" -z "$codec" -X acks=all -X enable.idempotence=true -H unit=mmHg -H "unit=/min" -H "empty=" <"$work/sent" 2>"$work/err"
  code=$?
  timeout 30 kcat -b "$server" -t "$topic" -C -o beginning -e -q -X check.crcs=true -f '%k\t%s\n' >"$work/read" 2>>"$work/err" || code=1
  cmp -s <(sorted_by_key "$work/sent") <(sorted_by_key "$work/read") || code=1
  check "produce and consume $count records, $codec" "$code" "$(wc -l <"$work/read") read $(head -c 200 "$work/err")"
done

timeout 20 kcat -b "$server" -t "$topic" -C -o beginning -c 1 -q -f '%h\n' >"$work/headers" 2>/dev/null
grep -q '^unit=mmHg,unit=/min,empty=$' "$work/headers"
check "headers, one name twice" $? "$(cat "$work/headers")"

first=$(timeout 20 kcat -b "$server" -t "$topic" -p 0 -C -o 5 -c 1 -q -f '%o' 2>/dev/null)
last=$(timeout 20 kcat -b "$server" -t "$topic" -p 0 -C -o -1 -c 1 -e -q -f '%o' 2>/dev/null)
end=$(timeout 20 kcat -b "$server" -Q -t "$topic:0:-1" 2>/dev/null | sed -n 's/.*offset \([0-9]*\).*/\1/p')
[ "$first" = 5 ] && [ "$last" = $((end - 1)) ]
check "from an offset, from the end, the end asked" $? "offset $first, last $last, end $end"

# Two members of a group share what is there; one leaves, and the other reads what comes then.
topic="clients.kcat.group.$run"
lines() { cat "$work"/member.* 2>/dev/null | wc -l; }
timeout 30 kcat -b "$server" -t "$topic" -P -K "$(printf '\t')" <<<"$(printf 'warm\tup')" 2>/dev/null # makes the topic
for m in 1 2; do
  kcat -b "$server" -G "g-$run" -X auto.offset.reset=earliest -X session.timeout.ms=10000 -X heartbeat.interval.ms=500 -u -f '%p\t%o\t%s\n' "$topic" >"$work/member.$m" 2>"$work/log.$m" </dev/null &
  pids+=($!)
done
until_true() { for _ in $(seq 300); do eval "$1" && return 0; sleep 0.1; done; return 1; }
shared() { [ "$(grep -c 'rebalanced' "$work/log.1")" -gt 0 ] && [ "$(grep -c 'rebalanced' "$work/log.2")" -gt 0 ] && tail -1 "$work/log.1" | grep -q 'assigned: .*\[' && tail -1 "$work/log.2" | grep -q 'assigned: .*\['; }
until_true shared
check "two members have partitions" $?
timeout 30 kcat -b "$server" -t "$topic" -P -K "$(printf '\t')" -X enable.idempotence=true <"$work/sent" 2>/dev/null
until_true '[ "$(lines)" -ge $((count + 1)) ]'
[ -s "$work/member.1" ] && [ -s "$work/member.2" ] && [ "$(cat "$work"/member.* | cut -f1,2 | sort -u | wc -l)" -eq $((count + 1)) ]
check "they share $count records" $? "$(wc -l <"$work/member.1") and $(wc -l <"$work/member.2")"
kill "${pids[0]}" && wait "${pids[0]}" 2>/dev/null
before=$(wc -l <"$work/member.2")
head -1000 "$work/sent" | timeout 30 kcat -b "$server" -t "$topic" -P -K "$(printf '\t')" -X enable.idempotence=true 2>/dev/null
until_true '[ $(($(wc -l <"$work/member.2") - before)) -ge 1000 ]'
check "the one that is left takes over" $? "$(($(wc -l <"$work/member.2") - before)) of 1000"
kill "${pids[1]}" && wait "${pids[1]}" 2>/dev/null
pids=()
echo "kcat: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
