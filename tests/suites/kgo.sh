#!/usr/bin/env bash
# The tests of franz-go's kgo, the Go client: groups and transactions that many members pull at. Its unit tests run along.
# Share groups are not served; those of its tests that are about them are left out.
#
#   KGO_TEST_RECORDS=10000             records of each of the tests that move many
source "$(dirname "$0")/common.sh"
version=v1.22.2
command -v go >/dev/null || skip_suite "there is no go"
if [ -z "${BOOTSTRAP:-}" ]; then
  printf 'secret' >"$work/alice"
  SASL_BOOTSTRAP=127.0.0.1:$(free_port)
  start_node node kafka.default_partitions=3 kafka.group_initial_rebalance_delay=0ms kafka.group_min_session_timeout=1s kafka.allow_everyone_if_no_acl_found=true \
    kafka.users.alice.password_file="$work/alice" kafka.listeners.sasl.address="$SASL_BOOTSTRAP" \
    kafka.listeners.sasl.protocol=SASL_PLAINTEXT kafka.listeners.sasl.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
  BOOTSTRAP=$address
  if [ -n "${BROKER:-}" ]; then SASL_BOOTSTRAP=''; fi
fi
mkdir -p "$cache/kgo" && cd "$cache/kgo" || exit 1
source=$(go mod download -json "github.com/twmb/franz-go@$version" 2>"$work/go.log" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
[ -n "$source" ] || { cat "$work/go.log"; skip_suite "the module could not be fetched"; }
# Its tests are a part of its own module: in a copy, since the cache cannot be written to.
[ -e "$cache/kgo/$version" ] || { cp -r "$source" "$cache/kgo/$version.new" && chmod -R u+w "$cache/kgo/$version.new" && mv "$cache/kgo/$version.new" "$cache/kgo/$version"; }
cd "$cache/kgo/$version/pkg/kgo" || exit 1
[ -x "$cache/kgo/$version/kgo.test" ] || go test -c -o "$cache/kgo/$version/kgo.test" . >"$work/go.log" 2>&1 || { tail -20 "$work/go.log"; skip_suite "the tests could not be built"; }

export KGO_SEEDS=$BOOTSTRAP KGO_TEST_RF=1 KGO_TEST_RECORDS=${KGO_TEST_RECORDS:-10000}
tests() { timeout --kill-after=10 1500 "$cache/kgo/$version/kgo.test" -test.v -test.timeout 24m "$@" >>"$work/tests.log" 2>&1 </dev/null; }
tests -test.skip '[Ss]hare'${SASL_BOOTSTRAP:+'|SCRAM'} ${ONLY:+-test.run "^(${ONLY// /|})\$"}
if [ -n "${SASL_BOOTSTRAP:-}" ] && [ -z "${ONLY:-}" ]; then
  KGO_TEST_SCRAM=${SCRAM_USER:-alice:secret} KGO_TEST_SCRAM_SEEDS=$SASL_BOOTSTRAP KGO_SEEDS=$SASL_BOOTSTRAP tests -test.run SCRAM
fi
[ -z "${LOGS:-}" ] || { mkdir -p "$LOGS" && cp "$work/tests.log" "$LOGS/kgo.log"; }
python3 - "$work/tests.log" >"$results" <<'PY'
import re, sys
words, began, ended = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}, [], set()
text = open(sys.argv[1], errors="replace").read()
for line in text.splitlines():
    start = re.match(r"=== RUN\s+(\w+)$", line)
    if start:
        began.append(start.group(1))
    end = re.match(r"--- (PASS|FAIL|SKIP): (\w+) \(([\d.]+)s\)", line)
    if end:
        ended.add(end.group(2))
        detail = ""
        if end.group(1) != "PASS":
            # What a test says comes before its end, under its name.
            said = re.findall(r"(?m)^=== (?:RUN|CONT|NAME) +%s\n((?:\s{4}.*\n)+)" % end.group(2), text)
            detail = " " + " ".join("".join(said).split())[:300]
        print(words[end.group(1)], end.group(2) + (detail or " %s s" % end.group(3)))
for name in began:
    if name not in ended:
        print("failed", name, "did not end")
PY
judge
