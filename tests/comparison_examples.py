"""Invented comparisons, as they come out of a run, for the tests of their report."""

import dataclasses
import math

import numpy as np

from jaxplm.reporting.comparison.comparison import Comparison, Cost, Encoder, Run, Vocabularies, Way
from jaxplm.reporting.comparison.findings import Gain, Standing
from jaxplm.scores.row_parts import RowParts, class_macro_f1, score
from jaxplm.scores.seeds import mean_std

# Macro-F1 on ACL-ARC as the paper gives it, with what is not in it invented: (way, mean, std, hours of preparation).
_WAYS = (
    ("random", 0.412, 0.012, 0.0),
    ("base", 0.630, 0.030, 0.0),
    ("dapt", 0.741, 0.018, 3.1),
    ("tapt", 0.674, 0.016, 0.09),
    ("dapt+tapt", 0.756, 0.022, 3.19),
    ("knn-tapt", 0.702, 0.017, 0.42),
    ("dapt+replay", 0.738, 0.015, 3.4),
    ("extend_vocab+dapt", 0.747, 0.019, 3.3),
    ("off-domain-dapt", 0.626, 0.028, 3.1),
)
METRIC, TEST_ROWS = "macro_f1", 139


FEW = ("random", "base", "dapt", "tapt", "dapt+tapt")


def comparison(
    *,
    seeds: int = 5,
    methods: tuple[str, ...] = ("finetune", "feature_extraction"),
    energy: bool = True,
    names: tuple[str, ...] = (),
) -> Comparison:
    """Return a finished comparison in which the domain's text helps, off-domain text does not, and one way has failed.

    Args:
      seeds: how many.
      methods: of each way.
      energy: whether the device had counters.
      names: of the ways beside the failed one; none: all there are.
    """
    rng = np.random.default_rng(7)
    ways = [
        _way(rng, name, method, mean, std, hours, seeds, energy)
        for method in methods
        for name, mean, std, hours in _WAYS
        if not names or name in names
    ]
    failure = (
        "stages/exbert: jaxplm: the tokenizer's model is Unigram; exbert needs WordPiece or BPE: take another model.path, or"
        " remove exbert from adapt.ways"
    )
    ways.append(Way("exbert", "finetune", failure=failure))
    return Comparison(
        metric=METRIC,
        higher_is_better=True,
        kind="classify",
        ways=tuple(ways),
        encoders=_encoders(rng),
        vocabularies=Vocabularies(
            ("corpus", "task", "general"),
            ((1.0, 0.713, 0.274), (0.713, 1.0, 0.239), (0.274, 0.239, 1.0)),
            10_000,
            (1.34, 1.41, 1.13),
            (0.0012, 0.0021, 0.0001),
        ),
        settings=(
            ("model", "sentence-transformers/all-MiniLM-L6-v2 (22.7 M parameters)"),
            ("corpus", "corpus/acl_papers/*.jsonl.gz: 214,320 texts"),
            ("task", "citation_intent, classify, 6 classes"),
            ("rows", "1,688 train, 114 validation, 139 test"),
            ("general", "builtin:pydocs"),
            ("seeds", ", ".join(map(str, range(seeds)))),
        ),
        notes=(
            "3 texts of the test set are also in the training set; they were left where they are.",
            "12 texts of the corpus share 8-grams with the validation or test set and were left out.",
        ),
        hardware="1 × NVIDIA H100 80GB, jax 0.11.0, jaxplm 0.1.0",
        command="python -m jaxplm.main --config=configs/adapt.py --workdir=runs/citation_intent --config.data.corpus='corpus/*.jsonl.gz'"
        " --config.data.train=train.jsonl --config.data.validation=dev.jsonl --config.data.test=test.jsonl",
        few_rows=(100, 500),
        train_rows=1688,
        test_rows=TEST_ROWS,
    )


def standing(found: Comparison, *, rows: int | None = None) -> Standing:
    """Return statistics that fit the scores, computed from normal errors."""
    bases = {
        way.method: mean_std([run.test[found.metric] for run in way.runs])
        for way in found.ways
        if way.name == "base" and way.runs
    }
    gains, means = {}, {}
    for way in found.ways:
        if not way.runs:
            continue
        mean, std = mean_std([run.test[found.metric] for run in way.runs])
        means[way.name, way.method] = mean
        if way.name != "base" and way.method in bases:
            error = math.sqrt(0.018**2 + (0.0 if math.isnan(std) else std**2 / len(way.runs)))
            difference = mean - bases[way.method][0]
            p = math.erfc(abs(difference) / error / math.sqrt(2))
            width = 1.96 * error
            gains[way.name, way.method] = Gain(
                difference, difference - width, difference + width, p, min(1.0, p * len(found.ways))
            )
    best = max(means.values())
    return Standing(
        gains, frozenset(key for key, mean in means.items() if best - mean < 0.025), rows or found.test_rows
    )


