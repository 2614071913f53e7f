#!/usr/bin/env bash
# The test suite of librdkafka itself, in full mode, every entry that talks to a broker. Its source comes with crate
# rdkafka-sys; several entries run side by side, each in a process of its own, since most of them wait.
#
#   JOBS=4                             entries side by side
#   TEST_CONSUMER_GROUP_PROTOCOL=consumer     its groups speak KIP-848
#   ONLY="0081 0103"                   entries by number
#
# Two adaptations to a broker that is one node, the same that a single Apache Kafka needs: topics asked for with three
# replicas are made with one, and 0077 and 0129 name the config that may make a segment smaller than 1 MiB. A third one is for a
# broker that answers at once: librdkafka calls it a transport error when it refuses a certificate that comes while it still
# makes the connection, and 0097 takes that too. A fourth one is for a broker that matches a pattern within the heartbeat that brings
# it, where Apache Kafka needs a second one: 0045 awaits all its topics at once, as it does of the classic protocol.
# The entries about TLS and SASL run at listeners of their own.
source "$(dirname "$0")/common.sh"
[ "${TEST_CONSUMER_GROUP_PROTOCOL:-classic}" = classic ] || suite=$suite-$TEST_CONSUMER_GROUP_PROTOCOL
version=4.10.0+2.12.1
jobs=${JOBS:-4}
need cargo cargo
need gcc gcc
need g++ g++
need make make
need python3 python3

tests=$cache/librdkafka-$version/tests
build() {
  local source
  source=$(crate_source rdkafka-sys $version) || return 1
  rm -rf "$cache/librdkafka-$version" && cp -r "$source/librdkafka" "$cache/librdkafka-$version" && cd "$cache/librdkafka-$version" || return 1
  sed -i 's/\(rd_kafka_NewTopic_new(topicname, partition_cnt, \)replication_factor,/\1replication_factor > 1 ? 1 : replication_factor,/' tests/test.c
  sed -i 's/--config segment.bytes=10000 /--config internal.segment.bytes=10000 /' tests/0077-compaction.c
  sed -i 's/"segment.bytes", "20000"/"internal.segment.bytes", "20000"/' tests/0129-fetch_aborted_msgs.c
  sed -i 's/else if (event.err() != RdKafka::ERR__SSL &&/& event.err() != RdKafka::ERR__TRANSPORT \&\&/' tests/0097-ssl_verify.cpp
  sed -i '/Wait for assignment \*\//{n;s/if (test_consumer_group_protocol_classic())/if (1)/}' tests/0045-subscribe_update.c
  # Without them entries leave themselves out.
  [ -e /usr/include/openssl/ssl.h ] && [ -e /usr/include/rapidjson ] && [ -e /usr/include/zlib.h ] || {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libssl-dev zlib1g-dev rapidjson-dev
  }
  ./configure && make -j"$(nproc)" libs && make -j"$(nproc)" -C tests build && declare -f build >tests/.complete
}
# Built anew where the way to build it has changed.
if [ "$(cat "$tests/.complete" 2>/dev/null)" != "$(declare -f build)" ]; then
  (build) >"$work/build.log" 2>&1 </dev/null || { tail -20 "$work/build.log"; skip_suite "librdkafka could not be built"; }
fi

if [ -n "${BOOTSTRAP:-}" ]; then
  noauto=${NOAUTO_BOOTSTRAP:-} sasl=${SASL_BOOTSTRAP:-} tls=${SSL_BOOTSTRAP:-}
else
  certificates
  printf 'secret' >"$work/alice"
  sasl=127.0.0.1:$(free_port) tls=127.0.0.1:$(free_port)
  common=(kafka.default_partitions=4 kafka.group_initial_rebalance_delay=3s kafka.group_min_session_timeout=1s kafka.allow_everyone_if_no_acl_found=true)
  start_node node "${common[@]}" kafka.users.alice.password_file="$work/alice" \
    kafka.listeners.sasl.address="$sasl" kafka.listeners.sasl.protocol=SASL_PLAINTEXT kafka.listeners.sasl.mechanisms=SCRAM-SHA-256 \
    kafka.listeners.sasl.max_reauth=10s \
    kafka.listeners.tls.address="$tls" kafka.listeners.tls.protocol=SSL kafka.listeners.tls.client_certificates=required \
    kafka.listeners.tls.certificate="$work/tls/localhost.pem" kafka.listeners.tls.key="$work/tls/localhost.key" \
    kafka.listeners.tls.client_authorities="$work/tls/ca-cert"
  BOOTSTRAP=$address
  if [ -n "${BROKER:-}" ]; then sasl='' tls=''; fi
  start_node noauto "${common[@]}" kafka.auto_create_topics=false
  noauto=$address
fi
export SSL_pkcs=$work/tls/client.p12 SSL_pub_der=$work/tls/client.der SSL_pub_pem=$work/tls/client.pem SSL_priv_der=$work/tls/client-key.der
export SSL_priv_pem=$work/tls/client.key SSL_ca_der=$work/tls/ca.der SSL_ca_pem=$work/tls/ca-cert SSL_all_cas_pem=$work/tls/ca-cert SSL_password=secret

