"""What is known of a score by its name: whether it is a share, and which way is better."""

import math

# Printed in percent. The correlations and MCC lie between -1 and 1; papers print them times 100 as well.
SHARES = frozenset(
    ("accuracy", "pair_accuracy", "f1", "micro_f1", "macro_f1", "precision", "recall", "exact_match", "mcc", "pearson", "spearman")
)  # fmt: skip
LOWER_IS_BETTER = frozenset(("loss", "perplexity", "loss_per_character", "pair_loss", "mse"))

_WORDS = {"f1": "F1", "mcc": "MCC", "mse": "MSE", "micro": "micro-", "macro": "macro-"}


def is_better(name: str, new: float, old: float) -> bool:
    """Whether `new` beats `old`; equal does not, NaN never does, and whatever is no NaN beats NaN.

    Raises:
      ValueError: a name that is neither a share nor one of `LOWER_IS_BETTER`.
    """
    if name not in SHARES | LOWER_IS_BETTER:
        raise ValueError(f"score {name!r}: which way is better is not known; known are {', '.join(sorted(SHARES | LOWER_IS_BETTER))}")
    if math.isnan(old) or math.isnan(new):
        return not math.isnan(new)
    return new < old if name in LOWER_IS_BETTER else new > old


def words(name: str) -> str:
    """'macro-F1' of macro_f1, 'exact match' of exact_match: as a sentence has it."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_")).replace("- ", "-")


def title(name: str) -> str:
    """'Macro-F1' of macro_f1, 'Exact match' of exact_match: as a heading has it."""
    return words(name)[:1].upper() + words(name)[1:]
