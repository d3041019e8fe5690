#!/usr/bin/env bash
# Planted bugs: each patch in tests/planted/ makes one mistake in the core, and the simulators must notice it. A mistake that
# nothing notices is a fault of the simulator.
#
#   bash scripts/planted.sh                every patch
#   bash scripts/planted.sh NAME...        these
#   bash scripts/planted.sh --rotate N     N of them, others every day
#   bash scripts/planted.sh --check        whether all of them still apply, and nothing else
#   bash scripts/planted.sh --list         what they are
#
# Each patch is applied to a copy of the tree, so nothing here changes. One that does not apply any more, or does not
# compile, fails too. The first paragraph of a patch says what the mistake is. VINE_SIM_SEEDS seeds are tried (2,000), up to
# the first that fails; where none does, the scenarios of the simulator are. `Scenario: NAME` in that paragraph names those
# to try first, because no seed is long enough. `Seeds: log_seeds` there names the seeds to try instead of sim_seeds, those of
# the log, and with them its scenarios; so does `Seeds: whole_seeds` for whole machines. A run that does not end has noticed something. Seeds and scenarios that fail in the
# tree as it is say nothing.
set -uo pipefail
cd "$(dirname "$0")/.."

seeds=${VINE_SIM_SEEDS:-2000}
# Seconds that the seeds, or one set of scenarios, may take before they count as a run that does not end.
limit=${VINE_PLANTED_LIMIT:-600}
scenarios_of_sim_seeds=(sim_failover sim_nat sim_handshake sim_sessions sim_paths)
scenarios_of_log_seeds=(log_damage log_imports log_crashes)
scenarios_of_whole_seeds=(whole_machines)

