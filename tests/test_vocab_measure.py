"""Counting words and their tokens, the figures made of the counts, advice, and how they are shown."""

import json
from collections import Counter

import checkpoints
import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_says, refuses
from plot_layout import laid_out
from tokenizers import Regex, normalizers, pre_tokenizers

from jaxplm import hf
from jaxplm.reporting import fonts
from jaxplm.vocab.advice import advise, advise_new
from jaxplm.vocab.measure import Measurement, measure, remeasure
from jaxplm.vocab.overlap import overlap
from jaxplm.vocab.piece_counts import Occurrences, PieceCounter, Totals, Word
from jaxplm.vocab.plot import write_vocabulary
from jaxplm.vocab.report import figures, vocabulary_markdown, vocabulary_text
from jaxplm.vocab.splits import covered_share, damaging_splits, frequent_splits

LETTERS = "abc가나éЯ中ー☃1.,'-ㅋ \u00a0\t\n"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    directory = helpers.wordpiece(tmp_path_factory.mktemp("bert"))
    return hf.load_tokenizer(directory, "bert")[0]


@pytest.fixture(scope="module", params=checkpoints.FAMILIES)
def any_tokenizer(request):
    return checkpoints.tokenizer(request.param)


@pytest.mark.parametrize("by_white_space", [False, True])
def test_words_are_cut_at_the_white_space_that_the_tokenizer_cuts_at(by_white_space):
    """For a tokenizer with Metaspace alone a no-break space is a character of the word."""
    tokenizer = checkpoints.tokenizer("camembert")
    backend, metaspace = tokenizer.backend_tokenizer, pre_tokenizers.Metaspace()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if by_white_space else metaspace
    counter = PieceCounter(tokenizer)
    counter.add(["the\u00a0dog reads"])
    totals, _ = counter.totals()
    found = backend.encode("the\u00a0dog reads", add_special_tokens=False)
    assert (totals.tokens, totals.unknown) == (len(found.ids), found.ids.count(tokenizer.unk_token_id))
    assert totals.unknown == (0 if by_white_space else 1)


@pytest.mark.parametrize("text", ["1 \u00a0a", "the\u00a0dog", "the\u00a0\u00a0dog", "\u00a0a", "a\n\u3000dog \t a\u00a0a"])
def test_runs_of_white_space_that_the_normalizer_writes_as_one_space(text):
    tokenizer = checkpoints.tokenizer("camembert")
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.Strip(left=False)])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    counter = PieceCounter(tokenizer)
    counter.add([text, f"dog {text}"])
    totals, _ = counter.totals()
    assert totals.tokens == sum(len(backend.encode(whole, add_special_tokens=False).ids) for whole in (text, f"dog {text}"))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(LETTERS, min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5))
