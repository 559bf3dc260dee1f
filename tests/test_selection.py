"""Parts of the selection of texts: words and n-grams, leaks, importance weights, samples, exact neighbours."""

import math
import unicodedata
from collections import Counter

import numpy as np
import pytest

from jaxplm.data.selection import importance, neighbours, sampling
from jaxplm.data.selection.leaks import LeakFinder
from jaxplm.data.selection.passes import CorpusPass
from jaxplm.data.selection.screening import screen
from jaxplm.data.selection.text_units import split_units

RANDOM = np.random.default_rng(0)
LETTERS = [*"abcdefgh", "뱀이", "나무", "学", "校", "é", "ส"]


def sentence(words: int) -> str:
    return " ".join(RANDOM.choice(LETTERS, words))


@pytest.mark.parametrize("text, units", [
    ("Don't STOP, U.S.A. 5%!", ["don", "t", "stop", "u", "s", "a", "5"]),
    ("학교에서 배운다. ㅋㅋㅋ", ["학교에서", "배운다", unicodedata.normalize("NFKC", "ㅋㅋㅋ")]),
    ("Straße ﬁne ５０ hy\u00adphen x_y", ["strasse", "fine", "50", "hyphen", "x", "y"]),
    ("東京タワーはTokyoの塔", ["東", "京", "タ", "ワ", "ー", "は", "tokyo", "の", "塔"]),
    ("สวัสดี नमस्ते", ["ส", "วั", "ส", "ดี", "नमस्ते"]),
    ("?!", []),
])
def test_words_are_normalized_and_scripts_without_spaces_are_cut_into_characters(text, units):
    assert split_units(text) == units
    assert split_units(unicodedata.normalize("NFD", text)) == units


def shared_by_reference(texts: list[str], evaluation: list[str], n: int) -> list[bool]:
    """By sets of n-grams, where every unit weighs a word or a quarter of one."""
    def grams(text: str) -> set[tuple[str, ...]]:
        units, found = split_units(text), set()
        weights = [1 if unit in "学校ส" else 4 for unit in units]
        for i in range(len(units)):
            for j in range(i, len(units)):
                if sum(weights[i : j + 1]) >= 4 * n:
                    found.add(tuple(units[i : j + 1]))
                    break
        return found or {("whole text", *units)}

    theirs = set().union(*map(grams, evaluation))
    return [bool(theirs & (grams(text) | {("whole text", *split_units(text))})) for text in texts]


def test_leaks_are_those_of_sets_of_ngrams():
    evaluation = [sentence(int(n)) for n in RANDOM.integers(1, 12, 200)]
    texts = [sentence(int(n)) for n in RANDOM.integers(0, 40, 3000)]
    found = LeakFinder({"validation": [], "test": evaluation}, 3).find(texts)
    wanted = shared_by_reference(texts, evaluation, 3)
    assert 300 < sum(wanted) < 2700
    assert found.tolist() == [2 * leak for leak in wanted]


def test_planted_leaks_are_all_found_whatever_surrounds_and_writes_them():
    words = [f"{a}{b}" for a in "pqrstuvwxyz" for b in "aeiou"]
    evaluation = [" ".join(RANDOM.choice(words, 12)) for _ in range(300)]
    korean = [" ".join(RANDOM.choice(["학교", "선생님이", "오늘은", "좋다고", "말했다", "영화를", "보았다"], 9)) for _ in range(50)]
    chinese = ["".join(RANDOM.choice(list("天地玄黃宇宙洪荒日月盈昃辰宿列張"), 40)) for _ in range(50)]
    clean = [" ".join(RANDOM.choice(words, 60)) for _ in range(500)]
    leaking = [f"{clean[i]} “{text.upper()}”, {clean[-i]}" for i, text in enumerate(evaluation)]
    leaking += [unicodedata.normalize("NFD", f"그는 {text}.") for text in korean]
    leaking += [f"{clean[0]}秋收冬藏{text[3:37]}。" for text in chinese]  # 34 of its characters in a row
    near = [f"{text[:31]}秋" for text in chinese]  # 31 of them
    finder = LeakFinder({"test": [*evaluation, *korean, *chinese]}, 8)
    assert finder.find(leaking).all()
    assert not finder.find(clean).any() and not finder.find(near).any()


def test_a_short_evaluation_text_is_shared_by_its_equal_alone():
    finder = LeakFinder({"validation": ["Good film!"], "test": ["good film", "정말 재미있다"]}, 8)
    assert finder.find(["GOOD, film", "a good film", "정말  재미있다!!", "", "재미있다"]).tolist() == [3, 0, 2, 0, 0]


