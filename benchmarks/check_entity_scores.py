"""Compare a run's entity scores with conlleval and seqeval.

  python benchmarks/check_entity_scores.py GOLD.conll runs/ner/predictions.jsonl [runs/ner/metrics.jsonl]

GOLD is the file that was given as data.test: a token per line, its tag last. The references are the test suite's own conlleval
(tests/conlleval.py, from the published rules) and seqeval in both modes. With metrics.jsonl, the scores that the run wrote are
compared as well. IOB2 and BIOES are read as they are written.
Exit status: 0 if f1 is conlleval's and seqeval's default and strict_f1 is seqeval's strict, to 1e-9; 1 if not.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import seqeval.metrics
import seqeval.scheme

from jaxplm.scores.entities import entity_scores

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conlleval import conlleval  # noqa: E402  # pyright: ignore[reportMissingImports]

_TOLERANCE = 1e-9


def read_gold(path: str) -> list[list[str]]:
    """Return the last column of each sentence's lines."""
    sentences: list[list[str]] = [[]]
    for line in Path(path).read_text("utf-8").split("\n"):
        if not line.strip():
            sentences.append([])
        elif not line.startswith("-DOCSTART-"):
            sentences[-1].append(line.replace("\t", " ").rstrip(" ").split(" ")[-1])
    return [sentence for sentence in sentences if sentence]


def main() -> int:
    if len(sys.argv) not in (3, 4):
        print(__doc__)
        return 2
    gold = read_gold(sys.argv[1])
    predicted = [json.loads(line)["label"] for line in Path(sys.argv[2]).read_text("utf-8").splitlines()]
    bioes = any(tag[:2] in ("E-", "S-") for tags in gold for tag in tags)
    strict = {"mode": "strict", "scheme": seqeval.scheme.IOBES if bioes else seqeval.scheme.IOB2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "f1": {"conlleval": conlleval(gold, predicted).f1,
                   "seqeval, default": np.asarray(seqeval.metrics.f1_score(gold, predicted)).item()},
            "strict_f1": {"seqeval, strict": np.asarray(seqeval.metrics.f1_score(gold, predicted, **strict)).item()},
        }
    found = {"jaxplm": entity_scores(gold, predicted, "BIOES" if bioes else "IOB2")}
    if len(sys.argv) == 4:
        rows = [json.loads(line) for line in Path(sys.argv[3]).read_text("utf-8").splitlines()]
        found["metrics.jsonl"] = [row for row in rows if row["split"] == "test"][-1]
    print(f"{len(gold):,} sentences, {sum(map(len, gold)):,} tokens")
    equal = True
    for score, references in expected.items():
        for name, scores in found.items():
            for reference, value in references.items():
                difference = abs(scores[score] - value)
                equal &= difference <= _TOLERANCE
                print(f"{score:10} {name:14} {scores[score]:.12f}   {reference:17} {value:.12f}   difference {difference:.1e}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
