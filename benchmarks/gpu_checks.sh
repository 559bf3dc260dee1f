#!/usr/bin/env bash
# Check and measure jaxplm on a machine with an NVIDIA GPU, in a clone with `pip install -e '.[cuda]'` done:
#   benchmarks/gpu_checks.sh OUT [MODEL] [CORPUS]
# In order:
#   1. Flash attention is compared with plain attention (check_attention.py).
#   2. The step of the base and the large model is measured: its speed beside the rate of a matrix product, what each setting gives,
#      XLA's flags one by one, float8 products, where its time goes, how cost grows.
#   3. Every recipe runs once with its defaults, and DAPT once more in float32. The last lines print the validation losses of both,
#      which must agree within noise.
#   4. With MODEL (a checkpoint's directory, base-sized) and CORPUS: 100 steps of 64 rows x 512 tokens, of which the median real tokens
#      per second are printed, and the same work in transformers' PyTorch if `import torch` sees the GPU.
# SMALL=1 runs all of it with small sizes on any machine, to see whether the script itself works.
set -euo pipefail
out=${1:?where to write}
cd "$(dirname "$0")/.."
if [ -z "${SMALL:-}" ]; then
  python -c "import jax; print(jax.__version__, jax.devices()); assert jax.default_backend() == 'gpu', 'no GPU'"
  presets=base,large preset=base lengths=128,512 length=512 sweep=16384,65536 tokens=32768 texts=16 steps=20 rows=64
  flags="; --xla_gpu_enable_cublaslt=true; --xla_gpu_enable_triton_gemm=false; --xla_gpu_cudnn_gemm_fusion_level=2; \
    --xla_gpu_enable_command_buffer=; --xla_gpu_enable_latency_hiding_scheduler=true"
  short=()
else
  presets=mini preset=mini lengths=128 length=128 sweep=512,1024 tokens=1024 texts=4 steps=3 rows=4
  flags="; --xla_cpu_prefer_vector_width=512; --xla_cpu_enable_concurrency_optimized_scheduler=false"
  short=(--config.train.steps=20 --config.train.eval_every=20)
fi
python benchmarks/check_attention.py || [ $? = 2 ]  # 2: no flash kernel for this machine
python benchmarks/step_time.py --presets=$presets --lengths=$lengths --tokens=$sweep --steps=$steps
# Packed short documents must be within 5 % of full rows; the other lines show what each setting gives.
python benchmarks/step_time.py --presets=$preset --lengths=$length --tokens=$tokens --steps=$steps --variants="as it is; texts=$texts; \
  attention=plain; unroll=false; masked=1.0; dropout=0; remat=dots; remat=blocks; dtype=float32"
python benchmarks/step_time.py --presets=$preset --lengths=$length --tokens=$tokens --steps=$steps --xla_flags="$flags"
python benchmarks/fp8_products.py --preset=$preset --tokens=$tokens
python benchmarks/profile_step.py --preset=$preset --length=$length --tokens=$tokens
python benchmarks/scaling.py --out="$out/scaling" --preset=$preset --tokens=$tokens --steps=$((steps / 2 + 1))
run() { name=$1; shift; echo "== $name"; python -m jaxplm.main --workdir="$out/$name" "$@" | tail -n 12; }
run dapt --config=configs/dapt.py "${short[@]}"
run dapt-float32 --config=configs/dapt.py --config.compute.dtype=float32 "${short[@]}"
run tapt --config=configs/tapt.py --config.train.steps=200 "${short[@]}"
run finetune --config=configs/finetune.py --config.model.path="$out/dapt/export"
run feature-extraction --config=configs/feature_extraction.py --config.model.path="$out/dapt/export"
run embed --config=configs/embed.py --config.model.path="$out/dapt/export"
if [ $# -ge 3 ]; then
  run long-rows --config=configs/dapt.py --config.model.path="$2" --config.data.train="$3" --config.data.seq_len=$length \
    --config.train.batch_size=$rows --config.train.steps=100 --config.train.eval_every=100 --config.train.learning_rate=1e-4 "${short[@]}"
  if [ -n "${SMALL:-}" ] || python -c "import torch; assert torch.cuda.is_available()" 2> /dev/null; then
    python benchmarks/vs_transformers.py --model="$2" --corpus="$3" --rows=$rows --length=$length --steps=$steps \
      --only="jaxplm,torch float32,torch bfloat16"
  fi
fi
python - "$out" <<'END'
import json, statistics, sys
from pathlib import Path
def records(name, split):
    path = Path(sys.argv[1], name, "metrics.jsonl")
    return [record for record in map(json.loads, path.read_text().splitlines()) if record["split"] == split] if path.exists() else []
for name in ("dapt", "dapt-float32"):
    print(name, "validation loss:", [round(record["loss"], 4) for record in records(name, "validation")])
if speeds := [record["tokens_per_second"] for record in records("long-rows", "train")[2:]]:
    print("long-rows: median", round(statistics.median(speeds)), "real tokens/s")
END
