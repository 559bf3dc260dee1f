"""Measure how a tokenizer cuts a corpus, say what to do about it, and choose tokens to add.

    python benchmarks/measure_vocab.py --tokenizer=DIR --corpus=FILE [--general=FILE] [--texts=N] \
        [--plot=FILE.png] [--tokens=40]

It prints the table, the splits and the sentence that the vocabulary recipes log, with the seconds that measuring took.
With --plot it writes their plot. With --tokens it prints the tokens that would be added, each with the tokens that it
saves on the corpus.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from jaxplm import hf
from jaxplm.data.sources.texts import open_texts
from jaxplm.hf.tokenizer import unreachable_share
from jaxplm.vocab.advice import advise
from jaxplm.vocab.choose import choose_tokens
from jaxplm.vocab.measure import measure
from jaxplm.vocab.plot import write_vocabulary
from jaxplm.vocab.reach import fixed_because
from jaxplm.vocab.report import vocabulary_text
from jaxplm.vocab.splits import damaging_splits
from jaxplm.vocab.terms import read_terms


def readable(token: str, tokenizer: Any) -> str:
    """Return an entry of the vocabulary as text; "␣" is a space."""
    text = tokenizer.convert_tokens_to_string([token])
    return token if token.startswith("##") or "\ufffd" in text else text.replace(" ", "␣")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--general", default="", help="general text in the same language")
    parser.add_argument("--texts", type=int, default=None, help="read at most this many texts of each")
    parser.add_argument("--plot", default="")
    parser.add_argument("--tokens", type=int, default=0, help="choose this many tokens to add")
    parser.add_argument("--terms", default="", help="a file of terms to add first")
    options = parser.parse_args()
    tokenizer, notes = hf.load_tokenizer(Path(options.tokenizer), options.tokenizer)
    print(*notes, sep="\n", end="\n" if notes else "")
    began = time.perf_counter()
    measurement = measure(open_texts(options.corpus, max_rows=options.texts), tokenizer)
    print(f"{options.corpus}: measured in {time.perf_counter() - began:.1f} s\n")
    general = measure(open_texts(options.general, max_rows=options.texts), tokenizer) if options.general else None
    advice = advise(measurement, len(tokenizer), general, unreachable_share(tokenizer), fixed_because(tokenizer))
    print(vocabulary_text(measurement, tokenizer, advice, general))
    if options.plot:
        write_vocabulary(Path(options.plot), measurement, damaging_splits(measurement, general), tokenizer, general)
    if options.tokens:
        began = time.perf_counter()
        chosen = choose_tokens(measurement, tokenizer, options.tokens, terms=read_terms(options.terms) if options.terms else ())
        share = sum(chosen.saved) / measurement.totals.tokens
        print(f"\n{len(chosen.tokens)} tokens chosen in {time.perf_counter() - began:.1f} s, {chosen.wanted} of them for terms;"
              f" they save {share:.2%} of the tokens:")
        for token, saved in zip(chosen.tokens, chosen.saved, strict=True):
            print(f"{readable(token, tokenizer)} {saved:,}", end="  ")
        print()
        if options.terms:
            print(f"{len(chosen.known)} terms need nothing; refused: {dict(list(chosen.refused.items())[:20])}")


if __name__ == "__main__":
    main()
