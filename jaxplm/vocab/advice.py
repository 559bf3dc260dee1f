"""What to do about a vocabulary, in one sentence with its reasons: keep it, append to it, exBERT, or another one."""

from typing import NamedTuple

from jaxplm.vocab.measure import Measured, covered

# Tokens a word up to which a vocabulary is kept. English vocabularies (BERT's and RoBERTa's) need 1.03 to 1.08 on general English,
# so 1.15 is hardly more than home. A Korean eojeol has 2.2 morphemes on average; a token a morpheme is as good as it gets.
KEEP, KEEP_KOREAN = 1.15, 2.25
# Above it information is lost, not just cut up: the vocabularies that fit stay below 0.5 %, those of another script do not.
UNKNOWN = 0.02
# Tokens a character. English is near 0.25, Korean in syllables near 0.6; from here on words are spelled, not written.
SPELLED = 0.9
# A normalizer that makes so much of the vocabulary impossible is the wrong one (as in `jaxplm.hf.tokenizer`).
LOST = 0.1
# New rows that a resized table bears: about 1 % of the vocabulary. They are the remedy where they take away a third of what
# splitting costs; where they do not, the tail of rare words is too long for them.
FEW, FEW_COVER = 0.01, 1 / 3
# exBERT's own extension is a bit more than half of the base vocabulary (Tai et al. 2020: 17,658 to 30,522).
MANY = 0.5
EXBERT_COVERS = 0.8  # share of the extra tokens that its number of tokens is chosen for
# Words, of one's own corpus, below which another base is the better bet: BERT had 3.3 billion, SciBERT 3.1 billion tokens.
SCRATCH_WORDS = 300_000_000
# A vocabulary of the corpus's own grows by half where that takes away so much of the tokens; a row learns little from a word
# that occurs fewer times than this.
WORTH_HALF, NEW_ROW = 0.05, 10


class Advice(NamedTuple):
    """`kind`: keep, append, exbert, scratch, settings (the tokenizer is read in a wrong way), or larger (of a new vocabulary);
    `tokens`: how many to add, about."""

    kind: str
    tokens: int
    sentence: str


def advise(measured: Measured, vocab_size: int, general: Measured | None = None, lost: float = 0.0) -> Advice:
    """One sentence of advice. The thresholds stand at the head of this module, with their reasons.

    Args:
      measured: of the domain.
      vocab_size: V of the tokenizer.
      general: of general text in the same language; only told, for comparison.
      lost: `jaxplm.hf.tokenizer.unreachable_share`.
    """
    totals = measured.totals
    korean = 2 * totals.korean > totals.words
    unspaced = 2 * totals.unspaced > totals.words
    few = max(1, round(FEW * vocab_size) if vocab_size < 10_000 else 100 * round(FEW * vocab_size / 100))
    kind = _kind(measured, few, lost, KEEP_KOREAN if korean else KEEP, unspaced)
    found = f"{measured.fertility:.2f} tokens a{'n eojeol' if korean else ' word'}"
    if general:
        found += f" (general text: {general.fertility:.2f})"
    unknown = f"{measured.unknown_share:.1%} of the tokens unknown"
    letters = f"{measured.tokens_per_character:.2f} tokens a character"
    share = covered(measured, few)
    shorter = share * measured.extra / max(1, totals.tokens)
    tokens = 0
    if kind == "settings":
        parts = [f"Correct the tokenizer's settings first: {unknown}, and {lost:.0%} of the vocabulary can never occur,",
                 "because letters are lower-cased or taken apart before they are looked up;",
                 'most likely tokenizer_config.json needs "do_lower_case": false']
    elif kind == "scratch":
        signs = [f"{letters}, so words are spelled, not written"] if _spelled(measured, unspaced) else []
        signs += [unknown] if measured.unknown_share > UNKNOWN else []
        parts = [f"Take a base model whose vocabulary was made for {'Korean' if korean else 'this language or notation'},",
                 "or train one from scratch (configs/scratch.py)" + _least(totals.words) + ":", f"{'; '.join(signs)}; {found}"]
    elif kind == "keep" and unspaced:
        parts = [f"Keep the vocabulary: {unknown}, and {letters} are usual in a script without spaces,", "where tokens a word say little"]
    elif kind == "keep":
        parts = [f"Keep the vocabulary: {found} are few{', a morpheme each' if korean else ''},",
                 f"{measured.whole_share:.0%} of the words are whole and {unknown};",
                 f"the {few:,} costliest split words made whole would shorten the texts by {shorter:.1%} only"]
    elif kind == "append":
        tokens = few
        parts = [f"Append about {tokens:,} tokens (configs/extend_vocab.py): {found}, and the {few:,} costliest split words hold",
                 f"{share:.0%} of all extra tokens; made whole, they would shorten the texts by {shorter:.1%}"]
    else:
        tokens = _many(measured, vocab_size)
        parts = [f"Add about {tokens:,} tokens with exBERT (configs/exbert.py): {found}, and the split words have a long tail:",
                 f"the {few:,} costliest hold {share:.0%} of all extra tokens, the {tokens:,} costliest {covered(measured, tokens):.0%}"]
    return Advice(kind, tokens, " ".join(parts) + ".")


def advise_new(measured: Measured, vocab_size: int) -> Advice:
    """One sentence about a vocabulary that was made of these very texts, where nothing is to be appended: keep it, or make it larger.

    Args:
      measured: of the texts that it was made of.
      vocab_size: V.
    """
    totals = measured.totals
    korean, unspaced = 2 * totals.korean > totals.words, 2 * totals.unspaced > totals.words
    found = f"{measured.fertility:.2f} tokens a{'n eojeol' if korean else ' word'}, {measured.unknown_share:.1%} of the tokens unknown"
    if measured.fertility <= (KEEP_KOREAN if korean else KEEP) or unspaced:
        return Advice("keep", 0, f"The new vocabulary of {vocab_size:,} fits its corpus: {found}.")
    more = vocab_size // 2
    shorter = covered(measured, more, NEW_ROW) * measured.extra / max(1, totals.tokens)
    if shorter < WORTH_HALF:
        return Advice("keep", 0, f"The new vocabulary of {vocab_size:,} has {found}; {more:,} more would shorten the texts by"
                                 f" {shorter:.1%} only, as what is still cut is rare.")
    return Advice("larger", more, f"Consider vocab.size={vocab_size + more}: {found}, and the {more:,} costliest split words made whole"
                                  f" would shorten the texts by {shorter:.1%}.")


def _least(words: int) -> str:
    return "" if words >= SCRATCH_WORDS else f", which takes hundreds of millions of words (here: {words / 1e6:.1f} million)"


def _kind(measured: Measured, few: int, lost: float, keep: float, unspaced: bool) -> str:
    if measured.unknown_share > UNKNOWN and lost > LOST:
        return "settings"
    if measured.unknown_share > UNKNOWN or _spelled(measured, unspaced):
        return "scratch"
    if measured.fertility <= keep or unspaced:
        return "keep"
    return "append" if covered(measured, few) >= FEW_COVER else "exbert"


def _spelled(measured: Measured, unspaced: bool) -> bool:
    """Scripts without spaces are written character by character in vocabularies that fit them."""
    return measured.tokens_per_character >= SPELLED and not unspaced


def _many(measured: Measured, vocab_size: int) -> int:
    """Thousands of tokens that cover enough of the extra ones, at most `MANY` of the vocabulary."""
    most = max(1, int(MANY * vocab_size))
    step = max(1, min(1000, most // 4))
    return next((n for n in range(step, most, step) if covered(measured, n) >= EXBERT_COVERS), most)
