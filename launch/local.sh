#!/usr/bin/env bash
# Run N processes on this machine as one run: launch/local.sh N [--config=... and every other flag of jaxplm.main]
# This serves to try out what several hosts do. On one machine, one process is faster.
set -u
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh N --config=configs/dapt.py [--workdir=DIR] [--config.<field>=<value> ...]" >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-python}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# The coordinator answers anyone who reaches it: here nobody from outside.
export JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_COORDINATOR_BIND_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES=$count

# A mistake is the same in all processes, and is said once. Signals are for the processes: this filter ends after them.
folder=$(mktemp -d)
mkfifo "$folder/errors"
(trap '' INT TERM; exec awk '!/^jaxplm: / || !seen[$0]++ { print; fflush() }' <"$folder/errors" >&2) &
filter=$!
exec 3>"$folder/errors"
rm -r "$folder"

pids=()
for ((i = 0; i < count; i++)); do
  JAX_PROCESS_ID=$i "$python" -m jaxplm.main "$@" 2>&3 3>&- &
  pids+=($!)
done
# Bash's own lines about processes that were killed would stand between theirs; what this script says goes to 3.
exec 2>/dev/null
# Ctrl-C reaches all of them by itself. SIGTERM is passed on, so that they save and stop together.
trap 'kill -TERM "${pids[@]}"' TERM
trap ':' INT

status=0
deadline=
killed=0
while ((${#pids[@]} > 0)); do
  sleep 0.2
  alive=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid"; then
      alive+=("$pid")
      continue
    fi
    wait "$pid"
    code=$?
    # One that a signal has ended is the cause where another one has failed at the same moment.
    if ((code > 128 && code != 130 && code != 143 && killed == 0)); then
      killed=1
      status=$code
      echo "launch/local.sh: process $pid was ended by signal $((code - 128)); the same command resumes from the last checkpoint" >&3
    fi
    if ((code != 0 && status == 0)); then status=$code; fi
    # The first failure ends the others, which would wait for it forever.
    if ((code != 0 && code != 130 && code != 143)) && [[ -z $deadline ]]; then
      kill -TERM "${pids[@]}"
      deadline=$((SECONDS + 10))
    fi
  done
  pids=("${alive[@]+"${alive[@]}"}")
  # A process inside a collective operation with one that has ended cannot react to SIGTERM.
  if [[ -n $deadline ]] && ((SECONDS >= deadline)); then
    killed=1 # by this script
    kill -KILL "${pids[@]}"
  fi
done
exec 3>&-
wait "$filter"
exit "$status"
