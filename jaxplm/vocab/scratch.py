"""A tokenizer and an encoder from nothing."""

import itertools
import json
import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxplm.errors import UserError
from jaxplm.nn import EncoderConfig

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Width, layers, heads: the smaller ones after Turc et al. 2019, the larger two after Devlin et al. 2019.
SIZES = {"tiny": (256, 4, 4), "mini": (384, 6, 6), "small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}


def new_config(size: str, vocab_size: int, max_positions: int) -> EncoderConfig:
    """A BERT of the named size with feed-forward width 4 D. Raises UserError for an unknown size."""
    if size not in SIZES:
        raise UserError(f"model.size={size!r}: must be one of {', '.join(SIZES)}")
    width, layers, heads = SIZES[size]
    return EncoderConfig("bert", vocab_size, width, layers, heads, 4 * width, max_positions, token_types=2)


def train_wordpiece(texts: Iterable[str], size: int, directory: Path, max_positions: int) -> None:
    """Train an uncased WordPiece vocabulary (Wu et al. 2016) of `size` on texts and write it as a BERT tokenizer.

    Accents stay: stripping them decomposes Hangul, and every Korean word would become [UNK]. `directory` gets
    tokenizer.json, vocab.txt and tokenizer_config.json, which `transformers.AutoTokenizer` reads.
    Memory grows with the number of different words, not with the corpus.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), min_frequency=2,
                                        show_progress=False, limit_alphabet=max(1000, size // 4),
                                        initial_alphabet=list(string.punctuation))
    # ASCII letters and digits are known at the start and inside of words, whatever the corpus: no [UNK] for "utf8".
    basic = (c + c for c in string.ascii_lowercase + string.digits)
    tokenizer.train_from_iterator(itertools.chain(basic, texts), trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
    tokenizer.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    words = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (directory / "vocab.txt").write_text("".join(word + "\n" for word, _ in words), "utf-8")
    roles = {f"{role}_token": token for role, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False,
                "model_max_length": max_positions, **roles}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
