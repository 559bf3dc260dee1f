"""Vocabularies trained from nothing: each kind in each language, the same in every run, and in stock transformers."""

import json
import logging
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import transformers
from commands import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_line, assert_says, refuses
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxplm import hf, nn
from jaxplm.data.corpus.token_text import byte_alphabet
from jaxplm.recipes.pretrain.new_model import SIZES, new_config
from jaxplm.vocab.languages import detect, set_rules
from jaxplm.vocab.tokenizer_files import special_tokens
from jaxplm.vocab.train_tokenizer import train_tokenizer
from jaxplm.vocab.unigram_scores import piece_scores
from jaxplm.vocab.word_counts import WordCounter

STEMS = ("영화", "배우", "연기", "음악", "감독", "이야기", "장면", "결말", "평점", "주인공", "드라마", "만화", "극장", "친구", "사람")
ENDINGS = ("가", "를", "의", "는", "도", "에서", "이나", "만", "까지", "처럼")
VERBS = ("재미있다", "좋았어요", "별로네요", "지루하다", "최고다", "아깝다", "울었습니다", "웃겼음", "봤는데", "추천합니다")
TAILS = ("", "ㅋㅋ", "ㅋㅋㅋㅋㅋㅋ", "ㅠㅠ", "!!", "...", "~~~~~", " OST 10점", "ㅎㅎ;;", " 굿")
KOREAN = [f"{a}{e} {v}{t}" for i, a in enumerate(STEMS) for j, e in enumerate(ENDINGS)
          for v, t in [(VERBS[(i + j) % 10], TAILS[(3 * i + j) % 10])]]
NOUNS = ("house", "river", "window", "doctor", "patient", "heart", "story", "letter", "garden", "captain", "table", "café")
ACTIONS = ("opened", "carried", "followed", "remembered", "treated", "described", "watched", "wrote", "answered", "measured")
LATIN = [f"The {a} {v} the {NOUNS[(i + j + 1) % 12]}, {j} times; it's {b}." for i, a in enumerate(NOUNS) for j, v in enumerate(ACTIONS)
         for b in [NOUNS[(i * j) % 12]]]
TEXTS = {"korean": KOREAN, "latin": LATIN}
KINDS = ("wordpiece", "bpe", "unigram")
EVERY = [(kind, language) for kind in KINDS for language in TEXTS]
SIZE = 700


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """One tokenizer of each kind, language and case: `directory / kind-language-cased`."""
    made = tmp_path_factory.mktemp("vocabularies")
    for kind, language in EVERY:
        for cased in (False, True):
            train_tokenizer(TEXTS[language], kind, SIZE, made / f"{kind}-{language}-{cased}", language=language, cased=cased,
                            max_positions=64)
    return made


@pytest.fixture(params=[(*one, cased) for one in EVERY for cased in (False, True)], ids=lambda p: "-".join(map(str, p)))
def trained(request, directory):
    """(kind, language, cased, stock AutoTokenizer)."""
    with checkpoints.listening() as heard:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory / "-".join(map(str, request.param)))
    assert heard == []
    return *request.param, tokenizer


def bare(text: str) -> str:
    """Without white space, which WordPiece cannot give back."""
    return "".join(text.split())


def test_no_unknowns_and_back_to_text(trained):
    kind, language, cased, tokenizer = trained
    normalise = tokenizer.backend_tokenizer.normalizer
    for text in TEXTS[language]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        wanted = text if normalise is None else normalise.normalize_str(text)
        assert (bare(back), bare(wanted)) == (bare(wanted),) * 2 if kind == "wordpiece" else back == wanted
        assert cased == (wanted != wanted.lower()) or wanted == text.lower() or language == "korean"


