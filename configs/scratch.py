r"""A tokenizer and an encoder from nothing.

    python -m jaxplm.main --config=configs/scratch.py --config.data.train='corpus/*.txt' --config.model.size=base

trains a vocabulary on the corpus and then an encoder with random weights.

`vocab.kind`
    wordpiece   whole words, and pieces that continue one ("##ness"); the encoder is a BERT
    bpe         byte-level: no text is ever [UNK]; the encoder is a RoBERTa
    unigram     the likeliest pieces, spaces among them; the encoder is a BERT
`vocab.language`
    latin       scripts written with spaces: the rules of BERT (wordpiece) and RoBERTa (bpe); accents stay
    korean      Hangul stays composed; ㅋㅋㅋㅋㅋ is read as ㅋㅋㅋ; Hangul, ㅋㅋ, Latin, numbers and signs are words of their own
    auto        korean where a fifth of the letters are Hangul, else latin; the log says which
`vocab.cased=true` keeps capitals. `model.tokenizer=DIR` takes an existing tokenizer. `model.size`: tiny, mini, small,
base, large.

A Korean corpus, a text a line:

    python -m jaxplm.main --config=configs/scratch.py --workdir=runs/reviews --config.data.train=reviews.txt \
        --config.data.lines=true --config.vocab.language=korean --config.vocab.size=16000 --config.model.size=mini \
        --config.train.steps=20000
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train, Vocab


def get_config() -> Config:
    return Config(
        recipe="scratch",
        model=Model(path="", size="tiny", dropout=0.0, attention_dropout=0.0),
        data=Data(train="builtin:pydocs", seq_len=64, eval_rows=500),
        train=Train(steps=300, batch_size=32, learning_rate=1e-3, warmup=0.06, eval_every=100),
        checkpoint=Checkpoint(every=100),
        vocab=Vocab(size=8192),
    )
