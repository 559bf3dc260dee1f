import errno
import json
import logging
import random
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_line, refuses
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jaxplm.data.corpus import encode, words
from jaxplm.data.corpus.tokenize import default_cache, tokenize
from jaxplm.data.sources.texts import open_texts

TEXTS = ["the first text, short", "second one\nwith two lines", "東京都 and (words)", "the end " * 40]


def make_tokenizer(normalizer=None, texts=TEXTS, byte_level=False):
    if byte_level:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    else:
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizer or normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=120, special_tokens=["[UNK]", "[PAD]"], show_progress=False
        )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=None if byte_level else "[UNK]")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXTS))
    return str(path)


def test_store_holds_every_text(tokenizer, corpus, tmp_path):
    store = tokenize(open_texts(corpus), tokenizer, tmp_path / "cache")
    texts = list(open_texts(corpus))
    expected = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert store.tokens.dtype == np.uint16
    assert store.word_starts.dtype == np.bool_
    assert store.offsets.dtype == np.int64
    assert [
        store.tokens[a:b].tolist() for a, b in zip(store.offsets, store.offsets[1:], strict=False)
    ] == expected
    assert store.word_starts[store.offsets[:-1]].all()
    counted = sum(len(words.split_words(text, tokenizer)) for text in texts)
    assert store.word_starts.sum() == store.meta["words"] == counted
    assert store.meta["texts"] == 4
    assert store.meta["tokens"] == len(store.tokens) == sum(map(len, expected))
    assert store.meta["chars"] == sum(map(len, texts))
    assert store.meta["counts"] == {"texts": 4}
    with pytest.raises(ValueError, match="read-only"):
        store.tokens[0] = 1


def test_truncation_and_padding_are_not_used_and_stay(corpus, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    before = tokenizer.backend_tokenizer.to_str()
    store = tokenize(open_texts(corpus), tokenizer, tmp_path / "cache")
    assert np.diff(store.offsets).max() > 50
    assert tokenizer.backend_tokenizer.to_str() == before
    # So they do not make another cache entry either.
    tokenizer.backend_tokenizer.no_truncation()
    tokenize(open_texts(corpus), tokenizer, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "tokens").glob("*/"))) == 1


def test_cache_is_by_content_and_tokenizer(tokenizer, corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxplm")
    cache = tmp_path / "cache"
    first = tokenize(open_texts(corpus), tokenizer, cache)
    assert "4 texts, " in caplog.text
    assert "tokens/s" in caplog.text
    caplog.clear()
    shutil.copy(corpus, tmp_path / "copy.txt")
    again = tokenize(open_texts(str(tmp_path / "copy.txt")), tokenizer, cache)
    assert "from the cache" in caplog.text
    np.testing.assert_array_equal(first.tokens, again.tokens)
    caplog.clear()
    tokenize(open_texts(corpus, lines="true"), tokenizer, cache)
    tokenize(open_texts(corpus), make_tokenizer(normalizers.BertNormalizer(lowercase=False)), cache)
    assert "from the cache" not in caplog.text
    assert len([path for path in (cache / "tokens").iterdir() if path.is_dir()]) == 3


def test_a_damaged_store_is_made_again(tokenizer, corpus, tmp_path, caplog):
    cache = tmp_path / "cache"
    expected = np.array(tokenize(open_texts(corpus), tokenizer, cache).tokens)
    (store,) = (path for path in (cache / "tokens").iterdir() if path.is_dir())
    for name, data in (("tokens.bin", b"x"), ("meta.json", b"{"), ("offsets.bin", b"\0" * 8)):
        (store / name).write_bytes(data)
        np.testing.assert_array_equal(tokenize(open_texts(corpus), tokenizer, cache).tokens, expected)
    assert caplog.text.count("are damaged") == 3


@pytest.mark.parametrize("byte_level", [False, True])
def test_long_texts_in_pieces_equal_the_whole(byte_level, tmp_path, monkeypatch):
    tokenizer = make_tokenizer(byte_level=byte_level)
    rng = random.Random(0)
    alphabet = [
        "the",
        "first",
        "words,",
        "(two)",
        "don't",
        "\n",
        "\n\n",
        "  ",
        "한글",
        "東京",
        "3.5",
        "-",
        "cafe\u0301",
    ]
    long = [" ".join(rng.choices(alphabet, k=600)).strip() for _ in range(3)]
    path = tmp_path / "a.jsonl"

    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*long, "short", *long[:1]]))
    whole = tokenize(open_texts(str(path)), tokenizer, tmp_path / "whole")
    monkeypatch.setattr(encode.split_pieces, "__defaults__", (60,))
    monkeypatch.setattr(encode, "_BATCH_CHARS", 150)
    pieces = tokenize(open_texts(str(path)), tokenizer, tmp_path / "pieces")
    np.testing.assert_array_equal(whole.tokens, pieces.tokens)
    np.testing.assert_array_equal(whole.offsets, pieces.offsets)
    np.testing.assert_array_equal(whole.word_starts, pieces.word_starts)
    assert whole.meta["chars"] == pieces.meta["chars"]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab \n\t東e\u0301"), max_size=60), size=st.integers(2, 12))
