"""Load exports by the code of their own model cards, in the transformers of given environments.

    python benchmarks/check_exports.py .venv/bin/python ~/transformers-4.48/bin/python

Every family with a masked language model, a classifier (of a text and of a pair), a tagger and a model for questions is
exported, with special tokens of its own added. Each environment (PyTorch and transformers) then runs the code of each
card, and must give the ids of the tokens, the names of the inputs and the outputs that the first environment gives.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import checkpoints  # pyright: ignore[reportMissingImports]

from jaxplm import hf
from jaxplm.reporting.card import FILL_MASK
from jaxplm.tasks.kinds import KINDS

FAMILIES = ("bert", "roberta", "klue", "camembert", "xlm-roberta")
TASKS = ("mlm", "classify", "tag", "qa")
PLACE = "path/to/this/directory"
# Runs in the other environment, which has no jaxplm.
WORKER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import transformers
transformers.logging.set_verbosity_error()
from transformers import AutoTokenizer
results = {"version": transformers.__version__}
for name, code in json.load(open(sys.argv[1])).items():
    try:
        names = {}
        exec(code, names)
        path = code.split('from_pretrained("')[-1] if "from_pretrained(" in code else code.split('", "')[1]
        tokenizer = AutoTokenizer.from_pretrained(path.split('"')[0])
        inputs = tokenizer("the dog [DRUG] reads", "a text <ent>")
        special = sorted(tokenizer.all_special_tokens)
        results[name] = {"inputs": sorted(inputs), "ids": inputs["input_ids"], "special": special}
        if "output" in names:
            results[name]["scores"] = names["output"].start_logits[0].tolist()
        for call, text in (("classify", {"text": "the dog", "text_pair": "a text"}), ("tag", "the quick dog")):
            if call in names:
                answer = names[call](text)
                answer = answer if isinstance(answer, list) else [answer]
                results[name]["scores"] = [float(one["score"]) for one in answer]
        if "fill" in names:
            answer = names["fill"]("the " + names["fill"].tokenizer.mask_token + " dog")
            results[name]["scores"] = [float(one["score"]) for one in answer]
            head = getattr(names["fill"].model, "lm_head", None)
            results[name]["lost_bias"] = head is not None and not head.bias.any().item()
    except Exception as error:
        results[name] = {"error": type(error).__name__ + ": " + str(error)[:300]}
json.dump(results, sys.stdout)
"""


# Transformers 4.48 does so with models that it saved itself, too.
LOST_BIAS = "scores, because this version sets the bias of RoBERTa's decoder to zero when it reads a model"


def make_exports(here: Path) -> dict[str, str]:
    """Write the exports; return {name: code of its card}."""
    cards = {}
    for family in FAMILIES:
        source = checkpoints.save(here / family, family, sizes={**checkpoints.SMALL, "max_position_embeddings": 64})
        tokenizer = checkpoints.tokenizer(family)
        tokenizer.add_special_tokens({"additional_special_tokens": ["[DRUG]", "<ent>"]})
        tokenizer.save_pretrained(source)
        for task in TASKS:
            target = here / f"{family}-{task}"
            if task == "mlm":
                loaded = hf.load(str(source))
                hf.save(target, loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
                code = FILL_MASK
            else:
                kind = KINDS[task]
                labels = {"classify": ["no", "yes"], "tag": ["B-X", "I-X", "O"], "qa": []}[task]
                made = hf.load_task_model(str(source), KINDS, kind.head_config(len(labels) or 2))
                hf.save_task_model(target, made, made.params, labels)
                code = kind.usage
            cards[target.name] = code.replace(PLACE, str(target))
    return cards


def run_cards(python: str, cards: Path) -> dict[str, Any]:
    """Run the code of all cards with a Python of another environment; return its results."""
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(cards.parent)}
    done = subprocess.run([python, "-c", WORKER, str(cards)], capture_output=True, text=True, cwd=cards.parent, check=False,
                          env=environment)
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr[-2000:]}")
    return json.loads(done.stdout[done.stdout.index("{"):])


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return what a card's results have other than those of the first environment."""
    if "error" in found:
        return [found["error"]]
    wrong = [field for field in ("inputs", "ids", "special") if found[field] != expected.get(field)]
    pairs = zip(found.get("scores", []), expected.get("scores", []), strict=False)
    if len(found.get("scores", [])) != len(expected.get("scores", [])) or any(abs(a - b) > 1e-4 for a, b in pairs):
        wrong.append(LOST_BIAS if found.get("lost_bias") else "scores")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pythons", nargs="+", help="Pythons of environments with PyTorch and transformers")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        cards = make_exports(here)
        file = here / "cards.json"
        file.write_text(json.dumps(cards))
        first: dict[str, Any] = {}
        for python in options.pythons:
            results = run_cards(python, file)
            first = first or results
            wrong = {name: found for name in cards if (found := differences(results[name], first[name]))}
            failed += sum(found != [LOST_BIAS] for found in wrong.values())
            loaded = sum("error" not in results[name] for name in cards)
            alike = len(cards) - len(wrong)
            print(f"transformers {results['version']}: the code of {loaded} of {len(cards)} cards runs, and {alike} give"
                  f" the tokens, inputs and scores of {first['version']}")
            for name, found in wrong.items():
                print(f"  {name}: {'; '.join(found)}")
    return failed


if __name__ == "__main__":
    raise SystemExit(main() > 0)
