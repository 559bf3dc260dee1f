"""Tables of how a tokenizer cuts the words of a corpus, for a terminal and for report.md."""

from collections.abc import Sequence
from typing import Any

from jaxplm.reporting.console import plain_table
from jaxplm.reporting.numbers import count
from jaxplm.reporting.tables import Table, markdown, one_line
from jaxplm.vocab.advice import Advice
from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.overlap import overlap
from jaxplm.vocab.splits import SHOWN, WordSplit, damaging_splits, frequent_splits


def figures(columns: Sequence[tuple[str, Measurement]], overlap_with: Measurement | None = None) -> Table:
    """Return a table with one row per number and one column per corpus or vocabulary; the first row is a heading.

    Args:
      columns: (heading, measurement), the domain's text first.
      overlap_with: general text; a further row gives the share of its frequent words that the first column has.
    """
    table = [("", *(heading for heading, _ in columns))]
    for name, value in (
        ("texts", lambda one: f"{one.texts:,}"),
        ("words", lambda one: count(one.totals.words)),
        ("tokens", lambda one: count(one.totals.tokens)),
        ("tokens per word (fertility)", lambda one: f"{one.fertility:.3f}"),
        ("tokens per character", lambda one: f"{one.tokens_per_character:.3f}"),
        ("UTF-8 bytes per token", lambda one: f"{one.bytes_per_token:.2f}"),
        ("words kept whole", lambda one: f"{one.whole_share:.1%}"),
        ("distinct words kept whole", lambda one: f"{one.whole_distinct_share:.1%}"),
        ("unknown tokens", lambda one: f"{one.unknown_share:.2%}"),
    ):
        table.append((name, *(value(one) for _, one in columns)))
    if overlap_with is not None:
        table.append(("frequent words shared", f"{overlap(columns[0][1], overlap_with):.1%}", *("" for _ in columns[1:])))
    return table


def split_table(splits: Sequence[WordSplit], tokenizer: Any) -> Table:
    """Return a table of words with their tokens, occurrences, texts, and tokens beyond one per occurrence; the first row is a heading."""
    rows = [(split.word, pieces(split, tokenizer), f"{split.count:,}", f"{split.texts:,}", f"{split.cost:,}") for split in splits]
    return [("word", "tokens", "occurrences", "texts", "extra tokens"), *rows]


def pieces(split: WordSplit, tokenizer: Any) -> str:
    """Return the tokens of a word in readable form: decoded, with WordPiece's "##" inside a word, and "␣" for a space."""
    names = tokenizer.convert_ids_to_tokens(list(split.ids))
    if len(shown := [tokenizer.convert_tokens_to_string([name]) for name in names]) and all("\ufffd" not in text for text in shown):
        if any(name.startswith("##") for name in names):
            return " ".join(names)
        return " ".join("␣" + text.strip() if name[:1] in "Ġ▁" else text for name, text in zip(names, shown, strict=True))
    return " ".join(names)


def vocabulary_text(measured: Measurement, tokenizer: Any, advice: Advice, general: Measurement | None = None, most: int = SHOWN) -> str:
    """Return the text for a terminal: numbers, the most frequent and the most damaging splits, the advice."""
    columns = [("domain", measured), *([("general text", general)] if general else [])]
    parts = [plain_table(figures(columns, general), header=True)]
    for heading, splits in _splits(measured, general, most):
        if splits:
            parts.append(heading + "\n" + plain_table(split_table(splits, tokenizer), header=True))
    return "\n\n".join([*parts, advice.sentence])


def vocabulary_markdown(measured: Measurement, tokenizer: Any, advice: Advice, general: Measurement | None = None,
                        most: int = SHOWN) -> str:
    """Return the section "Vocabulary" of report.md without its heading. The damaging splits are numbered as in the plot."""
    columns = [("domain", measured), *([("general text", general)] if general else [])]
    parts = [one_line(advice.sentence), markdown(figures(columns, general), "l" + "r" * len(columns))]
    for heading, splits in _splits(measured, general, most):
        if splits:
            table = split_table(splits, tokenizer)  # numbered: a plot without a font for the words shows numbers instead
            numbers = ["no.", *map(str, range(1, len(table)))]
            parts += [f"### {heading}", markdown([(number, *row) for number, row in zip(numbers, table, strict=True)], "rllrrr")]
    return "\n\n".join(parts)


def _splits(measured: Measurement, general: Measurement | None, most: int) -> list[tuple[str, list[WordSplit]]]:
    typical = " (words typical of the domain)" if general else ""
    return [("Most frequent splits", frequent_splits(measured, most)),
            (f"Most damaging splits{typical}", damaging_splits(measured, general, most))]
