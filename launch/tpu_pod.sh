#!/usr/bin/env bash
# Run on all hosts of a TPU pod slice:
#   TPU=my-slice ZONE=us-central2-b launch/tpu_pod.sh --config=configs/dapt.py --workdir=/mnt/shared/runs/dapt
# The workdir must be one that all hosts see (NFS, Filestore).
# The script copies this checkout to every worker, installs it with the tpu extra, and starts the same command on each. JAX finds the
# other hosts by itself.
set -euo pipefail
: "${TPU:?name of the TPU VM}" "${ZONE:?its zone}"
remote=${REMOTE_DIR:-jaxplm}
[[ $# -gt 0 ]] || { echo "usage: TPU=name ZONE=zone launch/tpu_pod.sh --config=... [flags]" >&2; exit 2; }

every() { gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz HEAD > "$archive"
gcloud compute tpus tpu-vm scp "$archive" "$TPU:jaxplm.tar.gz" --zone="$ZONE" --worker=all
every "mkdir -p $remote && tar xzf jaxplm.tar.gz -C $remote && cd $remote && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
flags=$(printf '%q ' "$@")
every "cd $remote && JAXPLM_DISTRIBUTED=auto .venv/bin/python -m jaxplm.main $flags"
