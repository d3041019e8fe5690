#!/usr/bin/env bash
# Coverage-guided fuzzing of vine-core: builds every target once, runs each, and fails on the first finding.
#
#   bash scripts/fuzz.sh                           # the campaign: 10,000,000 runs of every decoder, fewer of whole nodes; hours
#   bash scripts/fuzz.sh [--runs N] [target...]    # these targets, so many runs each
#   bash scripts/fuzz.sh --smoke [target...]       # a few seconds each, with a fixed seed and without leaving anything behind
#   bash scripts/fuzz.sh --list                    # the targets
#
# It needs a C++ compiler, which libFuzzer is built with, and neither cargo-fuzz nor a nightly compiler. Where there is
# none it is installed (as root on Debian); where that fails the targets are left out, which is said, and is a failure with
# VINE_TEST_ALL=1. What each target checks is in fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

# Target, longest input, runs.
targets=(
  "varint 32 10000000"
  "frame 512 10000000"
  "envelope 64 10000000"
  "handshake 1240 10000000"
  "tlv 256 10000000"
  "message 512 10000000"
  "peer_id 256 10000000"
  "prefix 256 10000000"
  "ip_packet 256 10000000"
  "tun_packet 128 10000000"
  "gather 128 10000000"
  "checksum 256 10000000"
  "fragment 400 10000000"
  "mss 256 10000000"
  "noise_1 256 10000000"
  "noise_2 256 10000000"
  "tunnel 400 10000000"
  "op 512 10000000"
  "commit 600 3000000"
  "archive 1600 300000"
  "node_bytes 1500 1000000"
  "node_pair 600 300000"
)
smoke_seconds=4

runs='' smoke='' wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=${2:?--runs needs a number}; shift ;;
    --smoke) smoke=1 ;;
    --list) printf '%s\n' "${targets[@]}" | cut -d' ' -f1; exit ;;
    -*) sed -n '2,12p' "$0"; exit 2 ;;
    *) wanted+=("$1") ;;
  esac
  shift
done
for name in "${wanted[@]}"; do
  printf '%s\n' "${targets[@]}" | grep -q "^$name " || { echo "fuzz.sh: no target $name; see --list" >&2; exit 2; }
done

if ! command -v c++ >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "fuzz.sh: installing g++"
  { apt-get -o Acquire::Check-Valid-Until=false update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++ >/dev/null; } || true
fi
if ! command -v c++ >/dev/null; then
  echo "fuzz.sh: left out: fuzzing needs a C++ compiler (install g++)" >&2
  [ "${VINE_TEST_ALL:-0}" = 0 ]; exit
fi

# What cargo-fuzz passes for `--sanitizer none`. All code that could break memory is in the dependencies (vine-core has no
# unsafe code), so the time goes into runs; fuzz/README.md says how to run with AddressSanitizer.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
target_dir=${CARGO_TARGET_DIR:-fuzz/target}
cargo build --release --locked --manifest-path fuzz/Cargo.toml --target-dir "$target_dir" --target "$host" --bins

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

# Runs one target: name, longest input, runs.
fuzz() {
  local name=$1 corpus=fuzz/corpus/$1 log=$scratch/$1.log seeds=() options=() status=0
  [ -d "fuzz/seeds/$name" ] && seeds=("fuzz/seeds/$name")
  if [ -n "$smoke" ]; then
    corpus=$scratch/$name
    options=(-seed=1 -max_total_time=$smoke_seconds)
  else
    options=("-runs=${runs:-$3}")
  fi
  mkdir -p "$corpus" "fuzz/artifacts/$name"
  "$target_dir/$host/release/$name" "${options[@]}" -max_len="$2" -len_control=10 -timeout=30 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" "$corpus" "${seeds[@]}" >"$log" 2>&1 || status=$?
  local executed rate edges of
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  edges=$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)
  of=$(grep -oE 'PC tables \([0-9]+' "$log" | grep -oE '[0-9]+$')
  printf '%-12s %10s runs %8s/s %6s of %s edges\n' "$name" "${executed:-?}" "${rate:-?}" "${edges:-?}" "${of:-?}"
  if [ "$status" != 0 ] || { [ -z "$smoke" ] && [ "${executed:-0}" -lt "${runs:-$3}" ]; }; then
    failed=1
    grep -vE '^#[0-9]' "$log" | tail -60
    echo "fuzz.sh: a finding in $name. To see it again: $target_dir/$host/release/$name fuzz/artifacts/$name/..." >&2
  fi
}

for line in "${targets[@]}"; do
  read -r name max_len count <<<"$line"
  if [ ${#wanted[@]} = 0 ] || printf '%s\n' "${wanted[@]}" | grep -qx "$name"; then
    fuzz "$name" "$max_len" "$count"
  fi
done
rmdir fuzz/artifacts/* fuzz/artifacts 2>/dev/null || true
[ "$failed" = 0 ] && echo "fuzz.sh: no finding"
