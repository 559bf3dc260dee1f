"""A model from nothing: a tokenizer of the corpus's own, or an existing one, and an encoder of a named size with random weights."""

import json
import logging
from pathlib import Path
from typing import Any

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.sources.texts import open_corpus
from jaxplm.devices.processes import is_first, wait_for_all
from jaxplm.engine.workdir import is_claimed
from jaxplm.errors import UserError
from jaxplm.tasks.objectives import selected_objective
from jaxplm.vocab.measured import KEPT, measure_vocabulary
from jaxplm.vocab.train_tokenizer import train_tokenizer

log = logging.getLogger("jaxplm")

# Width D, layers N, heads H; feed-forward 4 D. tiny and small are Turc et al. 2019's mini and medium, mini is half of
# BERT-base each way; base and large: Devlin et al. 2019. Millions of parameters in the blocks: 3.2, 11, 25, 85, 302.
SIZES = {"tiny": (256, 4, 4), "mini": (384, 6, 6), "small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}


def new_model(config: Config, workdir: Path) -> tuple[nn.EncoderConfig, nn.ParamTree, Any, str]:
    """Shape, random parameters, tokenizer, and "Vocabulary" of report.md in Markdown: how the tokenizer cuts the corpus.

    A new tokenizer is kept in `workdir`/tokenizer and what was measured in `workdir`/vocabulary, for a resumed run.

    Raises UserError: an unknown `model.size`; see `train_tokenizer` and `hf.load_tokenizer`.
    """
    check_size(config.model.size)
    tokenizer = new_tokenizer(config, workdir)
    shape = new_config(config.model.size, tokenizer, config.model.max_positions, pairs=selected_objective(config.model.pairs).pair_head)
    return shape, nn.random_params(shape, config.seed), tokenizer, _measured(config, workdir, tokenizer)


def check_size(size: str) -> None:
    """Raise UserError for an unknown size."""
    if size not in SIZES:
        raise UserError(f"model.size={size!r}: must be one of {', '.join(SIZES)}")


def new_config(size: str, tokenizer: Any, max_positions: int, *, pairs: bool = False) -> nn.EncoderConfig:
    """The encoder of the named size for a tokenizer: a RoBERTa for byte-level BPE with RoBERTa's padding id, else a BERT.

    Args:
      tokenizer: transformers' fast tokenizer.
      max_positions: usable ones; RoBERTa's table is two longer.
      pairs: with a pooler and a head of sentence pairs, which a BERT alone has.

    Raises:
      UserError: an unknown size; pairs for a RoBERTa.
    """
    check_size(size)
    width, layers, heads = SIZES[size]
    pad = tokenizer.pad_token_id
    roberta = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"] == "BPE" and pad == 1
    vocab_size = max(tokenizer.get_vocab().values()) + 1  # a foreign vocabulary may have gaps
    if roberta and pairs:
        raise UserError("model.pairs: this tokenizer makes a RoBERTa, which has no token types to tell two segments apart;"
                        " vocab.kind=wordpiece makes a BERT")
    if roberta:
        return nn.EncoderConfig("roberta", vocab_size, width, layers, heads, 4 * width, max_positions, position_offset=pad + 1,
                                token_types=1, norm_eps=1e-5, pad_id=pad)
    return nn.EncoderConfig("bert", vocab_size, width, layers, heads, 4 * width, max_positions, token_types=2, pad_id=pad, pooler=pairs,
                            pair_head=pairs)


def new_tokenizer(config: Config, workdir: Path) -> Any:
    """The tokenizer of `model.tokenizer`, or one trained on `data.train` as `vocab` says."""
    model, data, vocab = config.model, config.data, config.vocab
    directory = Path(model.tokenizer) if model.tokenizer else workdir / "tokenizer"
    if not model.tokenizer and is_first() and not (directory.exists() and is_claimed(workdir)):
        texts = open_corpus(data, data.train, max_rows=data.max_rows)
        log.info("training a vocabulary of %s (%s) on %s", f"{vocab.size:,}", vocab.kind, texts.describe)
        with atomic.new_directory(directory) as staged:
            train_tokenizer(texts, vocab.kind, vocab.size, staged, language=vocab.language, cased=vocab.cased,
                            max_positions=model.max_positions)
    wait_for_all("tokenizer")
    return hf.load_tokenizer(directory, str(directory))[0]


def _measured(config: Config, workdir: Path, tokenizer: Any) -> str:
    kept = workdir / KEPT / "section.md"
    if is_first() and not (kept.exists() and is_claimed(workdir)):
        atomic.write_text(kept, measure_vocabulary(config, workdir, tokenizer, new=not config.model.tokenizer).section)
    wait_for_all("vocabulary")
    return kept.read_text("utf-8")