def test_pieces_lose_nothing(text, size):
    pieces = list(encode.split_pieces([text, "next"], size))
    assert "".join(piece.text for piece in pieces) == text + "next"
    assert [piece.opens_text for piece in pieces].count(True) == 2
    assert all(len(piece.text) <= size for piece in pieces[:-1])


def test_texts_without_tokens_are_counted_and_left_out(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("the text\n\u200b\u00ad\nfirst")  # format characters, which BERT removes
    store = tokenize(open_texts(str(tmp_path / "a.txt")), tokenizer, tmp_path / "cache")
    assert store.meta["texts"] == 2
    assert store.meta["no_tokens"] == 1
    assert (np.diff(store.offsets) > 0).all()
    (tmp_path / "a.txt").write_text("\u00ad")
    with refuses("1", "token"):
        tokenize(open_texts(str(tmp_path / "a.txt")), tokenizer, tmp_path / "cache")


def test_no_half_store_is_left(tokenizer, corpus, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "token_arrays", fail)
    with pytest.raises(KeyboardInterrupt):
        tokenize(open_texts(corpus), tokenizer, cache)
    assert [path.suffix for path in (cache / "tokens").iterdir()] == [".lock"]
    monkeypatch.undo()
    # What a killed run left of the same corpus is cleaned up by the next.
    (lock,) = (cache / "tokens").iterdir()
    left = cache / "tokens" / f".{lock.stem}.{socket.gethostname()}.partial"
    left.mkdir()
    tokenize(open_texts(corpus), tokenizer, cache)
    assert not left.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_disk_space_is_one_line(tokenizer, corpus, tmp_path, monkeypatch, code):
    def full(*_):
        raise OSError(code, "no space")

    monkeypatch.setattr(encode, "_append", full)
    with refuses("space", str(tmp_path / "cache"), "10 MB", "free"):
        tokenize(open_texts(corpus), tokenizer, tmp_path / "cache")


def test_unusable_cache_directory(tokenizer, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with refuses(str(tmp_path / "file" / "x"), "JAXPLM_CACHE"):
        tokenize(open_texts(corpus), tokenizer, tmp_path / "file" / "x")


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXPLM_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("JAXPLM_CACHE")
    assert default_cache().parts[-2:] == (".cache", "jaxplm")


def test_many_unknown_words_are_said_with_the_cause(tmp_path, caplog):
    korean = ["아버지가 방에 들어가신다", "최고의 영화 정말 최고다", "너무 재미있어요"]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(korean))
    right = make_tokenizer(normalizers.BertNormalizer(lowercase=False), korean)
    tokenize(open_texts(str(path)), right, tmp_path / "cache")
    assert not caplog.records
    right.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    wrong = PreTrainedTokenizerFast(tokenizer_object=right.backend_tokenizer, unk_token="[UNK]")
    tokenize(open_texts(str(path)), wrong, tmp_path / "cache")
    assert_line(caplog.text, "100 %", "[UNK]", "Hangul", "do_lower_case")
    caplog.clear()
    english = make_tokenizer(normalizers.BertNormalizer(lowercase=False), ["english only"])
    tokenize(open_texts(str(path)), english, tmp_path / "cache")
    assert_line(caplog.text, "[UNK]", "language")


def test_those_who_want_the_same_store_wait_for_the_first(tokenizer, corpus, tmp_path, monkeypatch):
    # Threads, for speed: a lock belongs to an open file, so they wait for each other just as processes do.
    built = []

    def slowly(*arguments):
        built.append(1)
        time.sleep(0.3)
        return encode.encode_corpus(*arguments)

    monkeypatch.setattr("jaxplm.data.corpus.tokenize.encode_corpus", slowly)
    with ThreadPoolExecutor(3) as pool:
        stores = list(
            pool.map(lambda _: tokenize(open_texts(corpus), tokenizer, tmp_path / "cache"), range(3))
        )
    assert len(built) == 1
    for store in stores:
        np.testing.assert_array_equal(store.tokens, stores[0].tokens)


def test_another_machine_was_first_on_a_shared_disk(tokenizer, corpus, tmp_path, monkeypatch):
    other = tokenize(open_texts(corpus), tokenizer, tmp_path / "other")
    (made,) = (path for path in (tmp_path / "other" / "tokens").iterdir() if path.is_dir())

    def meanwhile(*arguments):
        shutil.copytree(made, tmp_path / "cache" / "tokens" / made.name)
        return encode.encode_corpus(*arguments)

    monkeypatch.setattr("jaxplm.data.corpus.tokenize.encode_corpus", meanwhile)
    store = tokenize(open_texts(corpus), tokenizer, tmp_path / "cache")
    np.testing.assert_array_equal(store.tokens, other.tokens)
    assert len([path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir()]) == 1
