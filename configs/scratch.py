r"""Train a new tokenizer and a new encoder on a corpus.

    jaxplm --config=scratch --config.data.train='corpus/*.txt' \
        --config.model.size=base

First a vocabulary is trained on the corpus, then an encoder that starts from
random weights. With no field it trains a small one on the documentation of the
Python packages that are installed, for 300 steps; good models need far more.

vocab.kind
    wordpiece   words, and pieces that continue one ("##ness"); gives a BERT
    bpe         byte-level, so no text is ever [UNK]; gives a RoBERTa
    unigram     the likeliest pieces, with their spaces; gives a BERT
vocab.language
    latin       scripts with spaces between words: the rules of BERT (wordpiece)
                and of RoBERTa (bpe); accents are kept
    korean      Hangul syllables stay composed; ㅋㅋㅋㅋㅋ is read as ㅋㅋㅋ; Hangul,
                ㅋㅋ, Latin letters, numbers and signs are separate words
    auto        korean where a fifth of the letters are Hangul, else latin; the
                log says which
vocab.cased=true keeps capital letters. model.tokenizer=DIR uses an existing
tokenizer. model.size is tiny, mini, small, base or large.

A Korean corpus with one text per line:

    jaxplm --config=scratch --workdir=runs/reviews \
        --config.data.train=reviews.txt --config.data.lines=true \
        --config.vocab.language=korean --config.vocab.size=16000 \
        --config.model.size=mini --config.train.steps=20000
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
