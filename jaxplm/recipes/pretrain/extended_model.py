"""Extend the vocabulary of a checkpoint: measure it, choose new tokens, add them, and give the model rows or a module for them."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Records, made_once, read_json
from jaxplm.devices.processes import is_first, wait_for_all
from jaxplm.engine.workdir import is_claimed
from jaxplm.errors import UserError
from jaxplm.reporting.console import log_table
from jaxplm.reporting.tables import code, markdown
from jaxplm.vocab.append import ExtendedTokenizer, append_tokens
from jaxplm.vocab.choose import choose_tokens
from jaxplm.vocab.corpus_report import KEPT, report_corpus
from jaxplm.vocab.measure import remeasure
from jaxplm.vocab.report import figures
from jaxplm.vocab.resize import resize_embeddings
from jaxplm.vocab.terms import read_terms

log = logging.getLogger("jaxplm")

_SHOWN = 60  # new tokens in the report


@dataclass(frozen=True)
class NewTokens:
    """What was added.

    Attributes:
      first: id of the first new token; the others follow.
      count: how many.
    """

    first: int
    count: int


def extended_model(config: Config, workdir: Path) -> tuple[hf.Loaded, NewTokens, str]:
    """Return the checkpoint of `model.path` with `vocab.new_tokens` new tokens; the recipe says whether rows or a module is added.

    The first process chooses the tokens and keeps them in `workdir`/vocabulary; a resumed run, and all other processes, read
    them.

    Returns:
      The extended checkpoint, what was added, and the section "Vocabulary" of report.md.

    Raises:
      UserError: see `hf.load`, `choose_tokens`, `append_tokens`; or there is nothing to add.
    """
    loaded = hf.load(config.model.path, seed=config.seed)
    if loaded.config.extension:
        raise UserError(f"model.path={config.model.path} has an extension already: extend the base that it was made from")
    kept = workdir / KEPT / "tokens.json"
    if is_first():
        made_once(Records(workdir), kept, lambda: _choose(config, workdir, loaded.tokenizer), usable=is_claimed(workdir), warn=log.warning)
    wait_for_all("vocabulary")
    content = read_json(kept)
    appended = append_tokens(loaded.tokenizer, content["tokens"])
    return _extended(config, loaded, appended), NewTokens(appended.old_size, len(appended.tokens)), content["section"]


def _choose(config: Config, workdir: Path, tokenizer: Any) -> None:
    """Measure the vocabulary, choose new tokens, log both, and write tokens.json and the plot."""
    vocab = config.vocab
    terms = read_terms(vocab.terms) if vocab.terms else []  # a wrong name is reported before the corpus is read
    measured = report_corpus(config, workdir, tokenizer)
    before = measured.domain
    chosen = choose_tokens(before, tokenizer, vocab.new_tokens, terms=terms, min_texts=vocab.min_texts)
    appended = append_tokens(tokenizer, chosen.tokens)
    refused = chosen.refused | appended.refused
    if refused:
        some = "; ".join(f"{token!r} {reason}" for token, reason in list(refused.items())[:5])
        log.warning("%s terms cannot be one token and are left out: %s%s", f"{len(refused):,}", some, "; …" if len(refused) > 5 else "")
    if not appended.tokens:
        raise UserError(f"no token to add: vocab.new_tokens={vocab.new_tokens}, vocab.terms={vocab.terms!r}, and no word of"
                        f" {config.data.train} that is cut occurs in vocab.min_texts={vocab.min_texts} texts")
    if len(appended.tokens) < vocab.new_tokens:
        log.info("%s tokens are added and not %s: nothing more would save a token", f"{len(appended.tokens):,}", f"{vocab.new_tokens:,}")
    after = remeasure(before, appended.tokenizer)
    table = figures([("before", before), (f"with {len(appended.tokens):,} new tokens", after)])
    log_table(table, header=True)
    shown = ", ".join(code(token) for token in appended.tokens[:_SHOWN]) + (", …" if len(appended.tokens) > _SHOWN else "")
    section = "\n\n".join([measured.section, "### With the new tokens", markdown(table, "lrr"),
                           f"{len(appended.tokens):,} new tokens, those first that save most: {shown}"])
    content = {"tokens": chosen.tokens, "section": section}
    atomic.write_text(workdir / KEPT / "tokens.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _extended(config: Config, loaded: hf.Loaded, appended: ExtendedTokenizer) -> hf.Loaded:
    """Return the checkpoint with rows of the word table and of the decoder's bias for the new tokens, or with exBERT's extension."""
    first, n, init = appended.old_size, len(appended.tokens), config.vocab.init
    params, encoder_config = resize_embeddings(loaded.params, loaded.config, first + n, appended.pieces, init=init, seed=config.seed)
    if config.recipe == "exbert":
        new = slice(first, first + n)
        rows, bias = params["encoder"]["embeddings"]["word"][new], params["mlm_head"]["bias"][new]
        extension = nn.extension_config(loaded.config, n, config.model.extension)
        params, encoder_config = nn.extend_params(loaded.params, loaded.config, extension, rows, bias, first=first)
    return dataclasses.replace(loaded, params=params, config=encoder_config, tokenizer=appended.tokenizer)
