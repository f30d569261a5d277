#!/usr/bin/env bash
# Fuzzes each target for some seconds, one after the other: fuzz/run.sh 180 [target ...]. Prints the
# number of inputs, and fails if an input crashes, which is then in fuzz/artifacts. Stable Rust is
# sufficient.
#
# Inputs that reach new code are kept in fuzz/grown. To commit the best of them:
#   cargo fuzz cmin --sanitizer none <target> fuzz/grown/<target> -- -use_counters=0 -max_len=400
# and then copy a few to fuzz/corpus/<target>.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-180}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(signature alertmanager spool_record timeline)

cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --debug cargo-fuzz --version 0.13.2
# `FUZZ_BUILD=--dev` builds in a third of the time, and tries fewer inputs.
read -r -a build <<<"${FUZZ_BUILD:-}"
options=(--sanitizer none "${build[@]}")

# No address sanitizer: it needs a nightly Rust and finds faults of `unsafe`, which this project
# does not use.
cargo fuzz build "${options[@]}"

crashed=()
for target in "${targets[@]}"; do
  mkdir -p "fuzz/grown/$target"
  log=$(mktemp)
  # New inputs go to the first directory; the committed one does not change.
  if ! cargo fuzz run "${options[@]}" "$target" "fuzz/grown/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -dict=fuzz/words.dict -print_final_stats=1 \
    >"$log" 2>&1; then
    crashed+=("$target")
    grep -A 5 'panicked at' "$log" || true
    tail -n 40 "$log"
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${runs:-no} inputs in $seconds s"
  rm "$log"
done
echo "crashes: ${#crashed[@]} ${crashed[*]}"
[ ${#crashed[@]} -eq 0 ]