def test_screening_counts_what_it_leaves_out_and_resumes(tmp_path):
    texts = ["a b c d", "e f g h", "a b c d", "x a b c y", "e f g h", "E f g h", "q"] * 30
    finder = LeakFinder({"test": ["a b c"]}, 3)
    looked = screen(texts, finder, CorpusPass(tmp_path / "whole", "screened"), lambda done: None)
    assert np.flatnonzero(looked.kept).tolist() == [1, 5, 6]
    assert (looked.leaked, looked.leaks, looked.duplicates) == ({"test": 90}, 90, 4 * 30 - 3)

    def stop(done: int) -> None:
        if done > 100:
            raise KeyboardInterrupt

    one_pass = CorpusPass(tmp_path / "stopped", "screened", shard_texts=32)
    with pytest.raises(KeyboardInterrupt):
        screen(texts, finder, one_pass, stop)
    assert len(list((tmp_path / "stopped").iterdir())) == 4 and not one_pass.is_complete
    again: list[int] = []

    class Counting(LeakFinder):
        def find(self, texts):
            again.append(len(texts))
            return super().find(texts)

    finder = Counting({"test": ["a b c"]}, 3)
    assert np.array_equal(screen(texts, finder, one_pass, lambda done: None).kept, looked.kept)
    assert sum(again) == len(texts) - 128


def test_importance_weights_are_those_of_the_definition():
    """Bags of hashed words and pairs; the log of the ratio of their shares, one count added to every bucket."""
    ngrams = importance.HashedNgrams()
    task, corpus = [sentence(9) for _ in range(20)], [sentence(int(n)) for n in RANDOM.integers(0, 30, 300)]

    def bag(text: str) -> Counter[int]:
        units = split_units(text)
        alone = [int(ngrams([unit])[0][0]) for unit in units]
        pairs = [int(ngrams([f"{a} {b}"])[0][2]) for a, b in zip(units, units[1:], strict=False)]
        return Counter(alone + pairs)

    in_task, in_corpus = (sum(map(bag, texts), Counter()) for texts in (task, corpus))

    def log_share(counts: Counter[int], bucket: int) -> float:
        return math.log((counts[bucket] + 1) / (counts.total() + importance.BUCKETS))

    wanted = [sum(n * (log_share(in_task, bucket) - log_share(in_corpus, bucket)) for bucket, n in bag(text).items()) for text in corpus]
    ratios = importance.log_ratios(importance.count(task, ngrams), importance.count(corpus, ngrams))
    found = importance.log_weights(corpus, ratios, ngrams)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    parts = [importance.log_weights(corpus[i : i + 7], ratios, importance.HashedNgrams()) for i in range(0, len(corpus), 7)]
    assert np.array_equal(np.concatenate(parts), found), "a weight depends on the text alone"


def test_gumbel_noise_samples_in_proportion_to_the_weights():
    weights = np.log(np.array([1.0, 2.0, 3.0, 4.0]))
    numbers = np.arange(4)
    first = Counter(int(sampling.highest(weights + sampling.gumbel(seed, numbers), 1)[0]) for seed in range(8000))
    for i in range(4):
        assert abs(first[i] / 8000 - (i + 1) / 10) < 0.02
    assert sampling.gumbel(0, numbers)[2] == sampling.gumbel(0, np.array([2]))[0], "noise depends on the text's number alone"
    assert np.isfinite(sampling.gumbel_of(np.array([0, 2**64 - 1], np.uint64))).all()


def test_the_highest_are_the_first_of_equals():
    scores = np.array([1.0, 3, 2, 3, 2, 2])
    assert [sampling.highest(scores, n).tolist() for n in (1, 3, 4, 9)] == [[1], [1, 2, 3], [1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]


def test_a_scan_finds_the_neighbours_of_a_brute_force_and_equal_vectors_by_number():
    vectors = RANDOM.normal(size=(500, 24)).astype(np.float32)
    vectors[100:160] = vectors[7]
    queries = np.concatenate([RANDOM.normal(size=(5, 24)), vectors[7:8] * 3]).astype(np.float32)
    blocks = [(first, vectors[first : first + 64]) for first in range(0, 500, 64)]
    numbers, similarities = neighbours.scan(neighbours.unit(queries), blocks, 20)
    exact = (neighbours.unit(queries)[:, None] * neighbours.unit(vectors)).sum(-1)
    wanted = np.argsort(-exact, axis=1, kind="stable")[:, :20]
    assert np.array_equal(numbers, wanted)
    assert np.array_equal(similarities, np.take_along_axis(exact, wanted, 1))
    assert numbers[-1].tolist() == [7, *range(100, 119)]
