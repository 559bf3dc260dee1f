#!/usr/bin/env bash
# Check and measure jaxplm on a machine with an NVIDIA GPU in seven minutes, in a clone with `pip install -e '.[cuda]'` done:
#   benchmarks/gpu_checks.sh OUT [MODEL] [CORPUS]
# Parts, in this order, each with a time limit; a part that fails or takes too long does not stop the others:
#   together  what is not timed, beside each other: checks, losses, the cold start of DAPT, PyTorch's compiled kernels for later parts
#   steps     the step of the base and the large model by row length, before (plain) and after, in float8, and long rows with remat
#   finetune  fine-tuning beside PyTorch grouped by length, with and without torch.compile
#   embed     embeddings beside PyTorch grouped by length, with and without torch.compile
#   warm      seconds to the first step of DAPT with what the cold start has kept
#   torch     pre-training beside PyTorch, with and without torch.compile
#   profile   where the time of the step goes, kernel by kernel
# PARTS=steps,torch runs these alone; there are also the parts of `together`: checks (attention and our own kernels beside the plain
# form), losses (300 steps with our kernels, plain, and in float8), cold, compiled.
# BUDGET=430 is the time of all of them in seconds; what does not fit is left out and named.
# MODEL and CORPUS are paths or built-ins. Without MODEL, a base-sized model with random weights is written (random_model.py).
# WORK=DIR keeps that model and compiled steps for the next call.
# The summary comes last and is in OUT/summary.txt; OUT/results.jsonl has the figures, OUT/logs what each part printed.
# SMALL=1 runs everything with small sizes on any machine, to see whether the script itself works.
# shellcheck disable=SC2086,SC2329  # sizes have no blanks; parts are called by their names
cd "$(dirname "$0")/.." || exit
out=${1:?where to write} model=${2:-} corpus=${3:-builtin:pydocs} budget=${BUDGET:-430}
default_parts="together steps finetune embed warm torch profile"
limits="together 110
checks 90
losses 120
cold 90
compiled 120
steps 140
finetune 130
embed 70
warm 40
torch 90
profile 60"
if [ -z "${SMALL:-}" ]; then
  export JAX_PLATFORMS=cuda,cpu  # without a GPU, everything fails at once
  preset=base size=base vocab=50265 length=512 tokens=32768 steps=20 rows=64 texts=8192 epochs=1 few_epochs=0.06 compile_limit=90
  before="kernels=plain,attention=plain" short="rows=256,length=128" large="preset=large"
  variants=${VARIANTS:-"as it is; $before; dtype=float8; $large; $large,$before; $short; $short,$before; $large,$short; \
    $large,$short,$before; kernels=plain; texts=16; rows=16,length=2048,remat=dots; rows=4,length=8192,remat=blocks"}
  loss_steps=300 loss_rows=16 loss_case="" curves="as it is; $before; dtype=float8" torch_only="jaxplm,torch bfloat16"
  compiled_torch="torch bfloat16, torch.compile" compiled_finetune=torch-bfloat16-grouped-compiled
else
  budget=${BUDGET:-7200} LIMITS=${LIMITS:-10}
  preset=mini size=tiny vocab=8000 length=64 tokens=256 steps=2 rows=4 texts=64 epochs=0.02 few_epochs=0.01 compile_limit=600
  variants=${VARIANTS:-layers=2; attention=plain,layers=2; layers=2,remat=blocks}
  loss_steps=25 loss_rows=4 loss_case="layers=2" curves="as it is; kernels=plain,attention=plain" torch_only="jaxplm,torch float32"
  compiled_torch="torch float32, tuned malloc" compiled_finetune=torch-float32-grouped
fi
. benchmarks/gpu_parts.sh
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$kept/inductor}"

part_together() { beside checks losses with_model; }
part_with_model() { need_model && beside cold compiled; }
part_checks() {
  limited python benchmarks/check_attention.py --quick || { [ $? = 2 ] && [ -n "${SMALL:-}" ]; }  # 2: no flash kernel here
}
part_losses() {
  limited python benchmarks/loss_curves.py --out="$work/losses" --preset=$preset --rows=$loss_rows --length=$length --steps=$loss_steps \
    --case="$loss_case" --curves="$curves" --corpus="$corpus"
}
part_cold() { rm -rf "$kept/started" && start cold; }
part_warm() { start warm; }
start() {
  need_model && limited python benchmarks/startup.py --rounds=1 --kinds="$1" --cache="$kept/started" --set model.path="$model" \
    data.train="$corpus" data.seq_len=$length train.batch_size=$rows
}
# Fills torch.compile's cache on disk, so that the later parts do not wait for its compilers. Nothing of this is recorded.
part_compiled() {
  local status
  need_model && BENCHMARK_RECORDS="$work/not_kept.jsonl" beside compiled_pretraining compiled_embeddings compiled_finetuning
  status=$?
  find "$TORCHINDUCTOR_CACHE_DIR" -name '*.best_config' -delete  # they were chosen while other work was on the GPU
  return $status
}
part_compiled_pretraining() { pretraining --steps=2 --only="$compiled_torch"; }
part_compiled_embeddings() { embeddings --texts=600 --only="$compiled_torch"; }
part_compiled_finetuning() { finetuning --epochs=$few_epochs --contestants=$compiled_finetune; }

part_steps() {
  limited python benchmarks/step_time.py --presets=$preset --lengths=$length --tokens=$tokens --steps=$steps --variants="$variants" \
    --together --compile_limit=$((${LIMITS:-1} * 85))
}
part_finetune() { need_model && finetuning --epochs=$epochs; }
part_embed() { need_model && embeddings --texts=$texts --only="$torch_only"; }
part_torch() { need_model && pretraining --steps=$steps --only="$torch_only"; }
part_profile() { limited python benchmarks/profile_step.py --preset=$preset --length=$length --tokens=$tokens --steps=5; }

pretraining() {
  limited python benchmarks/vs_transformers.py --model="$model" --corpus="$corpus" --rows=$rows --length=$length --rounds=1 \
    --compile_limit=$compile_limit "$@"
}
embeddings() {
  limited python benchmarks/embed_rate.py --model="$model" --corpus="$corpus" --rounds=1 --compile_limit=$compile_limit "$@"
}
finetuning() {
  limited python benchmarks/finetune_vs_transformers.py --model="$model" --kind=classify --train=builtin:pydocs-labels \
    --metric=macro_f1 --seeds=1 --compile_limit=$compile_limit "$@"
}
run_parts
