#!/usr/bin/env bash
# The core without std:
#   1. links vine-core into a program with its own panic handler, allocator and memcpy, and no library, and runs it;
#   2. builds vine-core for every other installed target, and for one without atomic read-modify-write or an OS
#      where rustup can bring it.
# A std anywhere below the core fails both.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=${CARGO_TARGET_DIR:-target}

if [ "$(uname -sm)" = "Linux x86_64" ]; then
  cargo build --locked -p vine-no-std --features program --profile no-std
  timeout 60 "$target_dir/no-std/vine-no-std" || { echo "no-std: the program exited with $?" >&2; exit 1; }
  echo "no-std: the program linked, ran and exited with 0"
else
  echo "no-std: the program is written for Linux on x86_64; left out on $(uname -sm)" >&2
fi

# A target without compare-and-swap: whoever builds the firmware says that there is one core (see portable-atomic).
export CARGO_TARGET_THUMBV6M_NONE_EABI_RUSTFLAGS="--cfg portable_atomic_unsafe_assume_single_core"
if command -v rustup >/dev/null; then
  rustup target add thumbv6m-none-eabi >/dev/null 2>&1 || echo "no-std: rustup cannot bring thumbv6m-none-eabi here" >&2
  host=$(rustc -vV | sed -n 's/^host: //p')
  for target in $(rustup target list --installed); do
    [ "$target" = "$host" ] && continue
    cargo build --locked -p vine-core --target "$target"
    echo "no-std: vine-core builds for $target"
  done
fi
