# What the suites share: a node of their own, the tools they need, and the judgement over their results. Sourced by each
# script beside it, never run.
#
#   VITALSQL=BINARY SUITE.sh           starts nodes of its own from this binary
#   BROKER=COMMAND SUITE.sh            starts them with `COMMAND PORT DIR`, whatever it is; what a node shall be like it reads from
#                                      PARTITIONS, REBALANCE_MS, MIN_SESSION_MS and NOAUTO. What is about TLS and SASL is left out
#   BOOTSTRAP=HOST:PORT SUITE.sh       asks a broker that is there already, Apache Kafka for one; NOAUTO_BOOTSTRAP names a
#                                      second one that makes no topics by itself
#   ONLY="NAME .." SUITE.sh            some of its tests
#   UPDATE_EXPECTED=1 SUITE.sh         writes the list of tests that must pass anew
#
# A suite writes lines `passed NAME`, `failed NAME why` and `skipped NAME why` to $results. It is red where a test named in
# expected/SUITE.txt did not pass, and tells of every other failure without being red.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=$(basename "$0" .sh)
cache=${SUITES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vitalsql-suites}
work=$(mktemp -d)
results=$work/results
nodes=()
mkdir -p "$cache"
: >"$results"
ended() {
  local pid
  for pid in "${nodes[@]}"; do kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
  if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap ended EXIT

skip_suite() { # WHY: a tool that the suite cannot do without is missing
  echo "$suite: skipped, $1"
  exit 0
}
need() { # COMMAND PACKAGE: Debian's package where the command is missing; the suite skips itself where that fails
  command -v "$1" >/dev/null && return
  [ -e "$work/updated" ] || { apt-get update -qq && touch "$work/updated"; } >"$work/apt.log" 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >>"$work/apt.log" 2>&1
  command -v "$1" >/dev/null || skip_suite "there is no $1 and package $2 could not be installed"
}
need_python() { # REQUIREMENTS..: a virtual environment with them, in $python
  need python3 python3
  python=$cache/venv-$suite/bin/python
  if [ "$(cat "$cache/venv-$suite/requirements" 2>/dev/null)" != "$*" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || need pyvenv python3-venv
    if python3 -m venv --clear "$cache/venv-$suite" && "$python" -m pip install -q --disable-pip-version-check "$@" >"$work/pip.log" 2>&1; then
      echo "$*" >"$cache/venv-$suite/requirements"
    else
      tail -5 "$work/pip.log"
      skip_suite "the Python packages could not be installed"
    fi
  fi
}
crate_source() { # CRATE VERSION: the folder of a crate's source as its registry serves it
  local folder=$cache/fetch-$1 found
  mkdir -p "$folder/src" && : >"$folder/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = { version = "=%s", default-features = false }\n[workspace]\n' "$1" "${2%%+*}" >"$folder/Cargo.toml"
  cargo fetch -q --manifest-path "$folder/Cargo.toml" >"$work/fetch.log" 2>&1 || { tail -5 "$work/fetch.log" >&2; return 1; }
  found=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "$1-$2" | head -1)
  [ -n "$found" ] && echo "$found"
}
crate_tests() { # CRATE VERSION ARGS..: runs a crate's own tests, what they say in $results and $work/tests.log
  local source folder=$cache/crate-$1-$2 code
  need cargo cargo
  source=$(crate_source "$1" "$2") || skip_suite "the source of crate $1 could not be fetched"
  [ -e "$folder" ] || { cp -r "$source" "$folder.new" && chmod -R u+w "$folder.new" && rm -f "$folder.new"/rust-toolchain* && mv "$folder.new" "$folder"; }
  # The suites' crates share what they compile, and nobody looks at it with a debugger.
  export CARGO_TARGET_DIR=$cache/target CARGO_TERM_COLOR=never CARGO_PROFILE_DEV_DEBUG=0
  shift 2
  # What a crate's lock file names may be too old for today's compiler.
  [ -z "${outdated:-}" ] || (cd "$folder" && cargo update -q -p "$outdated") >"$work/build.log" 2>&1
  (cd "$folder" && cargo test --no-run "$@") >"$work/build.log" 2>&1 </dev/null || { tail -20 "$work/build.log"; skip_suite "its tests could not be built"; }
  local begun=$SECONDS
  (cd "$folder" && timeout --kill-after=10 1200 cargo test --no-fail-fast "$@") >"$work/tests.log" 2>&1 </dev/null
  code=$?
  echo "the tests ran for $((SECONDS - begun)) s and ended with $code"
  [ -z "${LOGS:-}" ] || { mkdir -p "$LOGS" && cp "$work/tests.log" "$LOGS/$suite.log"; }
  # Lines `test NAME ... ok` under `Running tests/FILE.rs`; with --nocapture a test's own words may come between.
  python3 - "$work/tests.log" >>"$results" <<'PY'
import re, sys
target, words = "lib", {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
text = open(sys.argv[1], errors="replace").read()
why = dict(re.findall(r"thread '([\w:]+)'[^\n]* panicked at [^\n]*\n([^\n]*)", text))
said = {}
for block in re.findall(r"(?ms)^---- (\S+) std(?:out|err) ----\n(.*?)(?=^----|\Z)", text):
    said[block[0]] = block[1]
for line in text.splitlines():
    running = re.match(r"\s+Running (?:unittests )?(?:tests/|src/)?([\w/]+)\.rs", line)
    if running:
        target = running.group(1)
    if line.lstrip().startswith("Doc-tests"):
        target = "doc"
    test = re.match(r"test (\S+)(?: - .*?)? \.\.\. (ok|FAILED|ignored)", line)
    if test and target != "doc":
        state, detail = words[test.group(2)], ""
        if state == "failed":
            detail = " " + why.get(test.group(1), "")[:300]
        elif re.search(r"(?i)skip", said.get(test.group(1), "")):
            state, detail = "skipped", " " + re.search(r"(?im)^.*skip.*$", said[test.group(1)]).group(0)
        print(state, target + "::" + test.group(1) + detail)
PY
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start_broker() { # NAME PORT SETTING=VALUE..: a node that BROKER starts
  local name=$1 kafka=$2 setting asked=()
  shift 2
  for setting in "$@"; do
    case $setting in
      kafka.default_partitions=*) asked+=("PARTITIONS=${setting#*=}") ;;
      kafka.auto_create_topics=false) asked+=(NOAUTO=1) ;;
      kafka.group_initial_rebalance_delay=*) asked+=("REBALANCE_MS=$(milliseconds "${setting#*=}")") ;;
      kafka.group_min_session_timeout=*) asked+=("MIN_SESSION_MS=$(milliseconds "${setting#*=}")") ;;
    esac
  done
  mkdir -p "$work/$name/data"
  # shellcheck disable=SC2086
  env "${asked[@]}" $BROKER "$kafka" "$work/$name/data" >"$work/$name.log" 2>&1 </dev/null &
  nodes+=("$!")
}
milliseconds() { case $1 in *ms) echo "${1%ms}" ;; *) echo "$((${1%s} * 1000))" ;; esac; }
start_node() { # NAME SETTING=VALUE..: starts a node with these settings beside the defaults; its address is left in $address. Where it
  # listens is said by PORT, or by chance
  local name=$1 binary kafka=${PORT:-$(free_port)} http setting
  shift
  if [ -n "${BROKER:-}" ]; then
    http=$kafka
    start_broker "$name" "$kafka" "$@"
    await_node
    return
  fi
  binary=$(realpath "${VITALSQL:?set VITALSQL to the binary, BROKER to a command or BOOTSTRAP to a broker}") || exit 1
  http=$(free_port)
  mkdir -p "$work/$name"
  for setting in "$@"; do echo "${setting%%=*} = \"${setting#*=}\""; done >"$work/$name/vitalsql.toml"
  (cd "$work/$name" && exec "$binary" serve --data-dir "$work/$name/data" --kafka "127.0.0.1:$kafka" --http "127.0.0.1:$http") >"$work/$name.log" 2>&1 </dev/null &
  nodes+=("$!")
  await_node
}
await_node() { # until the node that was started last listens
  address=127.0.0.1:$kafka
  for _ in $(seq 100); do
    if ! kill -0 "${nodes[-1]}" 2>/dev/null; then echo "the node $name ended:"; cat "$work/$name.log"; exit 1; fi
    if listens "$http" && listens "$kafka"; then return; fi
    sleep 0.1
  done
  echo "the node $name is not there after 10 s:"; cat "$work/$name.log"; exit 1
}

certificates() { # an authority, a certificate for localhost that it signed and one for a client, in $work/tls
  need openssl openssl
  mkdir -p "$work/tls"
  (
    cd "$work/tls" || exit 1
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key -out ca-cert -days 2 -subj "/CN=authority" -addext "keyUsage=critical,keyCertSign,cRLSign"
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >extensions
    for name in localhost client; do
      openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.request -subj "/CN=$name"
      openssl x509 -req -in $name.request -CA ca-cert -CAkey ca-key -CAcreateserial -days 2 -extfile extensions -out $name.pem || exit 1
    done
    openssl x509 -in client.pem -outform der -out client.der
    openssl rsa -in client.key -outform der -out client-key.der
    openssl x509 -in ca-cert -outform der -out ca.der
    openssl pkcs12 -export -inkey client.key -in client.pem -certfile ca-cert -passout pass:secret -out client.p12
  ) >"$work/tls.log" 2>&1 || { cat "$work/tls.log"; exit 1; }
}

wanted() { [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]]; } # NAME: whether it was asked for