def hostile(found: Comparison) -> Comparison:
    """Return the comparison with names, lines and commands that would break a page that does not escape them."""
    bad = "<script>alert(1)</script>\"onload=alert(2) '</style>&amp; | pipe `tick` *bold* \u202etfel {{ 7 * 7 }} {x} \ud800"
    ways = [
        dataclasses.replace(
            way,
            name=f"{way.name} {bad}" if way.name == "tapt" else way.name,
            failure=bad if way.failure else "",
            commands=(bad, f"echo '{bad}'\n# heading"),
        )
        for way in found.ways
    ]
    encoders = [dataclasses.replace(encoder, name=f"{encoder.name} {bad}") for encoder in found.encoders]
    assert found.vocabularies is not None
    return dataclasses.replace(
        found,
        ways=tuple(ways),
        encoders=tuple(encoders),
        settings=((bad, bad),),
        notes=(bad, "# " + bad, "- x"),
        hardware=bad,
        command=bad,
        vocabularies=dataclasses.replace(found.vocabularies, names=(bad, "task", "general")),
    )


def _way(
    rng: np.random.Generator, name: str, method: str, mean: float, std: float, hours: float, seeds: int, energy: bool
) -> Way:
    features = method == "feature_extraction"
    mean = mean - (0.07 if features else 0.0)
    few = tuple(
        (rows, _runs(rng, mean - lost - (0.06 if name == "base" else 0.0), 1.6 * std, seeds, curve=False))
        for rows, lost in ((100, 0.2), (500, 0.08))
    )
    rates = (1e-4, 3e-4, 1e-3) if features else (1e-5, 2e-5, 5e-5)
    tried = tuple((rate, mean + 0.02 - shift) for rate, shift in zip(rates, (0.031, 0.0, 0.012), strict=True))
    training = 0.05 if features else 0.21
    return Way(
        name,
        method,
        _runs(rng, mean, std, seeds),
        learning_rate=rates[1],
        tried=tried,
        preparation=_cost(hours, 9e15, energy),
        training=_cost(training, 9e15, energy),
        trained_parameters=297_000 if features else 22_713_990,
        few=few,
        commands=(
            f"python -m jaxplm.main --config=configs/dapt.py --workdir=runs/citation_intent/stages/{name} --config.train.steps=5000"
            " --config.data.train='corpus/*.jsonl.gz'",
            f"python -m jaxplm.main --config=configs/{method}.py --workdir=runs/citation_intent/stages/{method}/{name}/final"
            f" --config.model.path=runs/citation_intent/stages/{name}/export",
        ),
    )


def _cost(hours: float, flops_per_second: float, energy: bool) -> Cost:
    seconds = 3600 * hours
    return Cost(
        int(seconds * 210_000), seconds * flops_per_second / 30, seconds, seconds * 410 if energy and seconds else None
    )


def _runs(rng: np.random.Generator, mean: float, std: float, seeds: int, *, curve: bool = True) -> tuple[Run, ...]:
    runs = []
    for seed, value in enumerate(rng.normal(mean, std, seeds)):
        parts = _parts(rng, value)
        value = float(score(parts)[0])
        steps = range(0, 1060 + 106 * int(rng.integers(0, 4)), 106) if curve else ()
        points = tuple(
            (step, float(value - (value - 0.1) * math.exp(-step / 220) + rng.normal(0, 0.008))) for step in steps
        )
        runs.append(
            Run(seed, {METRIC: value + 0.01, "loss": 0.8}, {METRIC: value, "accuracy": value + 0.04}, points, parts)
        )
    return tuple(runs)


def _parts(rng: np.random.Generator, share: float) -> RowParts:
    """Return gold and predicted classes of the test rows with about this macro-F1; the same rows are hard for all."""
    fixed = np.random.default_rng(1)
    gold, hard = fixed.integers(0, 6, TEST_ROWS), fixed.random(TEST_ROWS)
    known = (share - 1 / 6) * 6 / 5
    predicted = np.where(hard + rng.normal(0, 0.12, TEST_ROWS) < known, gold, rng.integers(0, 6, TEST_ROWS))
    return class_macro_f1(gold, predicted)


def _encoders(rng: np.random.Generator) -> tuple[Encoder, ...]:
    found = []
    for name, domain, general in (
        ("dapt", (2.61, 1.94), (2.12, 2.44)),
        ("tapt", (2.58, 2.31), (2.12, 2.17)),
        ("dapt+tapt", (1.97, 1.82), (2.44, 2.51)),
        ("knn-tapt", (2.6, 2.2), (2.12, 2.2)),
        ("dapt+replay", (2.61, 1.97), (2.12, 2.15)),
        ("off-domain-dapt", (3.02, 2.2), (2.12, 2.31)),
    ):
        curve = tuple(
            (
                250 * i,
                domain[1] + (domain[0] - domain[1]) * math.exp(-i / 5) + float(rng.normal(0, 0.004)),
                general[1] + (general[0] - general[1]) * math.exp(-i / 5) if i % 2 == 0 else math.nan,
            )
            for i in range(21)
        )
        found.append(Encoder(name, domain, general, curve))
    return tuple(found)


def running(found: Comparison) -> Comparison:
    """Return the comparison before its last ways have ended and before vocabularies were compared."""
    ways = [way if i < len(found.ways) - 4 else Way(way.name, way.method) for i, way in enumerate(found.ways)]
    return dataclasses.replace(
        found, ways=tuple(ways), encoders=found.encoders[:2], vocabularies=None, complete=False, notes=()
    )
