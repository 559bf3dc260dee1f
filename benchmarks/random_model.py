"""Write a RoBERTa of any size with random weights, in transformers' format, for benchmarks on a machine without checkpoints.

    python benchmarks/random_model.py --out=DIR [--size=base] [--vocab=50265] [--corpus=builtin:pydocs]

The tokenizer is a byte-level BPE trained on the corpus. Where the corpus does not fill --vocab entries, the word table
still has that many rows, so that the model's cost is that of a real one. It needs no network. An existing DIR is kept.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--size", default="base", help="tiny, mini, small, base or large")
    parser.add_argument("--vocab", type=int, default=50_265, help="rows of the word table")
    parser.add_argument("--positions", type=int, default=512, help="tokens per row at most")
    parser.add_argument("--corpus", default="builtin:pydocs", help="texts of the tokenizer")
    parser.add_argument("--texts", type=int, default=4000, help="how many of them are read")
    options = parser.parse_args()
    if Path(options.out).exists():
        return print(f"{options.out} is there already")
    from jaxplm import hf, nn
    from jaxplm.data.sources.texts import open_texts
    from jaxplm.recipes.pretrain.new_model import new_config
    from jaxplm.vocab.train_tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        texts = open_texts(options.corpus, max_rows=options.texts)
        entries = train_tokenizer(texts, "bpe", options.vocab, Path(scratch), language="latin", cased=True,
                                  max_positions=options.positions)
        tokenizer = hf.load_tokenizer(Path(scratch), scratch)[0]
    config = dataclasses.replace(new_config(options.size, tokenizer, options.positions), vocab_size=options.vocab)
    hf.save(options.out, config, nn.random_params(config, 0), tokenizer, {})
    print(f"{options.out}: {config.model_type} {options.size}, {options.vocab:,} rows in the word table, {entries:,} tokens")


if __name__ == "__main__":
    main()