mapfile -t all < <(cd tests/planted && printf '%s\n' *.patch | sed 's/\.patch$//')
chosen=("${all[@]}") only_check=
case ${1:-} in
  --list)
    for name in "${all[@]}"; do printf '%-32s %s\n' "$name" "$(sed '/^$/,$d' "tests/planted/$name.patch" | paste -sd' ')"; done
    exit ;;
  --check) only_check=1 ;;
  --rotate)
    count=${2:?--rotate needs a number} chosen=()
    today=$(($(date +%s) / 86400))
    for ((i = 0; i < count && i < ${#all[@]}; i++)); do chosen+=("${all[(today * count + i) % ${#all[@]}]}"); done
    ;;
  -*) sed -n '2,15p' "$0"; exit 2 ;;
  ?*) chosen=("$@") ;;
esac

failures=0
for name in "${chosen[@]}"; do
  if ! [ -f "tests/planted/$name.patch" ]; then
    echo "planted.sh: no patch $name; see --list" >&2
    exit 2
  fi
  if ! git apply --check "tests/planted/$name.patch"; then
    echo "$name: DOES NOT APPLY any more"
    failures=$((failures + 1))
  fi
done
if [ -n "$only_check" ] || [ "$failures" != 0 ]; then
  echo "planted.sh: ${#chosen[@]} patches, $failures do not apply"
  [ "$failures" = 0 ]
  exit
fi

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
copy=$target_dir/planted
rm -rf "$copy"
mkdir -p "$copy/tree"
trap 'rm -rf "$copy"' EXIT
# The files that git knows, as they are now, with the time of now: what cargo has built of another copy is not of this one.
git ls-files -z | tar --null --ignore-failed-read -T - -cf - | tar -xmf - -C "$copy/tree"
# `git apply` is not to find the repository around the copy. What is built of it goes to a place of its own: cargo would take
# it for what was built of the tree that it is a copy of.
export GIT_CEILING_DIRECTORIES=$copy CARGO_TARGET_DIR=$target_dir/planted-build CARGO_TERM_COLOR=never RUST_BACKTRACE=0

# Builds a test of the copy and puts it to $1.
build() { # PROGRAM TEST
  local program
  (cd "$copy/tree" && timeout 1800 cargo test -p vine-tests --locked --no-run --test "$2") >"$copy/output" 2>&1 || return 1
  program=$(sed -n "s/.*(\(.*$2-[0-9a-f]*\)).*/\1/p" "$copy/output" | tail -n 1)
  cp "$(cd "$copy/tree" && realpath "$program")" "$1"
}

# What the program $1 says of $3 seeds from $2 on, up to the first that fails.
try_seeds() {
  (cd "$copy/tree/tests" &&
    VINE_SIM_QUICK=1 VINE_SIM_FIRST=$2 VINE_SIM_SEEDS=$3 timeout "$limit" "$1" --nocapture) >"$copy/output" 2>&1
}

# Prints the first seed that notices, and why; nothing where none does.
noticed_by_seeds() {
  local first=0 status line seed
  while [ "$first" -lt "$seeds" ]; do
    try_seeds "$copy/planted" "$first" $((seeds - first))
    status=$?
    [ "$status" = 124 ] && { echo "seeds that do not end in $limit s"; return; }
    line=$(grep -m 1 '^VINE_SIM_SEED=' "$copy/output")
    if [ -z "$line" ]; then
      # Neither a rule nor an end of all: the program died.
      [ "$status" = 0 ] || echo "the seeds: $(grep -m 1 -A 1 'panicked at' "$copy/output" | tail -n 1)"
      return
    fi
    seed=${line#*=} seed=${seed%%:*}
    if try_seeds "$copy/as-it-is-$test_of_seeds" "$seed" 1; then
      echo "the $((seed + 1))th seed: ${line#*: }"
      return
    fi
    first=$((seed + 1))
  done
}

noticed_by_scenarios() { # NAME...
  local test status failed
  for test in "$@"; do
    build "$copy/scenario" "$test" || { echo "a build that fails: $test"; return; }
    (cd "$copy/tree/tests" && timeout "$limit" "$copy/scenario") >"$copy/output" 2>&1
    status=$?
    [ "$status" = 0 ] && continue
    [ "$status" = 124 ] && { echo "$test, which does not end in $limit s"; return; }
    failed=$(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$copy/output" | head -n 1)
    (cd "$copy/tree" && git apply -R --whitespace=nowarn "$patch")
    build "$copy/scenario" "$test" || status=as-it-is
    (cd "$copy/tree" && git apply --whitespace=nowarn "$patch")
    [ "$status" = as-it-is ] && continue
    (cd "$copy/tree/tests" && timeout "$limit" "$copy/scenario" --exact "$failed") >"$copy/output" 2>&1 || continue
    echo "$test: $failed"
    return
  done
}

for name in "${chosen[@]}"; do
  patch=$(realpath "tests/planted/$name.patch") from=$SECONDS by=
  test_of_seeds=$(sed -n '/^$/q; s/^Seeds: //p' "$patch") test_of_seeds=${test_of_seeds:-sim_seeds}
  declare -n scenarios=scenarios_of_$test_of_seeds
  if ! [ -e "$copy/as-it-is-$test_of_seeds" ] && ! build "$copy/as-it-is-$test_of_seeds" "$test_of_seeds"; then
    echo "planted.sh: the tree as it is does not compile"; tail -n 30 "$copy/output"
    exit 1
  fi
  (cd "$copy/tree" && git apply --whitespace=nowarn "$patch")
  if ! build "$copy/planted" "$test_of_seeds"; then
    echo "$name: DOES NOT COMPILE"; tail -n 30 "$copy/output"
    failures=$((failures + 1))
  else
    built=$SECONDS
    mapfile -t named < <(sed -n '/^$/q; s/^Scenario: //p' "$patch")
    by=$(noticed_by_scenarios "${named[@]}")
    [ -n "$by" ] || by=$(noticed_by_seeds)
    [ -n "$by" ] || by=$(noticed_by_scenarios "${scenarios[@]}")
    took="$((SECONDS - built)) s, built in $((built - from)) s"
    if [ -n "$by" ]; then
      echo "$name: noticed by $by ($took)"
    else
      echo "$name: NOT NOTICED: $(sed '/^$/,$d' "$patch" | paste -sd' ') ($took)"
      failures=$((failures + 1))
    fi
  fi
  (cd "$copy/tree" && git apply --reverse --whitespace=nowarn "$patch")
done
echo "planted.sh: ${#chosen[@]} planted, $failures not noticed"
[ "$failures" = 0 ]
