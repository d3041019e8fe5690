#!/usr/bin/env bash
# Every test of vine, with one command:
#
#   bash scripts/test.sh          # as root on Debian: installs what the tests need beyond Rust, runs everything
#   bash scripts/test.sh --all    # the same, but a test that would be left out is a failure (VINE_TEST_ALL=1 says it too)
#
# Without root the tests that need network namespaces and TUN devices are left out, each named at the end with the reason.
# The last line is the sum: `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  "") ;;
  --all) export VINE_TEST_ALL=1 ;;
  *) sed -n '2,9p' "$0"; exit 2 ;;
esac

# Installs the packages of the commands that are missing: `need COMMAND PACKAGE`.
packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
PATH=$PATH:/usr/sbin:/sbin
need cc "gcc libc6-dev"
need ip iproute2
need ss iproute2
need ping iputils-ping
need iperf3 iperf3
need nft nftables
need taskset util-linux
need setpriv util-linux
need chrt util-linux
need perl perl-base
need strace strace
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test.sh: installing ${packages[*]}"
    # shellcheck disable=SC2068  # one entry may name two packages
    { apt-get -o Acquire::Check-Valid-Until=false update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ${packages[@]} >/dev/null; } ||
      echo "test.sh: apt-get could not install all of: ${packages[*]}" >&2
  else
    echo "test.sh: not installed, and installing needs root on Debian: ${packages[*]}" >&2
  fi
fi
command -v cc >/dev/null || { echo "test.sh: Rust needs a C linker: install gcc and run this again" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export VINE_TEST_LEFT_OUT=$scratch/left-out VINE_TEST_FIGURES=$scratch/figures
: >"$VINE_TEST_LEFT_OUT"; : >"$VINE_TEST_FIGURES"

# The multi-host tests run the binary as it is released; everything else runs with overflow checks and assertions.
cargo build --release --locked -p vine-cli -p vine-tests --bin vine --bin flood || exit 1
target_dir=$(realpath "${CARGO_TARGET_DIR:-target}")
export VINE_BIN=${VINE_BIN:-$target_dir/release/vine} VINE_FLOOD_BIN=$target_dir/release/flood

cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$scratch/output"
status=${PIPESTATUS[0]}

sum() { grep -E '^test result: ' "$scratch/output" | grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'; }
left_out=$(wc -l <"$VINE_TEST_LEFT_OUT")
passed=$(($(sum passed) - left_out)) failed=$(sum failed) skipped=$(($(sum ignored) + left_out))
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
  failed=1 # a test that did not compile, or a test program that died, has no result line of its own
fi

echo
grep -E '^test .* \.\.\. FAILED$' "$scratch/output" | sort -u
[ -s "$VINE_TEST_FIGURES" ] && { echo "measured:"; sed 's/^/  /' "$VINE_TEST_FIGURES"; }
[ -s "$VINE_TEST_LEFT_OUT" ] && { echo "left out:"; sort -u "$VINE_TEST_LEFT_OUT" | sed 's/^/  /'; }
echo "$passed passed, $failed failed, $skipped skipped"
[ "$status" = 0 ] && { [ "${VINE_TEST_ALL:-0}" = 0 ] || [ "$skipped" = 0 ]; }