def test_sums_are_those_of_whole_texts(any_tokenizer, texts):
    counter = PieceCounter(any_tokenizer)
    counter.add(texts)
    totals, _ = counter.totals()
    encodings = [any_tokenizer.backend_tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert totals.tokens == sum(len(encoding.ids) for encoding in encodings)
    assert totals.unknown == sum(encoding.ids.count(any_tokenizer.unk_token_id) for encoding in encodings)
    everything = Counter(index for encoding in encodings for index in encoding.ids)
    assert everything == sum((Counter({i: seen.count * n for i, n in Counter(word.ids).items()})
                              for word, seen in counter.table().items()), Counter())
    assert counter.characters == sum(len("".join(text.split())) for text in texts)


def test_figures_by_hand(bert):
    measured = measure(["The cat, the cat sat.", "A catx — 한!"], bert)
    seen = {word.text: (word.ids, count) for word, count in measured.table.items()}
    assert seen["cat"][1] == Occurrences(2, 1) and seen["the"][1] == Occurrences(2, 1)
    assert bert.convert_ids_to_tokens(list(seen["catx"][0])) == ["cat", "##x"]
    # the cat the cat sat / a cat ##x [UNK]; , . [UNK] [UNK] are no words
    assert (measured.totals.words, measured.totals.word_tokens, measured.totals.whole) == (8, 9, 6)
    assert (measured.totals.tokens, measured.totals.unknown) == (9 + 4, 3)
    assert measured.fertility == 9 / 8 and measured.whole_share == 6 / 8 and measured.extra == 1
    assert measured.whole_distinct_share == 4 / 6  # the, cat, sat, a; not catx, not the unknown one
    assert measured.characters == len("Thecat,thecatsat.") + len("Acatx—한!")
    assert measured.bytes_per_token == (measured.characters + 4) / 13
    assert measured.lengths == {1: 7, 2: 1}
    assert measured.texts == 2 and measured.totals.korean == 1


def test_documents_are_counted_once_each_however_a_word_is_written(bert):
    measured = measure(["Dogx dogx, (dogx) dogx.", "dogx", "cat"], bert)
    assert [seen for word, seen in measured.table.items() if word.text == "dogx"] == [Occurrences(5, 2)]


def test_byte_level_words_know_the_space_before_them():
    tokenizer = checkpoints.tokenizer("roberta")
    table = measure(["dog (dog) dog", "dog"], tokenizer).table
    assert {word.text: seen for word, seen in table.items() if "dog" in word.text} == {"dog": Occurrences(3, 2), " dog": Occurrences(1, 1)}


def test_eojeol_are_the_words_of_korean():
    measured = measure(["아버지가 방에 들어가신다!"], checkpoints.tokenizer("klue"))
    assert [word.text for word in measured.table] == ["아버지가", "방에", "들어가신다", "!"]
    assert measured.totals.korean == measured.totals.words == 3


def test_a_small_table_keeps_sums_exact_and_the_frequent_words(bert, monkeypatch):
    monkeypatch.setattr("jaxplm.vocab.piece_counts._BLOCK_CHARS", 200)
    monkeypatch.setattr("jaxplm.vocab.piece_counts._MEMORY_CHARS", 300)
    random = np.random.default_rng(0)
    rare = ["".join(random.choice(list("abcdefgh"), 9)) for _ in range(400)]
    texts = [f"the catx {rare[i]} {rare[i + 1]} the" for i in range(0, 400, 2)]
    full, small = measure(texts, bert), measure(texts, bert, max_words=64)
    assert (small.totals, small.lengths, small.characters) == (full.totals, full.lengths, full.characters)
    assert len(small.table) < 160 and small.left_out > 200 and len(full.table) > 390
    assert next(seen for word, seen in small.table.items() if word.text == "catx") == Occurrences(200, 200)
    assert small == measure(texts, bert, max_words=64)


def test_no_word_is_an_error(bert):
    with refuses("2 texts"):
        measure(["...", "—"], bert)


def measured_of(words: dict[str, tuple[int, int, int]], **fields) -> Measurement:
    """{word: (tokens, occurrences, texts)} as `Measurement`; the totals follow."""
    numbers = iter(range(10, 10**6))
    table = {Word(text, tuple(next(numbers) for _ in range(n))): Occurrences(count, texts) for text, (n, count, texts) in words.items()}
    total = sum(seen.count for seen in table.values())
    tokens = sum(len(word.ids) * seen.count for word, seen in table.items())
    whole = sum(seen.count for word, seen in table.items() if len(word.ids) == 1)
    sums = Totals(**({"tokens": tokens, "words": total, "word_tokens": tokens, "whole": whole} | fields))
    return Measurement(100, sum(len(w.text) * s.count for w, s in table.items()), 1, sums, Counter(), table)


def test_splits_are_ranked_by_count_and_by_cost():
    domain = measured_of({"often": (2, 90, 50), "costly": (5, 40, 20), "name": (6, 300, 1), "whole": (1, 999, 90),
                          "everyday": (3, 80, 60), "2024": (4, 500, 50)})
    general = measured_of({"everyday": (3, 100, 50), "whole": (1, 1000, 50), "often": (2, 3, 3)})
    assert [split.word for split in frequent_splits(domain, 3)] == ["2024", "name", "often"]
    assert [split.word for split in damaging_splits(domain)] == ["costly", "everyday", "often"]
    assert [split.cost for split in damaging_splits(domain)] == [160, 160, 90]
    assert [split.word for split in damaging_splits(domain, general)] == ["costly", "often"]
    assert [split.word for split in damaging_splits(domain, most=1)] == ["costly"]
    assert covered_share(domain, 1) == 1500 / domain.extra


def test_overlap_leaves_out_stop_words_and_case():
    one = measured_of({"the": (1, 100, 9), "Gene": (1, 50, 9), "cell": (1, 40, 9), "dog": (1, 30, 9), "rare": (1, 1, 1)})
    other = measured_of({"the": (1, 90, 9), " gene": (1, 20, 9), "ship": (1, 60, 9), "dog": (1, 50, 9), "7": (1, 99, 9)})
    # the 1 most frequent of both: the; then gene cell dog | ship dog gene
    assert overlap(one, other, words=3, stop_words=1) == 2 / 3
    assert overlap(one, other, words=2, stop_words=1) == 0.0
    assert overlap(one, one) == 0.0  # all of them stop words
    assert overlap(one, one, stop_words=0) == 1.0


def test_remeasuring_equals_a_second_reading(bert, tmp_path):
    texts = ["The catx sat, catxy!", "dogs — dogs, catx", "한 dogs"]
    larger = hf.load_tokenizer(helpers.wordpiece(tmp_path, [*helpers.WORDS, "dogs", "catx"]), "larger")[0]
    again, fresh = remeasure(measure(texts, bert), larger), measure(texts, larger)
    assert (again.totals, again.lengths, dict(again.table)) == (fresh.totals, fresh.lengths, fresh.table)
    assert again.fertility < measure(texts, bert).fertility


@pytest.mark.parametrize(("kind", "words", "fields"), [
    ("keep", {"plain": (1, 950, 9), "rarer": (2, 50, 9)}, {}),
    ("append", {"plain": (1, 500, 9), "jargon": (4, 100, 9)}, {}),
    ("exbert", {"plain": (1, 100, 9), **{f"jargon{i}": (3, 1, 9) for i in range(1000)}}, {}),
    ("scratch", {"ab": (3, 100, 9)}, {}),
    ("scratch", {"plain": (1, 100, 9)}, {"unknown": 10}),
    ("keep", {"영화가재미": (2, 100, 9)}, {"korean": 100}),
    ("scratch", {"영화": (6, 100, 9)}, {"korean": 100}),
    ("keep", {"医生": (2, 100, 9)}, {"unspaced": 100}),
])
def test_advice(kind, words, fields):
    advice = advise(measured_of(words, **fields), 30_000)
    assert advice.kind == kind
    assert "\n" not in advice.sentence and advice.sentence.endswith(".")
    expected = {"keep": 0, "append": 300, "exbert": 1000, "scratch": 0}[kind]
    assert advice.tokens == expected
    assert f"{measured_of(words).fertility:.2f} tokens" in advice.sentence or fields.get("unspaced")


@pytest.mark.parametrize(("kind", "words", "fields", "said"), [
    ("keep", {"plain": (1, 950, 9), "rarer": (2, 50, 9)}, {}, ("2,000", "1.05 tokens")),
    ("keep", {"영화가재미": (2, 100, 9)}, {"korean": 100}, ("2.00 tokens", "eojeol")),
    ("keep", {"医生": (2, 100, 9)}, {"unspaced": 100}, ("2,000",)),
    # what is cut occurs once each: rows for it would learn nothing
    ("keep", {"plain": (1, 100, 9), **{f"jargon{i}": (3, 1, 9) for i in range(1000)}}, {}, ("1,000", "0.0%")),
    # 1,200 words cut in two, of which 1,000 can be made whole: 20,000 of 48,000 tokens
    ("larger", {f"jargon{i}": (2, 20, 9) for i in range(1200)}, {}, ("vocab.size=3000", "2.00 tokens")),
])
def test_advice_on_a_new_vocabulary(kind, words, fields, said):
    advice = advise_new(measured_of(words, **fields), 2000)
    assert (advice.kind, advice.tokens) == (kind, 1000 if kind == "larger" else 0)
    assert_says(advice.sentence, *said)
    assert "\n" not in advice.sentence and advice.sentence.endswith(".")
    if kind == "larger":
        assert_says(advice.sentence, "1,000", "41.7%")


def test_advice_names_a_normalizer_that_loses_the_vocabulary(tmp_path):
    """The classic default takes Hangul apart, and a vocabulary of syllables is never reached."""
    words = ["영화가", "재미있다", "정말", "연기도", "좋았어요"]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n", "utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for lower in (True, False):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lower}))
        tokenizer, _ = hf.load_tokenizer(tmp_path, "ko")
        advice = advise(measure([" ".join(words)], tokenizer), len(tokenizer), None, hf.tokenizer.unreachable_share(tokenizer))
        assert advice.kind == ("settings" if lower else "keep")
        assert ("do_lower_case" in advice.sentence) == lower