def test_ids_are_dense_and_the_special_ones_first(trained):
    kind, _, _, tokenizer = trained
    special = special_tokens(kind)
    assert tokenizer.convert_tokens_to_ids(list(special)) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert set(tokenizer.all_special_tokens) == set(special)
    assert tokenizer.model_max_length == 64
    ids = tokenizer("x")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_pairs_use_the_token_types_that_the_model_has(trained):
    kind, _, _, tokenizer = trained
    types = tokenizer("a b", "c d", return_token_type_ids=True)["token_type_ids"]
    assert max(types) == (0 if kind == "bpe" else 1) < new_config("tiny", tokenizer, 64).token_types
    assert ("token_type_ids" in tokenizer("a", "b")) == (kind != "bpe")


def test_a_mask_stands_for_a_word_with_its_space(trained):
    kind, language, _, tokenizer = trained
    text = "영화가 재미있다" if language == "korean" else "the house opened"
    first, last = text.split(maxsplit=1)

    def ids(words: str) -> list[int]:
        return tokenizer(words, add_special_tokens=False)["input_ids"]

    assert ids(f"{first} {tokenizer.mask_token}") == [*ids(first), tokenizer.mask_token_id]
    assert ids(f"{tokenizer.mask_token} {last}")[1:] == ids(text)[len(ids(first)) :]


@pytest.mark.parametrize("kind", KINDS)
def test_hangul_stays_composed(kind, directory):
    for cased in (False, True):
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory / f"{kind}-korean-{cased}")
        assert all(unicodedata.normalize("NFC", token) == token for token in tokenizer.get_vocab())
        assert "영화" in map(str.strip, map(tokenizer.decode, range(len(tokenizer))))
        apart = unicodedata.normalize("NFD", "영화가 재미있다")
        assert tokenizer(apart)["input_ids"] == tokenizer("영화가 재미있다")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_korean_words_are_cut_where_the_script_changes(kind, directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory / f"{kind}-korean-False").backend_tokenizer

    def words(text: str) -> list[str]:
        spans = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        surface = [bytes_of(word).decode() if kind == "bpe" else word for word, _ in spans]
        return [word.replace("▁", "").strip() for word in surface]

    assert words("OST도 굿ㅋㅋㅋㅋㅋㅋ 10점!!!!! 영화😀") == ["ost", "도", "굿", "ㅋㅋㅋ", "10", "점", "!!!", "영화", "😀"]
    assert words("진짜재미있는영화였다") == ["진짜재미있는영화였다"]
    assert words("77777777 aaaaaa 하하하하하") == ["77777777", "aaaaaa", "하하하하하"]  # numbers and words keep their length


def bytes_of(word: str) -> bytes:
    return bytes(byte_alphabet()[char] for char in word)


@pytest.mark.slow
def test_the_same_texts_give_the_same_files(tmp_path):
    """In two processes: the hash maps of the trainers have another key in each."""
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    program = """
import json, sys
from pathlib import Path
from jaxplm.vocab.train_tokenizer import train_tokenizer
for language, texts in json.loads(Path(sys.argv[1]).read_text()).items():
    for kind in ("wordpiece", "bpe", "unigram"):
        train_tokenizer(texts, kind, 600, Path(sys.argv[2]) / f"{kind}-{language}")
"""
    runs = [tmp_path / name for name in ("a", "b")]
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "texts.json"), str(run)], cwd=ROOT) for run in runs]
    assert [process.wait(120) for process in started] == [0, 0]
    first, second = ({str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()} for run in runs)
    assert len(first) > 6 * 2
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "language"), [("wordpiece", "korean"), ("unigram", "korean"), ("bpe", "latin")])
def test_an_export_loads_in_stock_transformers(kind, language, directory, tmp_path):
    tokenizer = hf.load_tokenizer(directory / f"{kind}-{language}-False", "here")[0]
    shape = replace(new_config("tiny", tokenizer, 64), width=24, layers=1, heads=2, head_width=12, ffn_width=40)
    assert shape.model_type == ("roberta" if kind == "bpe" else "bert")
    hf.save(tmp_path / "export", shape, nn.random_params(shape, 0), tokenizer, {})
    with checkpoints.listening() as heard:
        model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "export")
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    assert heard == []
    assert type(model).__name__ == ("RobertaForMaskedLM" if kind == "bpe" else "BertForMaskedLM")
    for text in TEXTS[language][:30]:
        assert stock(text)["input_ids"] == tokenizer(text)["input_ids"]
    inputs = stock([TEXTS[language][0]] * 2, ["x"] * 2, padding="max_length", return_tensors="pt")  # all 64 positions
    assert model(**inputs).logits.shape == (2, 64, len(tokenizer))


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_lose_nothing(directory, text):
    """A cased Latin BPE gives every text back, the others what their normalizer made of it."""
    for name in ("bpe-latin-True", "bpe-latin-False", "bpe-korean-False"):
        tokenizer = _backend(directory / name)
        wanted = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        assert 3 not in encoding.ids
        assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == wanted or "<" in text