judge() { # prints the counts and what failed, and ends: red where an expected test did not pass
  local expected=$here/expected/$suite.txt name missing=() passed failed skipped
  passed=$(grep -c '^passed ' "$results") failed=$(grep -c '^failed ' "$results") skipped=$(grep -c '^skipped ' "$results")
  sort -o "$results" "$results"
  echo
  sed -n 's/^failed /FAIL /p; s/^skipped /skip /p' "$results"
  if [ -n "${UPDATE_EXPECTED:-}" ]; then mkdir -p "$here/expected"; sed -n 's/^passed \([^ ]*\).*/\1/p' "$results" | LC_ALL=C sort -u >"$expected"; fi
  while read -r name; do
    [ -z "${ONLY:-}" ] || cut -d' ' -f2 "$results" | grep -Fxq -- "$name" || continue
    sed -n 's/^passed \([^ ]*\).*/\1/p' "$results" | grep -Fxq -- "$name" || missing+=("$name")
  done < <(grep -v '^#' "$expected" 2>/dev/null)
  for pid in "${nodes[@]}"; do
    kill -TERM "$pid" 2>/dev/null
    wait "$pid" || missing+=("a-node-that-ends-well")
  done
  nodes=()
  if [ ${#missing[@]} -gt 0 ]; then printf 'passed before, not now: %s\n' "${missing[@]}"; fi
  echo "$suite: $passed passed, $failed failed, $skipped skipped, $SECONDS s"
  echo "$suite: $passed passed, ${#missing[@]} failed"
  [ ${#missing[@]} -eq 0 ] && [ "$passed" -gt 0 ]
  exit
}
