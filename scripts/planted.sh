#!/usr/bin/env bash
# Planted bugs: each patch in tests/planted/ makes one mistake in the core, and the simulator's seeds must notice it. A
# mistake that nothing notices is a fault of the simulator.
#
#   bash scripts/planted.sh             2 of them, others every day
#   bash scripts/planted.sh N           N of them, others every day
#   bash scripts/planted.sh NAME...     these
#   bash scripts/planted.sh --all       every one
#   bash scripts/planted.sh --list      what they are
#
# Each patch is applied to a copy of the tree, so nothing here changes. One that does not apply any more, or does not
# compile, fails too. The first line of a patch says what the mistake is. VINE_SIM_SEEDS seeds are tried (2,000), up to the
# first that fails; where none does, the scenario tests say whether they would have noticed. A run that does not end is
# noticed. Seeds that fail in the tree as it is are left out.
set -uo pipefail
cd "$(dirname "$0")/.."

seeds=${VINE_SIM_SEEDS:-2000}
# What a seed suite, and a set of scenario tests, may take before it counts as a hang.
limit=${VINE_PLANTED_LIMIT:-900}
scenarios=(sim_handshake sim_sessions sim_paths sim_failover sim_nat)

mapfile -t all < <(cd tests/planted && printf '%s\n' *.patch | sed 's/\.patch$//')
rotate() { # N: as many, others every day
  local today i
  today=$(($(date +%s) / 86400))
  for ((i = 0; i < $1 && i < ${#all[@]}; i++)); do echo "${all[(today * $1 + i) % ${#all[@]}]}"; done
}
case ${1:-} in
  --all) chosen=("${all[@]}") ;;
  --list)
    for name in "${all[@]}"; do printf '%-32s %s\n' "$name" "$(head -n 1 "tests/planted/$name.patch")"; done
    exit ;;
  -*) sed -n '2,9p' "$0"; exit 2 ;;
  "" | [0-9]*) mapfile -t chosen < <(rotate "${1:-2}") ;;
  *) chosen=("$@") ;;
esac

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
copy=$target_dir/planted
rm -rf "$copy"
mkdir -p "$copy/tree"
trap 'rm -rf "$copy"' EXIT
# The files that git knows, as they are now, with the time of now: what cargo has built of another copy is not of this one.
git ls-files -z | tar --null --ignore-failed-read -T - -cf - | tar -xmf - -C "$copy/tree"
# `git apply` is not to find the repository around the copy. The dependencies are those that are built already.
export GIT_CEILING_DIRECTORIES=$copy CARGO_TARGET_DIR=$target_dir CARGO_TERM_COLOR=never RUST_BACKTRACE=0

cargo_test() { (cd "$copy/tree" && timeout 1800 cargo test --package vine-tests --locked "$@") >"$copy/output" 2>&1; }

# Builds the seed suite of the copy, and puts it where the first argument says.
build() {
  local program
  cargo_test --no-run --test sim_seeds || return 1
  program=$(sed -n 's/.*(\(.*sim_seeds-[0-9a-f]*\)).*/\1/p' "$copy/output" | tail -n 1)
  cp "$(cd "$copy/tree" && realpath "$program")" "$1"
}

# What the seed suite at $1 says of the seeds from $2 on, up to the first that fails.
try_seeds() {
  VINE_SIM_QUICK=1 VINE_SIM_FIRST=$2 VINE_SIM_SEEDS=$3 timeout "$limit" "$1" --nocapture >"$copy/output" 2>&1
}

# Prints the first seed that notices, and why; nothing where none does.
noticed_by_seeds() {
  local first=0 status line seed
  while [ "$first" -lt "$seeds" ]; do
    try_seeds "$copy/planted" "$first" $((seeds - first))
    status=$?
    [ "$status" = 124 ] && { echo "seeds from $first on: no end within $limit s"; return; }
    line=$(grep -m 1 '^VINE_SIM_SEED=' "$copy/output")
    if [ -z "$line" ]; then
      # Neither a rule nor an end of all: the program died, or a situation was never reached.
      [ "$status" = 0 ] || echo "the seeds from $first on: $(grep -m 1 -A 1 'panicked at' "$copy/output" | tail -n 1)"
      return
    fi
    seed=${line#*=} seed=${seed%%:*}
    if try_seeds "$copy/as-it-is" "$seed" 1; then
      echo "seed $seed: ${line#*: }"
      return
    fi
    first=$((seed + 1))
  done
}

noticed_by_scenarios() {
  local test status
  for test in "${scenarios[@]}"; do
    (cd "$copy/tree" && timeout "$limit" cargo test --package vine-tests --locked --test "$test") >"$copy/output" 2>&1
    status=$?
    [ "$status" = 0 ] && continue
    [ "$status" = 124 ] && { echo "$test does not end"; return; }
    echo "$test: $(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$copy/output" | head -n 1)"
    return
  done
}

if ! build "$copy/as-it-is"; then
  echo "planted.sh: the tree as it is does not compile"; tail -n 30 "$copy/output"
  exit 1
fi
failures=0
fail() { printf '%s: %s (%d s)\n' "$name" "$1" $((SECONDS - from)); failures=$((failures + 1)); }
for name in "${chosen[@]}"; do
  patch=tests/planted/$name.patch from=$SECONDS
  if ! [ -f "$patch" ]; then
    echo "planted.sh: no patch $name; see --list" >&2
    exit 2
  fi
  patch=$(realpath "$patch")
  if ! (cd "$copy/tree" && git apply --whitespace=nowarn "$patch") 2>"$copy/output"; then
    fail "DOES NOT APPLY any more"; cat "$copy/output"
    continue
  fi
  if ! build "$copy/planted"; then
    fail "DOES NOT COMPILE"; tail -n 30 "$copy/output"
  elif by=$(noticed_by_seeds) && [ -n "$by" ]; then
    printf '%s: noticed by %s (%d s)\n' "$name" "$by" $((SECONDS - from))
  elif by=$(noticed_by_scenarios) && [ -n "$by" ]; then
    fail "NOT NOTICED by $seeds seeds, only by $by"
  else
    fail "NOT NOTICED: $(head -n 1 "$patch")"
  fi
  (cd "$copy/tree" && git apply --reverse "$patch")
done
echo "planted.sh: ${#chosen[@]} planted, $failures not noticed"
[ "$failures" = 0 ]
