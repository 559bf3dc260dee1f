#!/usr/bin/env bash
# What is to be looked at on a machine with an NVIDIA GPU, in a clone with `pip install -e '.[cuda]'` done:
#   benchmarks/gpu_checks.sh OUT [MODEL] [CORPUS]
# First flash attention against plain attention. Then every recipe runs once as it comes, and DAPT once more in float32: the two loss curves must agree within noise (the
# last line prints both). With MODEL (a checkpoint's directory, base-sized) and CORPUS, 100 steps of 64 rows x 512 tokens
# follow, and their median real tokens a second.
set -euo pipefail
out=${1:?where to write}
cd "$(dirname "$0")/.."
python -c "import jax; print(jax.__version__, jax.devices()); assert jax.default_backend() == 'gpu', 'no GPU'"
python benchmarks/check_attention.py || [ $? = 2 ]  # 2: no flash kernel for this GPU
run() { name=$1; shift; echo "== $name"; python -m jaxplm.main --workdir="$out/$name" "$@" | tail -n 12; }
run dapt --config=configs/dapt.py
run dapt-float32 --config=configs/dapt.py --config.compute.dtype=float32
run tapt --config=configs/tapt.py --config.train.steps=200
run finetune --config=configs/finetune.py --config.model.path="$out/dapt/export"
run feature-extraction --config=configs/feature_extraction.py --config.model.path="$out/dapt/export"
run embed --config=configs/embed.py --config.model.path="$out/dapt/export"
if [ $# -ge 3 ]; then
  run long-rows --config=configs/dapt.py --config.model.path="$2" --config.data.train="$3" --config.data.seq_len=512 \
    --config.train.batch_size=64 --config.train.steps=100 --config.train.eval_every=100 --config.train.learning_rate=1e-4
fi
python - "$out" <<'EOF'
import json, statistics, sys
from pathlib import Path
def rows(name, split):
    path = Path(sys.argv[1], name, "metrics.jsonl")
    return [row for row in map(json.loads, path.read_text().splitlines()) if row["split"] == split] if path.exists() else []
for name in ("dapt", "dapt-float32"):
    print(name, "validation loss:", [round(row["loss"], 4) for row in rows(name, "validation")])
if speeds := [row["tokens_per_second"] for row in rows("long-rows", "train")[2:]]:
    print("long-rows: median", round(statistics.median(speeds)), "real tokens/s")
EOF
