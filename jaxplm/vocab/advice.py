"""Say in one sentence what to do about a vocabulary, with the reasons."""

from typing import NamedTuple

from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.splits import covered_share

# Tokens per word up to which a vocabulary is kept. English vocabularies (BERT's and RoBERTa's) need 1.03 to 1.08 on
# general English, so 1.15 is little more than that. A Korean eojeol has 2.2 morphemes on average, and one token per
# morpheme is the best to expect.
KEEP, KEEP_KOREAN = 1.15, 2.25
# Share of unknown tokens above which information is lost, not just cut up: vocabularies that fit stay below 0.5 %,
# those of another script do not.
UNKNOWN = 0.02
# Tokens per character. English is near 0.25, Korean in syllables near 0.6; from here on words are spelled character by
# character.
SPELLED = 0.9
# A normalizer is the wrong one if it makes this share of the vocabulary impossible (as in `jaxplm.hf.tokenizer`).
LOST = 0.1
# New rows that a resized table can learn: about 1 % of the vocabulary. They are the remedy where they take away a third
# of what splitting costs; where they do not, the tail of rare words is too long for them.
FEW, FEW_COVER = 0.01, 1 / 3
# exBERT's own extension is a bit more than half of the base vocabulary (Tai et al. 2020: 17,658 to 30,522).
MANY = 0.5
EXBERT_COVERS = 0.8  # share of the extra tokens that exBERT's number of tokens is chosen for
# Words in one's own corpus, below which another base model is the better choice: BERT had 3.3 billion, SciBERT 3.1
# billion tokens.
SCRATCH_WORDS = 300_000_000
# A vocabulary of the corpus's own should grow by half if that takes away this share of the tokens. A row learns little
# from a word with fewer than NEW_ROW occurrences.
WORTH_HALF, NEW_ROW = 0.05, 10


class Advice(NamedTuple):
    """What to do about a vocabulary.

    Attributes:
      kind: keep, append, exbert, scratch, settings (the tokenizer is read in a wrong way), or larger (of a new
        vocabulary).
      tokens: how many to add, about.
      sentence: the advice with its reasons.
    """

    kind: str
    tokens: int
    sentence: str


def advise(measurement: Measurement, vocab_size: int, general: Measurement | None = None, lost: float = 0.0,
           fixed: str = "") -> Advice:
    """Return one sentence about an existing vocabulary on the domain's texts.

    Args:
      measurement: of the domain.
      vocab_size: V of the tokenizer.
      general: of general text in the same language, named in the sentence for comparison.
      lost: `jaxplm.hf.tokenizer.unreachable_share`.
      fixed: why no token can be added to this vocabulary, see `jaxplm.vocab.reach.fixed_because`; "" if tokens can be.
    """
    totals = measurement.totals
    korean, unspaced = _is_korean(measurement), _is_unspaced(measurement)
    few = max(1, round(FEW * vocab_size) if vocab_size < 10_000 else 100 * round(FEW * vocab_size / 100))
    kind = _kind(measurement, few, lost)
    fertility = _fertility(measurement)
    if general:
        fertility += f" (general text: {general.fertility:.2f})"
    unknown = _unknown(measurement)
    letters = f"{measurement.tokens_per_character:.2f} tokens per character"
    share = covered_share(measurement, few)
    shorter = share * measurement.extra / max(1, totals.tokens)
    tokens = 0
    if kind == "settings":
        sentence = (
            f"Correct the tokenizer's settings first: {unknown}, and {lost:.0%} of the vocabulary can never occur, because letters are"
            ' lower-cased or taken apart before they are looked up; most likely tokenizer_config.json needs "do_lower_case": false'
        )
    elif kind == "scratch":
        signs = [f"{letters}, so words are spelled character by character"] if _is_spelled(measurement) else []
        signs += [unknown] if measurement.unknown_share > UNKNOWN else []
        sentence = (
            f"Take a base model whose vocabulary was made for {'Korean' if korean else 'this language or notation'},"
            f" or train one from scratch (configs/scratch.py){_scratch_needs(totals.words)}: {'; '.join(signs)}; {fertility}"
        )
    elif kind in ("append", "exbert") and fixed:
        kind = "keep"
        sentence = (
            f"Take a base model whose vocabulary is made for such texts, or keep this one and accept the longer rows:"
            f" {fertility}, but {fixed}; or train one from scratch (configs/scratch.py){_scratch_needs(totals.words)}"
        )
    elif kind == "keep" and unspaced:
        sentence = (
            f"Keep the vocabulary: {unknown}, and {letters} are usual in a script without spaces,"
            " where tokens per word say little"
        )
    elif kind == "keep":
        sentence = (
            f"Keep the vocabulary: {fertility} are few{', about one per morpheme' if korean else ''},"
            f" {measurement.whole_share:.0%} of the words are whole and {unknown};"
            f" the {few:,} costliest split words made whole would shorten the texts by {shorter:.1%} only"
        )
    elif kind == "append":
        tokens = few
        sentence = (
            f"Append about {tokens:,} tokens (configs/extend_vocab.py): {fertility}, and the {few:,} costliest split words hold"
            f" {share:.0%} of all extra tokens; made whole, they would shorten the texts by {shorter:.1%}"
        )
    else:
        tokens = _exbert_tokens(measurement, vocab_size)
        sentence = (
            f"Add about {tokens:,} tokens with exBERT (configs/exbert.py): {fertility}, and the split words have a long tail:"
            f" the {few:,} costliest hold {share:.0%} of all extra tokens,"
            f" the {tokens:,} costliest {covered_share(measurement, tokens):.0%}"
        )
    return Advice(kind, tokens, sentence + ".")


