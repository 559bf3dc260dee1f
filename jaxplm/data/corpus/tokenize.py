"""Tokenize a corpus once per corpus and tokenizer: the cache on disk around `encode`."""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from jaxplm.data import atomic
from jaxplm.data.corpus.encode import encode_corpus
from jaxplm.data.corpus.store import FORMAT_VERSION, TokenStore, seal
from jaxplm.data.corpus.unknown_words import cause_of_unknown
from jaxplm.data.sources.texts import Texts
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

_HIGH_UNK = 0.1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def default_cache() -> Path:
    """Return the directory of caches: `$JAXPLM_CACHE`, or `~/.cache/jaxplm`."""
    return Path(os.environ.get("JAXPLM_CACHE") or Path.home() / ".cache" / "jaxplm").expanduser()


def tokenize(texts: Texts, tokenizer: Any, cache_dir: Path | None = None) -> TokenStore:
    """Return the tokens of a corpus, from the cache or tokenized now.

    The cache key is a hash of the texts' content, the tokenizer and the format. A store is complete or absent.
    Processes of one machine that want the same store wait for the first of them.

    Args:
      texts: from `sources.texts.open_texts`.
      tokenizer: a fast transformers tokenizer; its truncation and padding are neither used nor changed.
      cache_dir: where stores are kept; `default_cache()` if None.

    Raises:
      UserError: an unreadable or empty corpus, a cache directory that cannot be written, no disk space.
    """
    cache_dir = Path(cache_dir) if cache_dir is not None else default_cache()
    backend, identity = clean_copy(tokenizer)
    key = hashlib.sha256(f"{FORMAT_VERSION} {texts.fingerprint} {identity}".encode()).hexdigest()[:32]
    final = cache_dir / "tokens" / key
    store = _open_cached(final, texts)
    if store is None:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with _lock(final.with_suffix(".lock")):
                store = _open_cached(final, texts)  # another process may have written it while this one waited
                if store is None:
                    _build(texts, backend, tokenizer.unk_token_id, final)
                    store = TokenStore.open(final)
        except OSError as error:
            raise _disk_error(error, cache_dir, texts) from error
    _warn_unknown(store.meta, tokenizer, texts.describe)
    return store


def clean_copy(tokenizer: Any) -> tuple[tokenizers.Tokenizer, str]:
    """Return a copy of the tokenizer without truncation and padding, and a string that identifies it."""
    original = tokenizer.backend_tokenizer
    state = json.loads(original.to_str())
    state["truncation"] = state["padding"] = None
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = original.encode_special_tokens
    return backend, json.dumps([state, original.encode_special_tokens], sort_keys=True)


def _open_cached(final: Path, texts: Texts) -> TokenStore | None:
    if not final.exists():
        return None
    try:
        store = TokenStore.open(final)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cached tokens %s are damaged (%s): the corpus is tokenized again", final, error)
        shutil.rmtree(final, ignore_errors=True)
        return None
    log.info("%s: %s tokens from the cache (%s)", texts.describe, f"{store.meta['tokens']:,}", final)
    return store


def _disk_error(error: OSError, cache_dir: Path, texts: Texts) -> UserError:
    """Return the error for a cache that cannot be written, with the space that is needed where it is full."""
    if error.errno not in _NO_SPACE:
        return UserError(f"cannot write the token cache {cache_dir}: {error}; set JAXPLM_CACHE to another place")
    # A token is about 4.5 bytes of text and 3 to 5 on disk; compressed files hold about three times their size.
    need = sum(path.stat().st_size * (3 if path.suffix in (".gz", ".zst") else 1) for path in texts.files)
    place = cache_dir if cache_dir.exists() else cache_dir.parent
    free = f"{shutil.disk_usage(place).free / 1e6:,.0f} MB free" if place.exists() else "none free"
    return UserError(
        f"no space for the tokens of {texts.describe} in {cache_dir}: about "
        f"{max(need, 10_000_000) / 1e6:,.0f} MB needed, {free}; set JAXPLM_CACHE to a larger disk"
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # on a file system without locks, two processes may both do the work
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(texts: Texts, backend: tokenizers.Tokenizer, unk_id: int | None, final: Path) -> None:
    # If it is not set, an earlier fork of the process turns the parallelism off.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Another machine on a shared disk may have written the same store in the meantime; then that one is kept.
    with atomic.new_directory(final, keep_existing=True) as staged:
        start = time.monotonic()
        meta = encode_corpus(texts, backend, unk_id, staged)
        seconds = max(time.monotonic() - start, 1e-9)
        seal(staged, meta)
    log.info(
        "%s: %s texts, %s tokens, tokenized in %.1f s (%s tokens/s)",
        texts.describe,
        f"{meta['texts']:,}",
        f"{meta['tokens']:,}",
        seconds,
        f"{meta['tokens'] / seconds:,.0f}",
    )


def _warn_unknown(meta: dict[str, Any], tokenizer: Any, describe: str) -> None:
    """Log a warning where many words are unknown, with the likely cause."""
    # The share is of words, not of tokens: where Hangul is taken apart, each word that is known gives ten tokens.
    share = meta["unk"] / meta["words"]
    if share <= _HIGH_UNK:
        return
    cause = cause_of_unknown(tokenizer)
    log.warning("%s: %.0f %% of the words are %s; %s", describe, 100 * share, tokenizer.unk_token, cause)
