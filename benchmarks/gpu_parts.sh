#!/usr/bin/env bash
# What gpu_checks.sh and gpu_checks_long.sh share: parts with time limits. They source it after setting `out`, `budget` (seconds),
# `model`, `size` and `vocab`. Each part is a function part_NAME, which prefixes its commands with `limited`. Its output goes to
# OUT/logs/NAME.log, its status and seconds to OUT/parts.tsv. Workdirs, which are large, are in `work`, a new folder; the model
# and compiled steps are in `kept`, where another call may find them.
# shellcheck disable=SC2154  # the sourcing script sets them
set -uo pipefail
mkdir -p "$out/logs"
out=$(realpath "$out")
work=$(mktemp -d)
kept=${WORK:-$work}
mkdir -p "$kept"
export BENCHMARK_RECORDS="$out/results.jsonl"
# Parts that measure the same step compile it once.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$kept/compiled}" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
deadline=$budget  # of SECONDS, which count from the script's start
least=${LEAST:-10}  # seconds that a command needs to be worth starting
failed=0

# Run a command until the end of the part; status 124 where the time ends first, also where none is left to begin with.
# SIGTERM lets a benchmark append what it has measured.
limited() {
  local left=$((part_end - SECONDS))
  if [ "$left" -lt "$least" ]; then
    echo "left out, no time: $*"
    return 124
  fi
  echo "+ $*"
  timeout -k 20 "$left" "$@"
}

# Print what an exit status says about a part.
state_of() {
  case $1 in
    0) echo "done" ;;
    124 | 137) echo "out of time" ;;
    *) echo "FAILED ($1)" ;;
  esac
}

# Run parts beside each other, until the end of the part that calls this; return the status of the first that failed. For what is not
# timed, or not for comparison. They share the GPU's memory, so JAX takes what it needs and not three quarters at once.
beside() {
  local name first=0 status children=()
  export XLA_PYTHON_CLIENT_PREALLOCATE=false
  for name in "$@"; do
    (
      began=$SECONDS
      "part_$name" > "$out/logs/$name.log" 2>&1
      status=$?
      printf '%s\t%s\t%s\n' "$name" "$(state_of $status)" "$((SECONDS - began))" >> "$out/parts.tsv"
      [ $status != 0 ] && echo "-- $name: $(state_of $status)" && tail -n 5 "$out/logs/$name.log"
      exit $status
    ) &
    children+=($!)
  done
  for name in "${children[@]}"; do
    wait "$name"
    status=$?
    [ "$first" != 0 ] || first=$status
  done
  unset XLA_PYTHON_CLIENT_PREALLOCATE
  return "$first"
}

# Run part NAME for at most SECONDS. The parts after it run whatever comes of it.
run_part() {
  local name=$1 seconds=$2 began=$SECONDS status state
  part_end=$((SECONDS + seconds * ${LIMITS:-1}))
  [ "$part_end" -le "$deadline" ] || part_end=$deadline
  if [ $((part_end - SECONDS)) -lt "$least" ]; then
    state="left out, no time"
  else
    echo "== $name (at most $((part_end - SECONDS)) s)"
    "part_$name" > "$out/logs/$name.log" 2>&1
    status=$?
    state=$(state_of $status)
    case $state in FAILED*) failed=1 && tail -n 15 "$out/logs/$name.log" ;; esac
  fi
  echo "== $name: $state, $((SECONDS - began)) s"
  printf '%s\t%s\t%s\n' "$name" "$state" "$((SECONDS - began))" >> "$out/parts.tsv"
}

# Run every command; return the status of the first that failed, so that one that fails does not take the others with it.
all() {
  local first=0 status
  while [ $# -gt 0 ]; do
    "$1"
    status=$?
    [ "$first" != 0 ] || first=$status
    shift
  done
  return "$first"
}

# Write the model if none was given.
need_model() {
  model=${model:-$kept/model}
  [[ $model == builtin:* || -e $model ]] || limited python benchmarks/random_model.py --out="$model" --size="$size" --vocab="$vocab"
}

# Check the names in PARTS (else `default_parts`, else all), run the parts in the order of `limits` ("NAME SECONDS" lines), and print the summary last.
run_parts() {
  local name seconds wanted=${PARTS:-${default_parts:-$(cut -d' ' -f1 <<< "$limits")}}
  for name in ${wanted//,/ }; do
    if ! grep -q "^$name " <<< "$limits"; then
      echo "PARTS=$PARTS: no part $name; there are: $(cut -d' ' -f1 <<< "$limits" | tr '\n' ' ')" >&2
      exit 2
    fi
  done
  while read -r name seconds; do
    case " ${wanted//[,$'\n']/ } " in *" $name "*) run_part "$name" "$seconds" < /dev/null ;; esac
  done <<< "$limits"
  (cd "$work" && find . -path ./compiled -prune -o \( -name metrics.jsonl -o -name losses.json -o -name '*.png' \) -exec cp --parents -t "$out" {} +)
  python benchmarks/gpu_summary.py "$out" | tee "$out/summary.txt"
  exit "$failed"
}
