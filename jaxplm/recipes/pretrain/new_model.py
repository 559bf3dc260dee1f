"""Make a model from nothing: a tokenizer trained on the corpus, or an existing one, and an encoder with random weights."""

import json
import logging
from pathlib import Path
from typing import Any

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Records, made_once
from jaxplm.data.sources.texts import open_corpus
from jaxplm.devices.processes import is_first, wait_for_all
from jaxplm.engine.workdir import is_claimed
from jaxplm.errors import UserError
from jaxplm.hf.families import FAMILIES, Family, family_of
from jaxplm.tasks.objectives import selected_objective
from jaxplm.vocab.corpus_report import KEPT, report_corpus
from jaxplm.vocab.train_tokenizer import train_tokenizer

log = logging.getLogger("jaxplm")

# Width D, layers N, heads H; the feed-forward width is 4 D. tiny and small are the mini and medium of Turc et al. 2019; mini
# is half of BERT-base in each direction; base and large are those of Devlin et al. 2019. Millions of parameters in the
# blocks: 3.2, 11, 25, 85, 302.
SIZES = {"tiny": (256, 4, 4), "mini": (384, 6, 6), "small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}


def new_model(config: Config, workdir: Path) -> tuple[nn.EncoderConfig, nn.ParamTree, Any, str]:
    """Return config, random parameters and tokenizer of a new model, and the section "Vocabulary" of report.md in Markdown.

    A new tokenizer is kept in `workdir`/tokenizer, and the measurements of the vocabulary in `workdir`/vocabulary, for a
    resumed run.

    Raises:
      UserError: `model.size` is unknown; see `train_tokenizer` and `hf.load_tokenizer`.
    """
    check_size(config.model.size)
    tokenizer = new_tokenizer(config, workdir)
    pairs = selected_objective(config.model.pairs).pair_head
    encoder_config = new_config(config.model.size, tokenizer, config.model.max_positions, pairs=pairs)
    return encoder_config, nn.random_params(encoder_config, config.seed), tokenizer, _measured(config, workdir, tokenizer)


def check_size(size: str) -> None:
    """Raise UserError for an unknown size."""
    if size not in SIZES:
        raise UserError(f"model.size={size!r}: must be one of {', '.join(SIZES)}")


def new_config(size: str, tokenizer: Any, max_positions: int, *, pairs: bool = False) -> nn.EncoderConfig:
    """Return the config of an encoder of the named size, of the family that the tokenizer is made for.

    Args:
      size: one of `SIZES`.
      tokenizer: transformers' fast tokenizer.
      max_positions: tokens per row at most.
      pairs: whether the model has a pooler and a head that classifies pairs.

    Raises:
      UserError: an unknown size; pairs in a family without a head for them.
    """
    check_size(size)
    width, layers, heads = SIZES[size]
    family = family_for_tokenizer(tokenizer)
    if pairs and not family.pair_head:
        able = ", ".join(other.model_type for other in FAMILIES.values() if other.pair_head)
        raise UserError(f"model.pairs: a model for this tokenizer is a {family.model_type}, which has no head for pairs; of the"
                        f" families, {able} has one (vocab.kind=wordpiece)")
    vocab_size = max(tokenizer.get_vocab().values()) + 1  # a foreign vocabulary may have gaps
    return family.encoder_config(tokenizer.pad_token_id, vocab_size=vocab_size, width=width, layers=layers, heads=heads,
                                 ffn_width=4 * width, max_positions=max_positions, pooler=pairs, pair_head=pairs)


def family_for_tokenizer(tokenizer: Any) -> Family:
    """Return the family of a new model: roberta for byte-level BPE with RoBERTa's padding id, else bert."""
    roberta = family_of("roberta")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]
    return roberta if model == "BPE" and tokenizer.pad_token_id == roberta.default_pad_id else family_of("bert")


def new_tokenizer(config: Config, workdir: Path) -> Any:
    """Return the tokenizer of `model.tokenizer`, or train one on `data.train` by the settings in `vocab`."""
    model, data, vocab = config.model, config.data, config.vocab
    directory = Path(model.tokenizer) if model.tokenizer else workdir / "tokenizer"
    def train() -> None:
        texts = open_corpus(data, data.train, max_rows=data.max_rows)
        log.info("training a vocabulary of %s (%s) on %s", f"{vocab.size:,}", vocab.kind, texts.describe)
        with atomic.new_directory(directory) as staged:
            train_tokenizer(texts, vocab.kind, vocab.size, staged, language=vocab.language, cased=vocab.cased,
                            max_positions=model.max_positions)

    if not model.tokenizer and is_first():
        made_once(Records(workdir), directory, train, usable=is_claimed(workdir), warn=log.warning)
    wait_for_all("tokenizer")
    return hf.load_tokenizer(directory, str(directory))[0]


def _measured(config: Config, workdir: Path, tokenizer: Any) -> str:
    kept = workdir / KEPT / "section.md"
    if is_first():
        def measure() -> None:
            atomic.write_text(kept, report_corpus(config, workdir, tokenizer, new=not config.model.tokenizer).section)

        made_once(Records(workdir), kept, measure, usable=is_claimed(workdir), warn=log.warning)
    wait_for_all("vocabulary")
    return kept.read_text("utf-8")