def test_tables_and_section(bert):
    domain, general = measure(["The catx sat on catxy."] * 3, bert), measure(helpers.sentences(20), bert)
    advice = advise(domain, len(bert), general)
    rows = dict((row[0], row[1:]) for row in figures([("domain", domain), ("general text", general)], general))
    assert rows["tokens per word (fertility)"] == ("1.600", "1.000")
    assert len({len(row) for row in figures([("a", domain), ("b", general)], general)}) == 1
    text = vocabulary_text(domain, bert, advice, general)
    assert "cat ##x ##y" in text and text.endswith(advice.sentence)
    section = vocabulary_markdown(domain, bert, advice, general)
    assert section.startswith(advice.sentence) and "| 1 | catxy | cat ##x ##y | 3 | 3 | 6 |" in section


def test_tokens_of_bytes_are_shown_as_text():
    tokenizer = checkpoints.tokenizer("roberta")
    text = vocabulary_text(measure(["a dogs 영화"], tokenizer), tokenizer, advise(measure(["a dogs"], tokenizer), 300))
    assert "␣" in text and "Ġdog" not in text


LENGTHS = {
    "all words whole": ("the cat sat on a mat", "the cat sat"),
    "all words cut": ("catxyxyxy catxyxyxyx satxxyxyxyx", "catxyxyxyxyx"),
    "even": ("cat catx catxy catxyx catxyxy catxyxyx", "cat catx catxy catxyx catxyxy catxyxyx"),
    "long words": (f"{'catxy' * 12} {'sat' * 20} the", "the cat"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LENGTHS)
def test_no_words_of_the_plot_overlap_or_are_cut_off(bert, tmp_path, name):
    """The legend is on no bar either."""
    domain, general = (measure([text] * 3, bert) for text in LENGTHS[name])
    many = [*damaging_splits(domain)] * 8
    with laid_out() as problems:
        for number, (splits, other) in enumerate(((damaging_splits(domain), general), ([], None), (many[:30], general))):
            write_vocabulary(tmp_path / f"{number}.png", domain, splits, bert, other)
    assert len(problems) == 3
    assert not any(problems.values()), problems


@pytest.mark.slow
def test_plot(bert, tmp_path, monkeypatch):
    domain = measure(["The catx sat on catxy $x$."] * 3, bert)
    path = tmp_path / "plots" / "vocabulary.png"
    assert write_vocabulary(path, domain, damaging_splits(domain), bert, domain) is False
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    monkeypatch.setattr("jaxplm.vocab.plot.families_for", lambda _: None)  # no font has the letters
    assert write_vocabulary(path, domain, damaging_splits(domain), bert) is True
    assert write_vocabulary(path, domain, [], bert) is True
    assert fonts.families_for(["catx"]) == [fonts.DEFAULT]
