#!/usr/bin/env bash
# Coverage-guided fuzzing with libFuzzer, on the stable toolchain: the coverage is LLVM's, asked for by its own options.
#
#   run.sh                     builds all targets and runs each over its corpus, once: a minute or two, for CI
#   run.sh TARGET SECONDS      fuzzes one target, from its corpus on; all that it keeps, and what it finds, goes to FUZZ_WORK
#   run.sh TARGET minimise     makes the corpus anew: the fewest inputs that reach what is reached by now
#
# Targets: requests, batches, recovery. FUZZ_WORK is target/fuzz of the project without a word. Needs a C++ compiler for libFuzzer.
# A corpus is one archive, corpus/TARGET.tar.gz, since it is of many files of a few bytes. Those named found-* once found something: they
# stay, whatever else reaches the same.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v c++ >/dev/null; then echo "fuzz: skipped, there is no C++ compiler to build libFuzzer with"; exit 0; fi
work=${FUZZ_WORK:-$here/../../target/fuzz}
mkdir -p "$work"
work=$(realpath "$work")
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$work/build}
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do coverage="$coverage -Cllvm-args=-sanitizer-coverage-$option"; done
(cd "$here" && RUSTFLAGS="$coverage --cfg fuzzing" cargo build --release --locked --target "$host" --features libfuzzer -q)
unpack() { # TARGET: all inputs there are, in $work/TARGET
  mkdir -p "$work/$1"
  [ ! -f "$here/corpus/$1.tar.gz" ] || tar -xzf "$here/corpus/$1.tar.gz" -C "$work/$1"
}
run() { # TARGET ARGUMENTS..
  local target=$1
  shift
  "$CARGO_TARGET_DIR/$host/release/$target" -artifact_prefix="$work/$target." -rss_limit_mb=2048 -timeout=20 -max_len=4096 "$@"
}
case "${2:-once}" in
  once)
    for target in ${1:-requests batches recovery}; do
      unpack "$target"
      run "$target" -runs=0 "$work/$target" >"$work/$target.log" 2>&1 || { tail -40 "$work/$target.log"; echo "fuzz: $target fails"; exit 1; }
      echo "fuzz: $target, $(find "$work/$target" -type f | wc -l) inputs, no finding"
    done
    ;;
  minimise)
    unpack "$1"
    rm -rf "$work/$1.small"
    mkdir "$work/$1.small"
    run "$1" -set_cover_merge=1 -use_counters=0 -max_len=2048 "$work/$1.small" "$work/$1"
    find "$work/$1" -name 'found-*' -exec cp {} "$work/$1.small" \;
    tar -C "$work/$1.small" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - . | gzip -9n >"$here/corpus/$1.tar.gz"
    ;;
  *)
    unpack "$1"
    run "$1" -max_total_time="$2" -print_final_stats=1 "$work/$1"
    ;;
esac
