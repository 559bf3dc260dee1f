#!/usr/bin/env bash
# Measure on a machine with an NVIDIA GPU what gpu_checks.sh has no time for:
#   benchmarks/gpu_checks_long.sh OUT [MODEL] [CORPUS]
# Parts, in this order:
#   recipes   dapt, finetune and embed with their defaults
#   packed    the step by texts per row
#   variants  the step with one setting changed
#   finetune  fine-tuning beside PyTorch grouped by length, with and without torch.compile
#   startup   seconds to the first step of DAPT, with and without what the cache keeps
#   long_rows the step with 2,048 and 8,192 tokens per row, with remat
#   batch     128 and 256 rows of 512 tokens
#   flags     XLA's flags one by one
#   curves    DAPT in bfloat16, float8 and float32: losses of 300 steps
#   float8    a block's products in float8
#   scaling   how cost grows with rows, vocabulary and depth
# PARTS, BUDGET (default 3,600 s), WORK, MODEL, CORPUS, SMALL=1 and the summary are as in gpu_checks.sh.
# shellcheck disable=SC2086,SC2329  # sizes have no blanks; parts are called by their names
cd "$(dirname "$0")/.." || exit
out=${1:?where to write} model=${2:-} corpus=${3:-builtin:pydocs} budget=${BUDGET:-3600}
limits="recipes 300
packed 150
variants 240
finetune 600
startup 300
long_rows 400
batch 200
flags 400
curves 300
float8 120
scaling 1200"
if [ -z "${SMALL:-}" ]; then
  python -c "import jax; print(jax.__version__, jax.devices()); assert jax.default_backend() == 'gpu', 'no GPU'" || exit
  preset=base size=base vocab=50265 length=512 tokens=32768 steps=20 rows=64 long="2048 8192" batches=65536,131072 epochs=3
  loss_steps=300 dtypes=bfloat16,float8,float32
  long_remat="remat=dots; remat=blocks" sweeps=length,rows,vocab,layers case="dropout=0.1"
  packed="as it is; texts=4; texts=16; texts=32" variants=${VARIANTS:-attention=plain; dropout=0; unroll=false; masked=1.0}
  short_dapt=() short_finetune=() short_embed=()
  flags="; --xla_gpu_enable_cublaslt=true; --xla_gpu_enable_triton_gemm=false; --xla_gpu_cudnn_gemm_fusion_level=2; \
    --xla_gpu_enable_command_buffer=; --xla_gpu_enable_latency_hiding_scheduler=true"
else
  budget=${BUDGET:-7200} LIMITS=${LIMITS:-10}
  preset=mini size=tiny vocab=8000 length=64 tokens=256 steps=2 rows=4 long=256 batches=512 epochs=0.02 loss_steps=25 dtypes=bfloat16,float32
  long_remat="remat=blocks,layers=2" sweeps=rows case="layers=2,vocab=3000" flags="; --xla_cpu_prefer_vector_width=512"
  packed="layers=2; texts=4,layers=2" variants=${VARIANTS:-attention=plain,layers=2}
  short_dapt=(--config.train.steps=20 --config.train.eval_every=20 --config.train.log_every=5)
  short_finetune=(--config.train.epochs=0.05 --config.train.log_every=5) short_embed=(--config.data.max_rows=100)
fi
. benchmarks/gpu_parts.sh

step_time() { limited python benchmarks/step_time.py --presets=$preset --steps=$steps "$@"; }

run() { limited python -m jaxplm.main --config="configs/$1.py" --workdir="$work/runs/$1" "${@:2}"; }

part_recipes() { all recipe_dapt recipe_finetune recipe_embed; }
recipe_dapt() { run dapt "${short_dapt[@]}"; }
recipe_finetune() { run finetune --config.model.path="$work/runs/dapt/export" "${short_finetune[@]}"; }
recipe_embed() { run embed --config.model.path="$work/runs/dapt/export" "${short_embed[@]}"; }
part_packed() { step_time --lengths=$length --tokens=$tokens --variants="$packed"; }
part_variants() { step_time --lengths=$length --tokens=$tokens --variants="$variants"; }
part_finetune() {
  need_model && limited python benchmarks/finetune_vs_transformers.py --model="$model" --kind=classify --train=builtin:pydocs-labels \
    --metric=macro_f1 --epochs=$epochs --seeds=1
}
part_startup() {
  need_model && limited python benchmarks/startup.py --rounds=1 --set model.path="$model" data.train="$corpus" data.seq_len=$length \
    train.batch_size=$rows
}
part_long_rows() {
  local row status=0
  for row in $long; do step_time --lengths="$row" --tokens=$tokens --variants="as it is; $long_remat" || status=$?; done
  return $status
}
part_batch() { step_time --lengths=$length --tokens=$batches; }
part_flags() { step_time --lengths=$length --tokens=$tokens --xla_flags="$flags"; }
part_curves() {
  need_model && limited python benchmarks/precision_curves.py --out="$work/curves" --steps=$loss_steps --dtypes=$dtypes \
    --set=model.path="$model" --set=data.train="$corpus" --set=train.batch_size=16 --set=train.learning_rate=1e-4 --set=data.eval_rows=64
}
part_float8() { limited python benchmarks/fp8_products.py --preset=$preset --tokens=$tokens; }
part_scaling() {
  limited python benchmarks/scaling.py --out="$work/scaling" --preset=$preset --tokens=$tokens --steps=$((steps / 2)) --sweeps=$sweeps \
    --case="$case"
}
run_parts
