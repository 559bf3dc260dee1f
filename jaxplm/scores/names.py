"""How a score is written by its name: as a share in percent or as a number, in a sentence or in a heading."""

# Printed in percent. The correlations and MCC lie between -1 and 1; papers print them times 100 as well.
SHARES = frozenset(("accuracy", "pair_accuracy", "f1", "strict_f1", "micro_f1", "macro_f1", "precision", "recall", "exact_match",
                    "mcc", "pearson", "spearman"))

_WORDS = {"f1": "F1", "mcc": "MCC", "mse": "MSE", "micro": "micro-", "macro": "macro-"}


def words(name: str) -> str:
    """Return a score's name for a sentence: 'macro-F1' for macro_f1, 'exact match' for exact_match."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_")).replace("- ", "-")


def title(name: str) -> str:
    """Return a score's name for a heading: 'Macro-F1' for macro_f1, 'Exact match' for exact_match."""
    return words(name)[:1].upper() + words(name)[1:]
