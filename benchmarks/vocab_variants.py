"""Compare further pre-training with and without new tokens, each on the same number of real characters.

    python benchmarks/vocab_variants.py --model=DIR --train=train.txt --validation=validation.txt [--characters=600000]
        [--few=300] [--many=3000] [--seeds=1,2,3] [--only=NAME,NAME]

It runs the real commands: configs/dapt.py; configs/extend_vocab.py with `few` tokens and every `vocab.init`, and with
`many`; configs/exbert.py with `many`, training the extension alone or all weights. A step has the same rows in all of
them. A vocabulary that cuts the text into fewer tokens needs fewer steps for the same characters. Whole words are
masked, so that a word is hidden in the same way however many tokens it has.

It prints the MLM loss per character on the validation text before and after, mean ± std over the seeds, with steps and
seconds of training. A line of JSON with everything is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

from jaxplm import hf
from jaxplm.data.sources.texts import open_texts
from jaxplm.vocab.append import append_tokens
from jaxplm.vocab.choose import choose_tokens
from jaxplm.vocab.measure import measure, remeasure

ROWS, LENGTH = 16, 128


def variants(options: argparse.Namespace) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return {name: (new tokens, fields)}; `recipe` is the config's name."""
    append = {"recipe": "extend_vocab"}
    result: dict[str, tuple[int, dict[str, Any]]] = {"no change": (0, {"recipe": "dapt"})}
    for init in ("normal", "mean", "subword_mean"):
        result[f"append {options.few}, {init}"] = (options.few, append | {"vocab.init": init})
    result[f"append {options.many}, subword_mean"] = (options.many, append | {"vocab.init": "subword_mean"})
    result[f"exBERT {options.many}, extension"] = (options.many, {"recipe": "exbert", "train.learning_rate": options.extension_lr})
    result[f"exBERT {options.many}, all"] = (options.many, {"recipe": "exbert", "train.freeze": "()"})
    return result


def tokens_per_character(options: argparse.Namespace) -> dict[int, float]:
    """Return {number of new tokens: tokens per character of the training text}."""
    tokenizer = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    before = measure(open_texts(options.train), tokenizer)
    ratios = {0: before.tokens_per_character}
    for count in (options.few, options.many):
        chosen = choose_tokens(before, tokenizer, count)
        ratios[count] = remeasure(before, append_tokens(tokenizer, chosen.tokens).tokenizer).tokens_per_character
    return ratios


def run(options: argparse.Namespace, fields: dict[str, Any], new_tokens: int, steps: int, seed: int, workdir: Path) -> dict[str, float]:
    """Run one command; return the loss per character before and after, seconds and steps of training."""
    given = {"model.path": options.model, "data.train": options.train, "data.validation": options.validation, "data.seq_len": LENGTH,
             "data.eval_rows": 1_000_000, "data.whole_word": True, "train.batch_size": ROWS, "train.steps": steps,
             "train.eval_every": steps, "train.learning_rate": options.lr, "checkpoint.every": 1_000_000, "checkpoint.keep": 1,
             "seed": seed} | fields
    recipe = given.pop("recipe")
    if new_tokens:
        given["vocab.new_tokens"] = new_tokens
    command = [sys.executable, "-m", "jaxplm.main", f"--config=configs/{recipe}.py", f"--workdir={workdir}",
               *(f"--config.{name}={value}" for name, value in given.items())]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{recipe} failed:\n{done.stdout}\n{done.stderr}")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    before, after = (row["loss_per_character"] for row in rows if row["split"] == "validation")
    return {"before": before, "after": after, "seconds": sum(row["seconds"] for row in rows if row["split"] == "train"), "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "validation"):
        parser.add_argument(f"--{name}", required=True)
    for name, kind, default in (("characters", int, 600_000), ("few", int, 300), ("many", int, 3000), ("lr", float, 2e-4),
                                ("extension_lr", float, 1e-3)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="", help="names of variants, separated by ';'")
    options = parser.parse_args()
    ratio = tokens_per_character(options)
    chosen = {name: one for name, one in variants(options).items() if not options.only or name in options.only.split(";")}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in map(int, options.seeds.split(",")):
        for name, (new_tokens, fields) in chosen.items():
            steps = round(options.characters * ratio[new_tokens] / (ROWS * LENGTH))
            with tempfile.TemporaryDirectory() as scratch:
                results[name].append(run(options, fields, new_tokens, steps, seed, Path(scratch) / "run"))
            print(f"seed {seed}: {name}: {results[name][-1]}", flush=True)
    print(f"\n{'':<28}{'tokens/character':>18}{'steps':>7}{'loss/character before':>23}{'after':>18}{'training s':>12}")
    for name, runs in results.items():
        after = [one["after"] for one in runs]
        spread = statistics.stdev(after) if len(after) > 1 else float("nan")
        print(f"{name:<28}{ratio[chosen[name][0]]:>18.4f}{runs[0]['steps']:>7.0f}{statistics.mean(one['before'] for one in runs):>23.4f}"
              f"{statistics.mean(after):>9.4f} ± {spread:.4f}{statistics.median(one['seconds'] for one in runs):>12.0f}")
    record.append("vocab_variants", {"runs": results, "tokens_per_character": ratio})


if __name__ == "__main__":
    main()