def advise_new(measurement: Measurement, vocab_size: int) -> Advice:
    """Return one sentence about a vocabulary that was trained on these texts: keep it, or make it larger.

    Args:
      measurement: of the texts that it was trained on.
      vocab_size: V.
    """
    summary = f"{_fertility(measurement)}, {_unknown(measurement)}"
    keep = KEEP_KOREAN if _is_korean(measurement) else KEEP
    if measurement.fertility <= keep or _is_unspaced(measurement):
        return Advice("keep", 0, f"The new vocabulary of {vocab_size:,} fits its corpus: {summary}.")
    more = vocab_size // 2
    shorter = covered_share(measurement, more, NEW_ROW) * measurement.extra / max(1, measurement.totals.tokens)
    if shorter < WORTH_HALF:
        return Advice(
            "keep",
            0,
            f"The new vocabulary of {vocab_size:,} has {summary}; {more:,} more would shorten the texts by"
            f" {shorter:.1%} only, as the words that are still cut are rare.",
        )
    return Advice(
        "larger",
        more,
        f"Consider vocab.size={vocab_size + more}: {summary}, and the {more:,} costliest split words made whole"
        f" would shorten the texts by {shorter:.1%}.",
    )


def _is_korean(measurement: Measurement) -> bool:
    return 2 * measurement.totals.korean > measurement.totals.words


def _is_unspaced(measurement: Measurement) -> bool:
    return 2 * measurement.totals.unspaced > measurement.totals.words


def _fertility(measurement: Measurement) -> str:
    return f"{measurement.fertility:.2f} tokens per {'eojeol' if _is_korean(measurement) else 'word'}"


def _unknown(measurement: Measurement) -> str:
    return f"{measurement.unknown_share:.1%} of the tokens unknown"


def _scratch_needs(words: int) -> str:
    return (
        ""
        if words >= SCRATCH_WORDS
        else f", which takes hundreds of millions of words (here: {words / 1e6:.1f} million)"
    )


def _kind(measurement: Measurement, few: int, lost: float) -> str:
    if measurement.unknown_share > UNKNOWN and lost > LOST:
        return "settings"
    if measurement.unknown_share > UNKNOWN or _is_spelled(measurement):
        return "scratch"
    if measurement.fertility <= (KEEP_KOREAN if _is_korean(measurement) else KEEP) or _is_unspaced(measurement):
        return "keep"
    return "append" if covered_share(measurement, few) >= FEW_COVER else "exbert"


def _is_spelled(measurement: Measurement) -> bool:
    """Return whether words are cut into characters.

    Scripts without spaces are, in vocabularies that fit them, and do not count.
    """
    return measurement.tokens_per_character >= SPELLED and not _is_unspaced(measurement)


def _exbert_tokens(measurement: Measurement, vocab_size: int) -> int:
    """Return a number of tokens, in thousands, that covers enough of the extra ones: at most `MANY` of the vocabulary.
    """
    most = max(1, int(MANY * vocab_size))
    step = max(1, min(1000, most // 4))
    return next((n for n in range(step, most, step) if covered_share(measurement, n) >= EXBERT_COVERS), most)
