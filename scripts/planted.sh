#!/usr/bin/env bash
# Planted bugs: each patch in tests/planted/ makes one mistake in the core, and the simulator or the core's own tests must
# notice it. A mistake that nothing notices is a fault of the tests.
#
#   bash scripts/planted.sh                every patch
#   bash scripts/planted.sh NAME...        these
#   bash scripts/planted.sh --rotate N     N of them, others every day
#   bash scripts/planted.sh --list         their names
#
# Each patch is applied to a copy of the tree, so nothing here changes. One that does not apply any more, or does not
# compile, fails too. The first paragraph of a patch says what the mistake is.
set -uo pipefail
cd "$(dirname "$0")/.."

mapfile -t all < <(cd tests/planted && printf '%s\n' *.patch | sed 's/\.patch$//')
chosen=("${all[@]}")
case ${1:-} in
  --list) printf '%s\n' "${all[@]}"; exit ;;
  --rotate)
    count=${2:?--rotate needs a number} chosen=()
    today=$(($(date +%s) / 86400))
    for ((i = 0; i < count && i < ${#all[@]}; i++)); do
      chosen+=("${all[(today * count + i) % ${#all[@]}]}")
    done
    ;;
  -*) sed -n '2,11p' "$0"; exit 2 ;;
  ?*) chosen=("$@") ;;
esac

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
copy=$target_dir/planted
rm -rf "$copy"
mkdir -p "$copy/tree"
trap 'rm -rf "$copy"' EXIT
# The files that git knows, as they are now, with the time of now: what cargo has built of another copy is not of this one.
git ls-files -z | tar --null --ignore-failed-read -T - -cf - | tar -xmf - -C "$copy/tree"
# `git apply` is not to find the repository around the copy. The dependencies are those that are built already.
export GIT_CEILING_DIRECTORIES=$copy CARGO_TARGET_DIR=$target_dir CARGO_TERM_COLOR=never VINE_SIM_SEEDS=${VINE_SIM_SEEDS:-300}
export RUST_BACKTRACE=0

# In the order in which they are asked: the simulator, then the unit tests.
tests=("--test sim_sessions" "--test sim_handshake" "--test sim_paths" "--test sim_seeds" "--lib")
# Always the whole workspace, so that no dependency is compiled twice for another choice of features.
cargo_test() { (cd "$copy/tree" && timeout 900 cargo test --quiet --workspace --locked "$@") >"$copy/output" 2>&1; }

# Runs the tests until one notices, and prints which.
noticed_by() {
  local test
  for test in "${tests[@]}"; do
    # shellcheck disable=SC2086
    cargo_test $test && continue
    echo "${test#--}: $(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$copy/output" | head -1)"
    return 0
  done
  return 1
}

failures=0
for name in "${chosen[@]}"; do
  patch=tests/planted/$name.patch from=$SECONDS
  if ! [ -f "$patch" ]; then
    echo "planted.sh: no patch $name; see --list" >&2
    exit 2
  fi
  patch=$(realpath "$patch")
  if ! (cd "$copy/tree" && git apply --whitespace=nowarn "$patch") 2>"$copy/output"; then
    echo "$name: DOES NOT APPLY any more"; cat "$copy/output"
    failures=$((failures + 1))
    continue
  fi
  # shellcheck disable=SC2086  # an entry of `tests` is two words
  if ! cargo_test --no-run ${tests[*]}; then
    echo "$name: DOES NOT COMPILE"; tail -n 30 "$copy/output"
    failures=$((failures + 1))
  elif by=$(noticed_by); then
    echo "$name: noticed by $by ($((SECONDS - from)) s)"
  else
    echo "$name: NOT NOTICED: $(sed '/^$/q' "$patch") ($((SECONDS - from)) s)"
    failures=$((failures + 1))
  fi
  (cd "$copy/tree" && git apply --reverse "$patch")
done
echo "planted.sh: ${#chosen[@]} planted, $failures not caught"
[ "$failures" = 0 ]