_LOADED: dict[Path, Tokenizer] = {}


def _backend(directory: Path) -> Tokenizer:
    if directory not in _LOADED:
        _LOADED[directory] = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return _LOADED[directory]


def test_classes_of_transformers_where_their_rules_are_ours(directory):
    def named(name: str) -> str:
        return json.loads((directory / name / "tokenizer_config.json").read_text())["tokenizer_class"]

    assert named("wordpiece-latin-False") == named("wordpiece-latin-True") == "BertTokenizer"
    assert named("bpe-latin-True") == "RobertaTokenizer"
    assert {named(f"{kind}-korean-False") for kind in KINDS} == {"PreTrainedTokenizerFast"}
    assert (directory / "wordpiece-latin-False" / "vocab.txt").read_text().splitlines()[:5] == list(special_tokens("wordpiece"))
    assert (directory / "bpe-latin-True" / "merges.txt").is_file()


def test_the_builtin_tokenizer_has_the_same_rules(directory):
    """builtin:tiny was made by this recipe: wordpiece, latin, not cased."""
    built, made = (json.loads((place / "tokenizer.json").read_text())
                   for place in (ROOT / "jaxplm" / "builtin" / "tiny", directory / "wordpiece-latin-False"))
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"):
        assert built[part] == made[part], part
    assert {**built["model"], "vocab": 0} == {**made["model"], "vocab": 0}


@pytest.mark.parametrize(("texts", "language"), [(KOREAN, "korean"), (LATIN, "latin"), (["12 34 !!"], "latin")])
def test_auto_names_its_choice(texts, language, tmp_path, caplog):
    caplog.set_level(logging.INFO, "jaxplm")
    train_tokenizer(texts, "wordpiece", 800, tmp_path / "auto")
    assert_line(caplog.text, "vocab.language=auto", language)
    train_tokenizer(texts, "wordpiece", 800, tmp_path / "said", language=language)
    assert (tmp_path / "auto" / "tokenizer.json").read_bytes() == (tmp_path / "said" / "tokenizer.json").read_bytes()


def test_letters_decide_and_not_signs():
    assert detect({"가": 1, "a": 4, "!": 100})[0] == "korean"
    assert detect({"가": 1, "a": 5})[0] == "latin"
    assert detect({}) == ("latin", 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_the_corpus_cannot_fill(kind, tmp_path, caplog):
    entries = train_tokenizer(LATIN, kind, 5000, tmp_path / "made")
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "made")) == entries < 5000
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert_says(warning, "vocab.size=5000", str(entries))


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_is_never_exceeded(kind, directory):
    for language in TEXTS:
        assert len(transformers.AutoTokenizer.from_pretrained(directory / f"{kind}-{language}-False")) <= SIZE