# Some entries call Kafka's own tools by their names as scripts.
export LD_LIBRARY_PATH=$cache/librdkafka-$version/src:$cache/librdkafka-$version/src-cpp
export TEST_KAFKA_VERSION=4.0.0
if "$here/kafka_tool" install 2>"$work/tools.log"; then
  export KAFKA_PATH=$work/kafka
  jars=$("$here/kafka_tool" jars)
  command -v javac >/dev/null && javac -d "$tests/java" -cp "$jars/*" "$tests"/java/*.java 2>"$work/javac.log"
  mkdir -p "$KAFKA_PATH/bin"
  for tool in topics acls configs run-class; do
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$here/kafka_tool" "$tool" >"$KAFKA_PATH/bin/kafka-$tool.sh"
    chmod +x "$KAFKA_PATH/bin/kafka-$tool.sh"
  done
fi

entries() { # the numbers that have an entry for a broker in this scenario, those that take minutes first
  python3 - "$tests/test.c" "$1" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
text = text[text.index("struct test tests[] = {"):text.index("{NULL}};")]
long = "0089 0038 0103 0113 0081 0056 0069 0077 0045 0018 0033 0098 0011 0044 0137 0102 0026 0030 0118".split()
numbers = set()
for call in re.findall(r"_TEST\((.*?)\),\n(?=\s*(?:_TEST|#|/\*|$))", text + "\n", re.S):
    scenario = re.search(r'scenario\s*=\s*"(.*?)"', call)
    if "TEST_F_LOCAL" not in call and "TEST_F_MANUAL" not in call:
        if sys.argv[2] in (scenario.group(1) if scenario else "default").split(","):
            numbers.add(call.strip()[:4])
print("\n".join(sorted(numbers, key=lambda n: (long.index(n) if n in long else 99, n))))
PY
}
entry() { # NUMBER SCENARIO: runs it and leaves what became of it
  local dir=$work/entry-$1-$2 begun=$SECONDS scenario=$2 broker=$BOOTSTRAP code
  # Entries look for some files beside the folder they run in.
  rm -rf "$dir" && mkdir -p "$dir/tests" && ln -s "$tests/../src" "$dir" && cd "$dir/tests" || return
  ln -s "$tests/fixtures" "$tests/java" .
  case $2 in
    noautocreate) broker=$noauto ;;
    sasl)
      broker=$sasl scenario=default
      printf 'security.protocol=sasl_plaintext\nsasl.mechanism=SCRAM-SHA-256\nsasl.username=alice\nsasl.password=secret\n' >test.conf ;;
    tls)
      broker=$tls scenario=default
      printf 'security.protocol=ssl\nssl.ca.location=%s\nssl.certificate.location=%s\nssl.key.location=%s\nssl.key.password=secret\n' "$SSL_ca_pem" "$SSL_pub_pem" "$SSL_priv_pem" >test.conf ;;
  esac
  printf 'bootstrap.servers=%s\ntest.timeout.multiplier=%s\n' "$broker" "${MULTIPLIER:-2}" >>test.conf
  BROKERS=$broker TESTS=$1 TEST_REPORT=report.json timeout --kill-after=10 1200 "$tests/test-runner" -p1 -L -s "$scenario" >log 2>&1 </dev/null
  code=$?
  python3 - "$1" "$2" $code $((SECONDS - begun)) >outcome <<'PY'
import json, re, sys
number, scenario, code, seconds = sys.argv[1:]
log = re.sub(r"\x1b\[[0-9;]*m", "", open("log", errors="replace").read())
why = [" ".join(two).strip() for two in re.findall(r"(?m)^### Test \"(?!<MAIN>)(.*?)\" failed.*\n(.*)$", log)]
try:
    tests = {n: t for n, t in json.load(open("report.json"))["tests"].items() if n.startswith(number)}
except (OSError, ValueError):
    tests = {number: {"state": "FAILED"}}
words = {"PASSED": "passed", "SKIPPED": "skipped"}
for name, test in tests.items():
    state = words.get(test["state"], "failed")
    skipped = re.search(r"\[%s +/ .*SKIPPING TEST: (.*)" % re.escape(name), log)
    if state == "skipped" and not (skipped and (test["known_issue"] or "negative test flags" not in skipped.group(1))):
        continue
    detail = "%s s" % seconds
    if state == "failed":
        detail = "code %s, %s s: %s" % (code, seconds, (why[0] if why else "".join(log.splitlines()[-1:]))[:300])
    if state == "skipped":
        detail = "an issue librdkafka knows of" if test["known_issue"] else skipped.group(1)
    if scenario in ("sasl", "tls"):
        name += "-" + scenario
    print(state, name, detail)
PY
  [ -z "${LOGS:-}" ] || { mkdir -p "$LOGS" && cp log "$LOGS/$1-$2.log"; }
  if [ "${3:-}" != again ] && grep -q '^failed' outcome; then
    echo "$1 $2 again" >>"$work/again"
  else
    cat outcome >>"$results"
  fi
}
export -f entry
export work results tests BOOTSTRAP noauto sasl tls
{
  # What leaves itself out, or fails, where nobody has to say who they are runs at a listener of its own.
  elsewhere="${sasl:+ 0135 0142 }${tls:+ 0097 }"
  for number in $(entries default); do if wanted "$number" && [[ "$elsewhere" != *" $number "* ]]; then echo "$number default"; fi; done
  if [ -n "$noauto" ]; then
    for number in $(entries noautocreate); do if wanted "$number"; then echo "$number noautocreate"; fi; done
  fi
  if [ -n "$sasl" ]; then for number in 0135 0142; do if wanted "$number"; then echo "$number sasl"; fi; done; fi
  if [ -n "$tls" ]; then for number in 0097; do if wanted "$number"; then echo "$number tls"; fi; done; fi
} | xargs -P "$jobs" -L 1 bash -c 'entry "$@"' entry
# Entries measure time; what failed beside others is asked once more, alone.
if [ -e "$work/again" ]; then
  echo "once more, alone: $(cut -d' ' -f1 "$work/again" | tr '\n' ' ')"
  while read -r number scenario again <&9; do entry "$number" "$scenario" "$again"; done 9<"$work/again"
fi
judge
