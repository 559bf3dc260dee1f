#!/usr/bin/env bash
# Run on a Kubernetes cluster with JobSet: fill a file of this directory in, apply it, follow the log, delete it.
#
#   IMAGE=region-docker.pkg.dev/project/repository/jaxplm:tpu \
#     launch/gke_jobset.sh --config=dapt --workdir=/mnt/shared/runs/dapt
#
#   IMAGE   from launch/Dockerfile, with DEVICE=tpu or DEVICE=cuda
#   FILE    launch/gke_jobset.yaml (TPUs; the default) or launch/gke_jobset_gpu.yaml: number and kind of nodes
#   NAME    of the JobSet (jaxplm)
#   KEEP=1  keep the JobSet and its pods at the end
#
# Lost pods are restarted by JobSet and resume. The exit status is that of the first pod that failed.
# Ctrl-C ends following only.
set -uo pipefail
say() { echo "launch/gke_jobset.sh: $*" >&2; }
if [[ -z ${IMAGE:-} || $# -eq 0 ]]; then
  echo "usage: IMAGE=image [FILE=file] [NAME=name] [KEEP=1] launch/gke_jobset.sh --config=... [flags]" >&2
  exit 2
fi
name=${NAME:-jaxplm}
file=${FILE:-$(dirname "$0")/gke_jobset.yaml}
pause=${PAUSE:-10}       # seconds between two questions
patience=${PATIENCE:-30} # questions in a row without an answer
pods="jobset.sigs.k8s.io/jobset-name=$name"

# JSON is YAML. Kubernetes replaces $(NAME) in arguments, and $$ by one dollar.
"${PYTHON:-python}" - "$file" "$name" "$IMAGE" "$@" <<'PYTHON' | kubectl apply --filename=- || exit
import json, sys, yaml
file, name, image, *flags = sys.argv[1:]
with open(file) as opened:
    jobset = yaml.safe_load(opened)
jobset["metadata"]["name"] = name
job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
container = job["template"]["spec"]["containers"][0]
container |= {"image": image, "args": [flag.replace("$", "$$") for flag in flags]}
explicit = {"JAX_COORDINATOR_ADDRESS": f"{name}-host-0-0.{name}:1234", "JAX_NUM_PROCESSES": str(job["completions"])}
for variable in container.get("env", []):
    if variable["name"] in explicit:
        variable["value"] = explicit[variable["name"]]
json.dump(jobset, sys.stdout)
PYTHON

trap 'say "JobSet $name continues: the same command follows it again"; exit 130' INT
silent=0
followed=
while ((silent < patience)); do
  if ! end=$(kubectl get jobset "$name" --output=jsonpath='{.status.terminalState}'); then
    silent=$((silent + 1))
    sleep "$pause"
    continue
  fi
  silent=0
  # The newest of the first pods: after a restart it has another name. A log that was cut off is followed further.
  read -r pod phase <<<"$(kubectl get pods --selector="$pods,batch.kubernetes.io/job-completion-index=0" \
    --sort-by=.metadata.creationTimestamp \
    --output=jsonpath='{range .items[*]}{.metadata.name} {.status.phase}{"\n"}{end}' | tail -n 1)"
  if [[ -n $pod && $phase != Pending && $pod != "$followed" ]]; then
    kubectl logs --follow "$pod" && followed=$pod
  elif [[ $phase == Running ]]; then
    kubectl logs --follow --since="${pause}s" "$pod"
  fi
  if [[ -n $end ]]; then break; fi
  sleep "$pause"
done
if ((silent >= patience)); then
  say "the state of JobSet $name cannot be read"
  exit 1
fi

status=0
if [[ $end != Completed ]]; then
  codes=$(kubectl get pods --selector="$pods" \
    --output=jsonpath='{.items[*].status.containerStatuses[*].state.terminated.exitCode}')
  status=$(grep -oE '\b[1-9][0-9]*\b' <<<"$codes" | head -n 1)
  say "JobSet $name is $end: status ${status:=1}"
fi
if [[ -z ${KEEP:-} ]]; then kubectl delete jobset "$name"; fi
exit "$status"