@pytest.mark.parametrize(("changes", "said"), [
    ({"kind": "worpiece"}, ("vocab.kind='worpiece'", "wordpiece", "bpe", "unigram")),
    ({"language": "klingon"}, ("vocab.language='klingon'", "auto", "latin", "korean")),
    ({"texts": []}, ("word", "texts", "empty")),
    ({"kind": "wordpiece", "size": 60}, ("vocab.size=60", "characters")),
    ({"kind": "bpe", "size": 260}, ("vocab.size=260", "261")),
    ({"kind": "unigram", "size": 60}, ("vocab.size=60", "characters")),
])
def test_mistakes_take_one_line(changes, said, tmp_path):
    given = {"texts": LATIN, "kind": "wordpiece", "size": 600} | changes
    with refuses(*said):
        train_tokenizer(directory=tmp_path / "made", **given)
    assert not (tmp_path / "made").exists()


def rules(kind: str = "bpe", language: str = "latin") -> Tokenizer:
    made = Tokenizer(models.BPE())
    set_rules(made, kind, language, cased=True)
    return made


@pytest.mark.parametrize(("kind", "language"), EVERY)
def test_counts_are_those_of_whole_texts(kind, language):
    """Cut stretch by stretch, words are the same as in the whole text."""
    tokenizer = rules(kind, language)
    counter = WordCounter(tokenizer)
    counter.add(TEXTS[language])
    counter.add(["two  spaces\n\nand\ta line  ", " before"])
    counter.finish()
    wanted: dict[str, int] = {}
    for text in [*TEXTS[language], "two  spaces\n\nand\ta line", " before"]:
        whole = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(whole):
            wanted[word] = wanted.get(word, 0) + 1
    assert dict(counter.counts) == wanted


def test_memory_is_bounded_and_frequent_words_stay():
    random = np.random.default_rng(0)
    numbers = (random.zipf(1.3, 40_000) % 100_000).tolist()
    texts = [" ".join(f"w{chr(97 + n % 26)}{n}" for n in numbers[i : i + 50]) for i in range(0, len(numbers), 50)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    full, small = WordCounter(tokenizer), WordCounter(tokenizer, max_words=500)
    for text in texts:
        for counter in (full, small):
            counter.add([text])
            counter.finish()
        assert len(small.counts) <= 500
    assert full.dropped_below == 0 < small.dropped_below
    frequent = [word for word, _ in full.counts.most_common(50)]
    assert all(abs(small.counts[word] - full.counts[word]) <= 0.1 * full.counts[word] + small.dropped_below for word in frequent)


def test_dropped_words_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(WordCounter.__init__, "__defaults__", (20,))
    train_tokenizer(LATIN, "bpe", 300, tmp_path / "made", language="latin")
    assert_line(caplog.text, "vocabulary", "words")


def test_scores_of_pieces():
    """EM finds the frequencies that the words were made with; a piece that no word needs is the least likely."""
    scores = np.exp(piece_scores(["a", "ab", "b", "c", "d"], {"ab": 60, "c": 30, "cab": 10, "x" * 40: 9}))
    assert scores.sum() == pytest.approx(1, abs=1e-3)
    assert scores[1] == pytest.approx(70 / 110, abs=0.02)
    assert scores[3] == pytest.approx(40 / 110, abs=0.02)
    assert scores[4] == scores.min() < 0.002


def test_scores_of_a_hand_computed_round(monkeypatch):
    """One round from equal thirds: "ab" as one piece weighs 1/3, as two 1/9."""
    monkeypatch.setattr("jaxplm.vocab.unigram_scores._ROUNDS", 1)
    expected = np.array([0.25, 0.75, 0.25])  # a, ab, b
    assert piece_scores(["a", "ab", "b"], {"ab": 1}) == pytest.approx(np.log(expected / expected.sum()).tolist(), abs=1e-5)


def test_sizes_grow():
    tokenizer = transformers.BertTokenizer(vocab={token: i for i, token in enumerate(special_tokens("wordpiece"))})
    shapes = [new_config(size, tokenizer, 128) for size in SIZES]
    assert [shape.width for shape in shapes] == sorted(shape.width for shape in shapes)
    assert all(shape.width == shape.heads * 64 and shape.ffn_width == 4 * shape.width for shape in shapes)
    with refuses("model.size='huge'", "tiny", "mini", "small", "base", "large"):
        new_config("huge", tokenizer, 128)
