r"""Add a domain's words to a checkpoint's vocabulary, then train.

    jaxplm --config=extend_vocab

1. Measures how the checkpoint's tokenizer splits the corpus, and prints one
   sentence of advice.
2. Adds the tokens that save most pieces to the tokenizer; old ids stay.
3. Gives them embeddings, the mean of those of the pieces that they replace.
4. Trains by masked language modelling.

Meant for up to about 1 % of the vocabulary; exbert is for more. With no field
it adds 80 tokens to builtin:tiny. train.steps=0 exports after step 3:

    jaxplm --config=extend_vocab --workdir=runs/words \
        --config.model.path=bert-base-uncased \
        --config.data.train='corpus/*.txt' --config.train.steps=0 \
        --config.vocab.new_tokens=300 --config.vocab.terms=terms.txt
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
