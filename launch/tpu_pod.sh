#!/usr/bin/env bash
# Run on all hosts of a TPU slice: create it, copy this checkout, install, start, follow the log, collect, delete it.
#
#   TPU=name ZONE=zone TYPE=v5litepod-16 SPOT=1 launch/tpu_pod.sh --config=configs/dapt.py --workdir=gs://bucket/run
#
#   TPU, ZONE  name and zone of the slice
#   TYPE       accelerator type. Given: the slice is created, recreated after a pre-emption, and deleted at the end.
#              Not given: the slice must exist, and it stays.
#   VERSION    runtime version of a new slice (v2-alpha-tpuv5-lite)
#   SPOT=1     spot capacity: cheaper, and can be pre-empted at any time
#   CREATE     further flags for creating the slice, such as --metadata-from-file=startup-script=mount.sh
#   KEEP=1     keep the slice at the end
#   COLLECT    local directory for logs and results (collected/$TPU)
#
# The exit status is that of the first worker that failed. Ctrl-C ends following, not the run: the same command follows it
# again.
# The workdir must be one that all hosts see, and that outlives a slice that is recreated: a bucket or a mounted disk.
set -uo pipefail
say() { echo "launch/tpu_pod.sh: $*" >&2; }
if [[ -z ${TPU:-} || -z ${ZONE:-} || $# -eq 0 ]]; then
  echo "usage: TPU=name ZONE=zone [TYPE=type] [SPOT=1] [KEEP=1] launch/tpu_pod.sh --config=... --workdir=..." >&2
  exit 2
fi
type=${TYPE:-}
version=${VERSION:-v2-alpha-tpuv5-lite}
read -ra create_flags <<<"${CREATE:-}"
collect=${COLLECT:-collected/$TPU}
pause=${PAUSE:-30}       # seconds between two questions about the slice
patience=${PATIENCE:-10} # questions without an answer, or lost connections, in a row

workdir=
for ((i = 1; i <= $#; i++)); do
  next=$((i + 1))
  case ${!i} in
    --workdir=*) workdir=${!i#*=} ;;
    --workdir) workdir=${!next:-} ;;
  esac
done
if [[ -z $workdir ]]; then
  say "--workdir is missing: a directory that all hosts see"
  exit 2
elif [[ -n ${SPOT:-} && $workdir != *://* && $workdir != /* ]]; then
  say "SPOT=1 with --workdir=$workdir: a pre-emption takes the slice's own disk; give a bucket (gs://…) or a disk that each" \
    "slice mounts (/mnt/…)"
  exit 2
fi

tpu() { gcloud --quiet compute tpus tpu-vm "$1" "$TPU" --zone="$ZONE" "${@:2}" </dev/null; }
every() { tpu ssh --worker=all --command="$1"; }
copy() { gcloud --quiet compute tpus tpu-vm scp "${@:2}" --zone="$ZONE" --worker="$1" </dev/null; }

scratch=$(mktemp -d)
# READY, MISSING, another state by its name, or UNKNOWN where the question was not answered.
state() {
  if tpu describe --format='value(state)' 2>"$scratch/why"; then return; fi
  if grep -q NOT_FOUND "$scratch/why"; then echo MISSING; else cat "$scratch/why" >&2 && echo UNKNOWN; fi
}

# shellcheck disable=SC2329  # called by the trap
finish() {
  if [[ -n $type && -z ${KEEP:-} && $(state) != MISSING ]]; then
    tpu delete || say "$TPU in $ZONE could not be deleted, and costs money until it is"
  fi
  rm -rf "$scratch"
}

following=
# shellcheck disable=SC2329  # called by the traps
leave() {
  trap - EXIT
  if [[ -n $following ]]; then kill -TERM -- "-$following"; fi
  say "$TPU stays as it is, and a run on it continues: the same command follows it again"
  rm -rf "$scratch"
  exit "$1"
}

create() {
  local failed=0
  tpu create --accelerator-type="$type" --version="$version" ${SPOT:+--spot} ${create_flags[@]+"${create_flags[@]}"} \
    2>"$scratch/why" || failed=$?
  cat "$scratch/why" >&2
  if ((failed == 0)); then return; fi
  if ! grep -qi capacity "$scratch/why"; then exit "$failed"; fi # only capacity comes by waiting
  say "no capacity in $ZONE: the next try is in $pause s"
  sleep "$pause"
}

# Return when the slice is there.
ensure() {
  local silent=0 now
  while now=$(state) && [[ $now != READY ]]; do
    if [[ $now == UNKNOWN ]] && ((++silent >= patience)); then
      say "the state of $TPU cannot be read"
      exit 1
    fi
    case $now in
      UNKNOWN | CREATING | STARTING | RESTARTING | REPAIRING | STOPPING | DELETING) sleep "$pause" ;;
      *)
        if [[ -z $type ]]; then
          say "$TPU in $ZONE is $now; give TYPE to create it"
          exit 2
        fi
        if [[ $now == MISSING ]]; then create; else tpu delete || exit; fi
        ;;
    esac
  done
}

# The flags are written to a file, because a command line would be read by two shells on its way to the run.
{
  echo 'cd ~/jaxplm || exit'
  echo "exec env JAXPLM_DISTRIBUTED=auto .venv/bin/python -m jaxplm.main $(printf '%q ' "$@")"
} >"$scratch/command.sh"
git archive --format=tar.gz HEAD >"$scratch/jaxplm.tar.gz" || exit

# What the shells of the workers read. The Python of TPU images is older than 3.11: uv brings one.
# shellcheck disable=SC2016
{
  running='test -e jaxplm/pid && kill -0 "$(cat jaxplm/pid)" 2>/dev/null'
  install='mkdir -p jaxplm && tar xzf jaxplm.tar.gz -C jaxplm && mv command.sh jaxplm/ && cd jaxplm &&
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv &&
    python3 -m uv venv -q --clear --python=3.12 .venv &&
    python3 -m uv pip install -q --python=.venv/bin/python -e ".[tpu]"'
  start="if $running; then echo 'a process of a run is still here' >&2; exit 1; fi; "'cd jaxplm && rm -f status && {
    setsid nohup bash -c "bash command.sh >run.log 2>&1; echo \$? >status" </dev/null >/dev/null 2>&1 & echo $! >pid; }'
  follow='cd jaxplm && tail --pid="$(cat pid)" -n +1 -F run.log 2>/dev/null; exit "$(cat status || echo 255)"'
}

mkdir -p "$collect" || exit
trap finish EXIT
trap 'leave 130' INT
trap 'leave 143' TERM HUP

started=
lost=0
for ((attempt = 1; ; attempt++)); do
  ensure
  status=0
  if [[ -z $started ]] && every "$running" 2>/dev/null; then
    say "a run is on $TPU already: its log follows"
    started=1
  elif [[ -z $started ]]; then
    copy all "$scratch/jaxplm.tar.gz" "$scratch/command.sh" "$TPU:" && every "$install" && every "$start" || status=$?
    if ((status == 0)); then started=1; fi
  fi
  if [[ -n $started ]]; then
    set -m # a process group of its own, which `leave` ends
    { every "$follow" | tee "$collect/run-$attempt.log"; } &
    set +m
    following=$!
    wait "$following" || status=$?
    following=
  fi
  if ((status == 0)); then break; fi
  # A pre-emption looks like a lost connection (255), a run that was stopped (143), or a worker that misses another one.
  sleep "$pause"
  now=$(state)
  if [[ -n $type && $now != READY && $now != UNKNOWN ]]; then
    say "$TPU is $now (status $status): it is recreated, and the run resumes from its last checkpoint"
    started=
    lost=0
  elif ((status == 255 && ++lost < patience)); then
    say "the connection to $TPU is lost: trying again"
  else
    break
  fi
done

# Results without checkpoints. What is in a bucket of another kind stays there.
if [[ $workdir == gs://* ]]; then
  gcloud --quiet storage rsync --recursive --exclude='(^|.*/)checkpoints/.*' "$workdir" "$collect" </dev/null ||
    say "$workdir was not collected"
elif [[ $workdir != *://* ]]; then
  pack="cd jaxplm && tar czf ~/results.tar.gz --exclude=checkpoints -C $(printf %q "$workdir") ."
  { tpu ssh --worker=0 --command="$pack" && copy 0 "$TPU:results.tar.gz" "$collect/" && tar xzf "$collect/results.tar.gz" -C "$collect"; } ||
    say "$workdir was not collected"
fi
if ((status != 0)); then say "the run on $TPU ended with status $status; its log is in $collect"; fi
exit "$status"
