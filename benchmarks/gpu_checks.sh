#!/usr/bin/env bash
# Check and measure jaxplm on a machine with an NVIDIA GPU in ten minutes, in a clone with `pip install -e '.[cuda]'` done:
#   benchmarks/gpu_checks.sh OUT [MODEL] [CORPUS]
# Parts, in this order, each with a time limit; a part that fails or takes too long does not stop the others:
#   checks    attention and our own kernels are compared with the plain form
#   steps     the step of the base and the large model, rows of 512 and 128 tokens
#   variants  the step with one setting changed
#   profile   where the time of the step goes, kernel by kernel
#   torch     pre-training and embeddings beside PyTorch, with and without torch.compile
#   packed    the step by texts per row
#   recipes   dapt, finetune and embed with their defaults
#   losses    300 steps with and without our kernels: the same loss?
# PARTS=steps,torch runs these alone. BUDGET=570 is the time of all of them in seconds; what does not fit is left out and named.
# MODEL and CORPUS are paths or built-ins. Without MODEL, a base-sized model with random weights is written (random_model.py).
# WORK=DIR keeps that model and compiled steps for the next call.
# The summary comes last and is in OUT/summary.txt; OUT/results.jsonl has the figures, OUT/logs what each part printed.
# SMALL=1 runs everything with small sizes on any machine, to see whether the script itself works.
# shellcheck disable=SC2086,SC2329  # sizes have no blanks; parts are called by their names
cd "$(dirname "$0")/.." || exit
out=${1:?where to write} model=${2:-} corpus=${3:-builtin:pydocs} budget=${BUDGET:-570}
limits="checks 120
steps 210
variants 180
profile 75
torch 240
packed 90
recipes 150
losses 150"
if [ -z "${SMALL:-}" ]; then
  python -c "import jax; print(jax.__version__, jax.devices()); assert jax.default_backend() == 'gpu', 'no GPU'" || exit
  presets="base large" preset=base size=base vocab=50265 lengths=512,128 length=512 tokens=32768 steps=20 rows=64 texts=0
  variants=${VARIANTS:-as it is; dtype=float8; kernels=plain; attention=plain; dropout=0; unroll=false} packed="as it is; texts=4; texts=16; texts=32"
  loss_steps=300 loss_rows=16 torch_only="jaxplm,torch bfloat16" short_dapt=() short_finetune=() short_embed=()
else
  budget=${BUDGET:-7200} LIMITS=${LIMITS:-10}
  presets=mini preset=mini size=tiny vocab=8000 lengths=64 length=64 tokens=256 steps=2 rows=4 texts=64
  variants=${VARIANTS:-layers=2; attention=plain,layers=2} packed="layers=2; texts=4,layers=2"
  loss_steps=25 loss_rows=4 torch_only="jaxplm,torch float32"
  short_dapt=(--config.train.steps=20 --config.train.eval_every=20 --config.train.log_every=5)
  short_finetune=(--config.train.epochs=0.05 --config.train.log_every=5) short_embed=(--config.data.max_rows=100)
fi
. benchmarks/gpu_parts.sh

run() { limited python -m jaxplm.main --config="configs/$1.py" --workdir="$work/runs/$1" "${@:2}"; }
step_time() { limited python benchmarks/step_time.py --tokens=$tokens --steps=$steps "$@"; }

part_checks() {
  limited python benchmarks/check_attention.py || { [ $? = 2 ] && [ -n "${SMALL:-}" ]; }  # 2: no flash kernel for this machine
}
part_steps() {
  local preset status=0
  for preset in $presets; do step_time --presets="$preset" --lengths=$lengths || status=$?; done
  return $status
}
part_variants() { step_time --presets=$preset --lengths=$length --variants="$variants"; }
part_profile() { limited python benchmarks/profile_step.py --preset=$preset --length=$length --tokens=$tokens --steps=5; }
part_torch() { need_model && all torch_pretraining torch_embeddings; }
torch_pretraining() {
  limited python benchmarks/vs_transformers.py --model="$model" --corpus="$corpus" --rows=$rows --length=$length --steps=$steps \
    --rounds=1 --only="$torch_only"
}
torch_embeddings() {
  limited python benchmarks/embed_rate.py --model="$model" --corpus="$corpus" --texts=$texts --rounds=1 --only="$torch_only"
}
part_packed() { step_time --presets=$preset --lengths=$length --variants="$packed"; }
part_recipes() { all recipe_dapt recipe_finetune recipe_embed; }
recipe_dapt() { run dapt "${short_dapt[@]}"; }
recipe_finetune() { run finetune --config.model.path="$work/runs/dapt/export" "${short_finetune[@]}"; }
recipe_embed() { run embed --config.model.path="$work/runs/dapt/export" "${short_embed[@]}"; }
part_losses() {
  need_model && limited python benchmarks/precision_curves.py --out="$work/losses" --steps=$loss_steps --set=model.path="$model" \
    --set=data.train="$corpus" --set=data.seq_len=$length --set=train.batch_size=$loss_rows --set=train.learning_rate=1e-4 \
    --set=data.eval_rows=64 --against="${LOSSES_AGAINST:-compute.kernels=plain,compute.attention=plain}"
}
run_parts
