"""Vocabulary extension: the domain's words join the tokenizer, the embeddings are resized, and MLM goes on.

    python -m jaxplm.main --config=configs/extend_vocab.py

measures how the checkpoint's tokenizer cuts the corpus, says what to do about it, adds the tokens that save most to the
tokenizer's own model (all old ids stay), starts their rows from the pieces they replace, and trains. For up to about 1 % of
the vocabulary; configs/exbert.py is for more. train.steps=0 does the surgery alone:

    python -m jaxplm.main --config=configs/extend_vocab.py --workdir=runs/words --config.model.path=bert-base-uncased \
        --config.data.train='corpus/*.txt' --config.vocab.new_tokens=300 --config.vocab.terms=terms.txt --config.train.steps=0
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train, Vocab


def get_config() -> Config:
    return Config(
        recipe="extend_vocab",
        model=Model(path="builtin:tiny"),
        data=Data(train="builtin:pydocs", seq_len=128, whole_word=True, eval_rows=250),
        train=Train(steps=200, batch_size=16, learning_rate=5e-4, eval_every=100),
        checkpoint=Checkpoint(every=100),
        vocab=Vocab(new_tokens=80),
    )
