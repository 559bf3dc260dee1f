#!/usr/bin/env bash
# Compare the ways to adapt a small BERT on three real tasks; ADAPTATION.md has what it found.
#   benchmarks/adaptation.sh DATA MODEL OUT [PARALLEL]
# DATA has acl_papers, medquad and general_novels (.txt.gz or .txt.zst) in corpora/, and citation_intent, csabstruct and chemprot in
# tasks/, each with train, dev and test. MODEL is a directory. OUT gets a comparison per task; PARALLEL stages of each run at a time.
# STEPS=2000 is the length of DAPT, in steps of 256 rows of 128 tokens. The same command resumes.
set -uo pipefail
data=$(realpath "${1:?DATA}") model=$(realpath "${2:?MODEL}") out=${3:?OUT} parallel=${4:-1}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.." || exit
corpus() { find "$data/corpora" -name "$1.txt*" | head -n 1; }

# compare TASK CORPUS METRIC SEEDS EPOCHS KNN: all ways on one task.
compare() {
  python -m jaxplm.main --config=configs/adapt.py --workdir="$out/$1" --config.model.path="$model" \
    --config.data.corpus="$(corpus "$2")" --config.adapt.off_domain="$(corpus general_novels)" \
    --config.data.train="$data/tasks/$1/train.jsonl" --config.data.validation="$data/tasks/$1/dev.jsonl" \
    --config.data.test="$data/tasks/$1/test.jsonl" --config.train.metric="$3" --config.train.seeds="$4" \
    --config.adapt.ways="('base','dapt','tapt','dapt+tapt','knn-tapt','off-domain-dapt')" \
    --config.adapt.learning_rates="(1e-4,3e-4)" --config.adapt.few_rows="(100,500)" --config.adapt.parallel="$parallel" \
    --config.adapt.dapt="('train.steps=${STEPS:-2000}','train.batch_size=256','train.learning_rate=5e-4','train.eval_every=500','train.log_every=100','checkpoint.every=1000')" \
    --config.adapt.tapt="('train.steps=1500','train.batch_size=64','train.learning_rate=2e-4','train.eval_every=500','train.log_every=100','checkpoint.every=1500')" \
    --config.adapt.select="('select.neighbours=10','data.lines=$6')" \
    --config.adapt.finetune="('train.epochs=$5','train.batch_size=32','train.eval_every=150','train.log_every=50','checkpoint.every=10000')" \
    --config.adapt.few="('train.epochs=20',)"
}

# DAPT on the novels and on the papers is the same for several tasks: it is run once and copied.
taken_over() {
  until [ -e "$out/$1/stages/$3/stage.json" ]; do
    kill -0 "$first" 2> /dev/null || return
    sleep 1
  done
  [ -e "$out/$2/stages/$3" ] || { mkdir -p "$out/$2/stages" && cp -r "$out/$1/stages/$3" "$out/$2/stages/$3.copy" && mv "$out/$2/stages/$3.copy" "$out/$2/stages/$3"; }
}

compare citation_intent acl_papers macro_f1 '(1,2,3,4,5)' 5 true &
first=$!
{ taken_over citation_intent csabstruct dapt; taken_over citation_intent csabstruct off-domain-dapt; compare csabstruct acl_papers macro_f1 '(1,2,3)' 2 true; } &
second=$!
{ taken_over citation_intent chemprot off-domain-dapt; compare chemprot medquad micro_f1 '(1,2,3)' 4 auto; } &
wait $first $second $!
