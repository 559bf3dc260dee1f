"""Count what the masker does to a real corpus, and show which words it sees in a text.

    python benchmarks/show_masking.py --tokenizer=DIR --corpus=FILE [--tokens=1000000] [--text="hospital, (COVID-19)"]

For single tokens and for whole words it prints the share of masked tokens; of those, the shares that became [MASK],
another token, or stayed; masked special tokens; and rows that broke the exact budget or masked a part of a word. The
last two must be 0. Then it prints the words of each --text.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from jaxplm import hf
from jaxplm.config import Config, Data, Train
from jaxplm.data.corpus.words import split_words
from jaxplm.recipes.pretrain.corpus import CorpusReader


def count(options: argparse.Namespace, whole_word: bool) -> None:
    """Read rows until enough tokens were seen, and print the shares and the violations."""
    tokenizer, _ = hf.load_tokenizer(Path(options.tokenizer), options.tokenizer)
    data = Data(train=options.corpus, seq_len=options.length, mask_rate=options.rate, whole_word=whole_word)
    reader = CorpusReader(Config(data=data, train=Train(batch_size=64)), tokenizer, np.arange(64))
    plan = reader.plan(reader.store(options.corpus, max_rows=options.texts))
    batches = reader.training(plan)
    special = np.array(tokenizer.all_special_ids)
    seen = masked = wrong_rows = to_mask = kept = special_masked = 0
    for step in itertools.count():
        if seen >= options.tokens:
            break
        batch = batches.batch(step)
        rows = plan.gather(batches.rows_of_step(step), reader.masking.special, batches.draws_of_step(step))
        maskable, starts = rows.maskable, rows.word_starts  # [B, L] bool each
        chosen = np.zeros(batch.input_ids.shape, bool)
        of_row = np.repeat(np.arange(len(chosen)), (batch.mlm_weights > 0).sum(1))
        chosen[of_row, batch.mlm_positions[batch.mlm_weights > 0]] = True
        labels = batch.mlm_labels[batch.mlm_weights > 0]
        inputs = batch.input_ids[chosen]
        budget = np.array([round(options.rate * int(n)) for n in maskable.sum(1)])
        if whole_word:
            wrong_rows += int((chosen.sum(1) > budget).sum())
            # A word is masked in part where two neighbouring tokens of it differ.
            inside = maskable[:, 1:] & maskable[:, :-1] & ~starts[:, 1:]
            wrong_rows += int((inside & (chosen[:, 1:] != chosen[:, :-1])).any(1).sum())
        else:
            wrong_rows += int((chosen.sum(1) != budget).sum())
        special_masked += int(np.isin(labels, special).sum())
        seen += int(maskable.sum())
        masked += len(labels)
        to_mask += int((inputs == tokenizer.mask_token_id).sum())
        kept += int((inputs == labels).sum())
    other = masked - to_mask - kept
    print(f"{'whole words' if whole_word else 'tokens':<12}{seen:>10,} tokens: {masked:,} masked = {masked / seen:.4%};"
          f" [MASK] {to_mask / masked:.3%}, other token {other / masked:.3%}, unchanged {kept / masked:.3%};"
          f" special tokens masked {special_masked}, rows off the budget or with a word masked in part {wrong_rows}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=None, help="read at most this many texts")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--text", action="append", default=None, help="show the words of this text; may be repeated")
    options = parser.parse_args()
    for whole_word in (False, True):
        count(options, whole_word)
    tokenizer, _ = hf.load_tokenizer(Path(options.tokenizer), options.tokenizer)
    for text in options.text or ["hospital, (COVID-19)", "아버지가 방에 들어가신다ㅋㅋ"]:
        print(f"{text}  →  {' | '.join(split_words(text, tokenizer))}")


if __name__ == "__main__":
    main()
