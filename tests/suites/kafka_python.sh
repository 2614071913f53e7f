#!/usr/bin/env bash
# kafka-python's own integration tests, from its source package. Its tests of SASL and TLS start a broker of their own; they are
# pointed to listeners of ours instead, or left out where BOOTSTRAP names a broker and SASL_BOOTSTRAP and SSL_BOOTSTRAP none.
source "$(dirname "$0")/common.sh"
version=3.0.12
need_python "pytest==8.4.2" "pytest-mock==3.15.1" "pytest-timeout==2.4.0" "py==1.11.0" "crc32c" "lz4" "zstandard" "python-snappy"
folder=$cache/kafka_python-$version
if [ ! -e "$folder/.complete" ]; then
  rm -rf "$folder"
  "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary kafka-python -d "$work" "kafka-python==$version" >"$work/pip.log" 2>&1 &&
    tar -xzf "$work/kafka_python-$version.tar.gz" -C "$cache" && touch "$folder/.complete" ||
    { tail -5 "$work/pip.log"; skip_suite "the source of kafka-python could not be fetched"; }
fi

if [ -z "${BOOTSTRAP:-}" ]; then
  certificates
  SASL_BOOTSTRAP=127.0.0.1:$(free_port) SSL_BOOTSTRAP=127.0.0.1:$(free_port)
  printf 'alice-secret' >"$work/alice"
  start_node node kafka.default_partitions=4 kafka.group_initial_rebalance_delay=0ms kafka.group_min_session_timeout=1s \
    kafka.allow_everyone_if_no_acl_found=true kafka.users.alice.password_file="$work/alice" \
    kafka.listeners.sasl.address="$SASL_BOOTSTRAP" kafka.listeners.sasl.protocol=SASL_PLAINTEXT kafka.listeners.sasl.plain_without_tls=true \
    kafka.listeners.sasl.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512 \
    kafka.listeners.tls.address="$SSL_BOOTSTRAP" kafka.listeners.tls.protocol=SSL \
    kafka.listeners.tls.certificate="$work/tls/localhost.pem" kafka.listeners.tls.key="$work/tls/localhost.key"
  BOOTSTRAP=$address
  if [ -n "${BROKER:-}" ]; then SASL_BOOTSTRAP='' SSL_BOOTSTRAP=''; fi
fi

# What the package leaves out of its own tests, and where their brokers are.
touch "$folder/test/__init__.py"
cp "$here/kafka_python_brokers.py" "$folder/test/service.py"
cd "$folder" || exit 1
export BROKER_PLAINTEXT=$BOOTSTRAP BROKER_SASL_PLAINTEXT=${SASL_BOOTSTRAP:-} BROKER_SSL=${SSL_BOOTSTRAP:-} BROKER_SSL_DIR=${SSL_DIR:-$work/tls}
export KAFKA_VERSION=${KAFKA_VERSION:-4.3} KAFKA_ROOT=$work PYTHONDONTWRITEBYTECODE=1
timeout --kill-after=10 1200 "$python" -m pytest test/integration -p test.service -p no:cacheprovider -q --timeout "${TEST_TIMEOUT:-120}" -o junit_family=xunit1 --junitxml "$work/junit.xml" ${ONLY:+-k "${ONLY// / or }"} >"$work/pytest.log" 2>&1 </dev/null
[ -e "$work/junit.xml" ] || { tail -30 "$work/pytest.log"; echo "failed pytest without a report" >"$results"; judge; }
[ -z "${LOGS:-}" ] || { mkdir -p "$LOGS" && cp "$work/pytest.log" "$LOGS/kafka_python.log"; }
python3 - "$work/junit.xml" >"$results" <<'PY'
import sys, xml.etree.ElementTree as tree
for case in tree.parse(sys.argv[1]).iter("testcase"):
    name = case.get("classname").removeprefix("test.integration.") + "::" + case.get("name").replace(" ", "_")
    state, why = "passed", ""
    for kind, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            state, why = word, " " + (found.get("message") or "").replace("\n", " ")[:300]
    print(state, name + why)
PY
judge
