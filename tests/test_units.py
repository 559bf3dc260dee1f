"""Units are what stock transformers makes of the same texts, and every word and answer is found again."""

import dataclasses
import logging

import checkpoints
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_line, refuses

from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import UNKNOWN, UNLABELLED, LabelSet
from jaxplm.data.labelled.label_values import Answers
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.word_map import CONTINUED, GAP, NONE, OWN
from jaxplm.tasks.kinds import KINDS

L = 16
FAMILIES = checkpoints.FAMILIES
TOKENIZERS = {family: checkpoints.tokenizer(family) for family in FAMILIES}
WORDS = ["the", "fox", "dog", "and", "quick", "아버지가", "영화가", "정말", "ㅋㅋㅋ", "q", "language", "of", "😀", "방"]
texts_st = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@dataclasses.dataclass
class Units:
    """A set as the encoder reads it, and what is to be learned from it."""

    encoded: Encoded
    targets: Targets
    labels: LabelSet  # those of the training set

    def __len__(self):
        return len(self.encoded)

    def __getattr__(self, name):
        return getattr(self.encoded, name)

    @property
    def values(self):
        return self.targets.values

    @property
    def weights(self):
        return self.targets.weights


def make_units(examples, tokenizer, kind, seq_len, overlap=32, labels=None):
    kind = KINDS[kind]
    labels = kind.label_set(examples, []) if labels is None else labels
    encoded = kind.encode(examples, tokenizer, seq_len, overlap)
    return Units(encoded, kind.targets(examples, encoded, labels), labels)


def examples(texts, pairs=None, tokens=None, labels=None, characters=False, scheme=""):
    n = len(texts)
    return Examples("train.csv", np.arange(n), texts, pairs, tokens, labels or [None] * n, None, [""] * n, 0, characters, scheme)


def split(units, values):
    return [part.tolist() for part in np.split(values, units.offsets[1:-1])]


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(texts=st.lists(st.tuples(texts_st, texts_st), min_size=1, max_size=6), pair=st.booleans())
def test_texts_and_pairs_are_those_of_transformers(family, texts, pair):
    tokenizer = TOKENIZERS[family]
    left, right = [a for a, _ in texts], [b for _, b in texts] if pair else None
    expected = tokenizer(left, right, truncation=True, max_length=L)
    units = make_units(examples(left, right), tokenizer, "regress", L)
    assert split(units, units.ids) == expected["input_ids"]
    types = expected.get("token_type_ids") or [[0] * len(ids) for ids in expected["input_ids"]]
    assert split(units, units.types) == types
    assert units.example.tolist() == list(range(len(texts)))
    full = tokenizer(left, right)["input_ids"]
    assert units.truncated == sum(len(ids) > L for ids in full)
    assert not units.weights.any()


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = checkpoints.tokenizer("roberta")
    before = tokenizer.backend_tokenizer.to_str()
    for kind, one in (("regress", examples(["a b"])), ("tag", examples(["a"], tokens=[["a"]])), ("qa", examples(["a"], ["b"]))):
        make_units(one, tokenizer, kind, L, 3, LabelSet(("O",), np.ones(1, np.int64), 1))
    assert tokenizer.backend_tokenizer.to_str() == before


def test_labels_and_weights(caplog):
    train = examples(["the", "fox", "dog " * 40], labels=["b", "a", "b"])
    other = examples(["the", "", "fox"], labels=["b", "new", None])
    units = make_units(train, TOKENIZERS["bert"], "classify", L)
    assert units.values.tolist() == [1, 0, 1] and units.weights.tolist() == [1, 1, 1]
    assert caplog.messages == ["train.csv: 1 of 3 rows (33.3 %) are longer than data.seq_len=16 tokens and are cut there"]
    assert units.labels.ids(other.labels).tolist() == [1, UNKNOWN, UNLABELLED]
    units = make_units(other, TOKENIZERS["bert"], "classify", L, labels=units.labels)
    assert units.values.tolist() == [1, 0, 0] and units.weights.tolist() == [1, 0, 0]
    assert units.lengths.tolist() == [3, 2, 3]  # an empty text is encoded too
    many = examples(["a", "b", "c"], labels=[("x", "y"), (), None])
    units = make_units(many, TOKENIZERS["bert"], "multilabel", L)
    assert units.values.tolist() == [[1, 1], [0, 0], [0, 0]] and units.weights.tolist() == [1, 1, 0]


def tagged(sentences, tags=None, **options):
    return examples([" ".join(words) for words in sentences], tokens=sentences, labels=tags, **options)


def stock_windows(family, sentences, overlap):
    """The windows of stock transformers; byte-level tokenizers put a space before each word."""
    tokenizer = checkpoints.tokenizer(family)
    if family == "roberta":
        state = checkpoints._trained("BPE")
        tokenizer = transformers.RobertaTokenizer(vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]], add_prefix_space=True)
    return tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=L, stride=overlap, return_overflowing_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(sentences=st.lists(st.lists(st.sampled_from([*WORDS, "\u200b", ""]), max_size=25), min_size=1, max_size=5),
       overlap=st.integers(0, 6))
def test_words_windows_and_labels(family, sentences, overlap):
    tags = [[f"T{(i * 7 + k) % 5}" for k in range(len(words))] for i, words in enumerate(sentences)]
    both = tagged(sentences, tags)
    if not any(sentences):
        return
    units = make_units(both, TOKENIZERS[family], "tag", L, overlap)
    labels = units.labels
    if all(sentences):  # transformers takes no empty list of words
        expected = stock_windows(family, sentences, overlap)
        assert split(units, units.ids) == expected["input_ids"]
        assert units.example.tolist() == expected["overflow_to_sample_mapping"]
    found = units.words
    assert set(units.example.tolist()) == set(range(len(sentences)))
    # Each word is learned and predicted at one token, which is its first.
    used = found.token[found.token >= 0]
    assert len(set(used.tolist())) == len(used)
    assert (units.weights > 0).sum() == len(used)
    assert set(np.flatnonzero(units.weights).tolist()) == set(used.tolist())
    assert not units.values[units.weights == 0].any()
    unit_of = np.repeat(np.arange(len(units)), units.lengths)
    for i, words in enumerate(sentences):
        for k, word in enumerate(words):
            token, how = found.token[found.offsets[i] + k], found.how[found.offsets[i] + k]
            alone = stock_windows(family, [[word]], 0)["input_ids"][0][1:-1] if word else []
            assert (token < 0) == (not alone) == (how in (NONE, GAP)) and (how == GAP) <= (not word.strip())
            if alone:
                assert units.ids[token] == alone[0] and units.example[unit_of[token]] == i
                assert labels.names[units.values[token]] == tags[i][k]
    # What the labels say is what comes out, but for words without a token.
    decoded = found.tags(labels.names, units.values)
    flat = [tag if token >= 0 else "O" for tag, token in zip(sum(tags, []), found.token, strict=True)]
    assert sum(decoded, []) == flat and list(map(len, decoded)) == list(map(len, sentences))


def test_words_are_predicted_where_they_have_most_context():
    words = ["the"] * 40
    one = tagged([words], [["O"] * 40])
    units = make_units(one, TOKENIZERS["bert"], "tag", L, 6)  # windows of 14 words, 8 apart
    place = units.words.token - np.repeat(units.offsets[:-1], units.lengths)[units.words.token] - 1
    windows = np.repeat(np.arange(len(units)), units.lengths)[units.words.token]
    assert len(units) == 5
    for word, (window, at) in enumerate(zip(windows.tolist(), place.tolist(), strict=True)):
        assert window * 8 + at == word

        def context(w, word=word):
            length = units.lengths[w] - 2
            return min(word - 8 * w, length - 1 - (word - 8 * w))

        assert context(window) == max(context(w) for w in range(5))


def characters(*sentences, tags=None):
    return examples(list(sentences), tokens=[list(one) for one in sentences], labels=tags, characters=True, scheme="IOB2")


@pytest.mark.parametrize("family", FAMILIES)
def test_characters_are_encoded_as_text(family):
    text = "아버지가 방에 들어가신다 ㅋㅋㅋ"
    tags = ["B-PS", "I-PS", "I-PS", "O", "O", "B-LC"] + ["O"] * (len(text) - 6)
    one = characters(text, tags=[tags])
    units = make_units(one, TOKENIZERS[family], "tag", 64, 8)
    labels = units.labels
    assert split(units, units.ids) == TOKENIZERS[family]([text])["input_ids"]
    found = units.words
    assert set(found.how[[c.isspace() for c in text]].tolist()) == {GAP}
    assert not set(found.how[[not c.isspace() for c in text]].tolist()) & {GAP, NONE}
    assert found.how[0] == OWN and labels.names[units.values[found.token[0]]] == "B-PS"
    decoded = found.tags(labels.names, units.values)[0]
    assert decoded[0] == "B-PS" and decoded[5] == "B-LC"
    if family == "bert":  # its vocabulary has whole words
        assert found.how[:4].tolist() == [OWN, CONTINUED, CONTINUED, CONTINUED]
        assert decoded[:4] == ["B-PS", "I-PS", "I-PS", "I-PS"]


def test_characters_that_cannot_get_their_tags_are_told(caplog):
    one = characters("영화가 방", tags=[["B-X", "I-X", "O", "O", "O"]])  # the tokenizer knows 영화가 as one token
    make_units(one, TOKENIZERS["bert"], "tag", L, 2)
    assert_line(caplog.text, "1 of 3", "characters", "token", "tag")
    caplog.clear()
    make_units(one, TOKENIZERS["roberta"], "tag", 64, 2)
    assert not caplog.records


def test_a_space_inside_an_entity_belongs_to_it():
    one = characters("영화가 정말 the", "방 방", tags=[["B-X", "I-X", "I-X", "I-X", "I-X", "I-X", "O", "O", "O", "O"], ["O", "O", "B-X"]])
    units = make_units(one, TOKENIZERS["bert"], "tag", L, 2)
    first, second = units.words.tags(units.labels.names, units.values)
    assert first == ["B-X", "I-X", "I-X", "I-X", "I-X", "I-X", "O", "O", "O", "O"]
    assert second == ["O", "O", "B-X"]


@settings(deadline=None, max_examples=30)
@given(text=st.text("아버지가 방에영화the q😀", min_size=1, max_size=60), overlap=st.integers(0, 6),
       family=st.sampled_from(FAMILIES))
def test_every_character_once(text, overlap, family):
    one = characters(text, tags=[["O"] * len(text)])
    units = make_units(one, TOKENIZERS[family], "tag", L, overlap)
    found = units.words
    assert len(found.token) == len(text)
    # The characters of one token are neighbours, the first of them its own.
    for token in set(found.token[found.token >= 0].tolist()):
        here = np.flatnonzero(found.token == token)
        black = [i for i in range(here[0], here[-1] + 1) if not text[i].isspace()]
        # (SentencePiece's bare ▁ stands for the character after it, so that the next token may have none of its own.)
        assert here.tolist() == black and (found.how[here[1:]] == CONTINUED).all() and found.how[here[0]] in (OWN, CONTINUED)
        assert units.weights[token] == 1
    missing = [char for char, token in zip(text, found.token, strict=True) if token < 0]
    assert all(char.isspace() for char in missing)


def test_tokens_that_give_nothing_are_told(caplog):
    one = tagged([["the", "\u200b", " ", "fox"]], [["O", "O", "O", "O"]])
    units = make_units(one, TOKENIZERS["bert"], "tag", L, 2)
    assert units.words.how.tolist() == [OWN, NONE, GAP, OWN]
    (message,) = caplog.messages
    for part in ("train.csv", "1 of 4 tokens give no token of the model", r"such as '\u200b'"):
        assert part in message


CONTEXT = "the quick brown fox jumps over the lazy dog and the fox read a text 아버지가 방에 들어가신다"


def questions(contexts, answers, question="the fox"):
    labels = [None if span is None else Answers(() if span == () else (context[slice(*span)],), () if span == () else (span,))
              for context, span in zip(contexts, answers, strict=True)]
    return examples([question] * len(contexts), contexts, labels=labels)


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(data=st.data(), overlap=st.integers(0, 5))
def test_windows_over_contexts(family, data, overlap):
    contexts = data.draw(st.lists(texts_st.filter(bool), min_size=1, max_size=4))
    spans = [tuple(sorted(data.draw(st.lists(st.integers(0, len(c)), min_size=2, max_size=2, unique=True)))) for c in contexts]
    tokenizer, length = TOKENIZERS[family], 32
    both = questions(contexts, spans)
    units = make_units(both, tokenizer, "qa", length, overlap)
    expected = tokenizer(both.texts, contexts, truncation="only_second", max_length=length, stride=overlap,
                         return_overflowing_tokens=True, return_offsets_mapping=True)
    assert split(units, units.ids) == expected["input_ids"]
    assert units.example.tolist() == expected["overflow_to_sample_mapping"]
    assert split(units, units.types) == (expected.get("token_type_ids") or [[0] * len(ids) for ids in expected["input_ids"]])
    for u, (i, offsets) in enumerate(zip(units.example, expected["offset_mapping"], strict=True)):
        here = slice(units.offsets[u], units.offsets[u + 1])
        inside = [k for k, text in enumerate(expected.sequence_ids(u)) if text == 1]
        chars = units.chars[here]
        assert [tuple(chars[k].tolist()) for k in inside] == [offsets[k] for k in inside]
        assert (np.delete(chars, inside, 0) == -1).all()
        # The tokens that share a character with the answer, white space at its ends left aside; all of it must be here.
        begin, end = spans[i]
        answer = contexts[i][begin:end]
        begin, end = begin + len(answer) - len(answer.lstrip()), end - (len(answer) - len(answer.rstrip()))
        touched = [k for k in inside if offsets[k][0] < min(end, offsets[k][1]) and max(begin, offsets[k][0]) < min(end, offsets[k][1])]
        seen = [offsets[k] for k in inside if offsets[k][0] < offsets[k][1]]
        whole = touched and min(a for a, _ in seen) <= begin and max(b for _, b in seen) >= end
        assert tuple(units.values[u].tolist()) == ((touched[0], touched[-1]) if whole else (0, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_found_in_the_windows_that_hold_them(family):
    spans = [(4, 9), (16, 19), (CONTEXT.index("방에"), CONTEXT.index("방에") + 2), (), None, (0, len(CONTEXT)), (9, 16)]
    both = questions([CONTEXT] * len(spans), spans)
    units = make_units(both, TOKENIZERS[family], "qa", 32, 5)
    for i, span in enumerate(spans):
        mine = np.flatnonzero(units.example == i)
        held = [u for u in mine if tuple(units.values[u]) != (0, 0)]
        assert (units.weights[mine] == (span is not None)).all()
        if not span or span == (0, len(CONTEXT)):
            assert not held or len(mine) == 1  # no answer, none known, or longer than a window
            continue
        assert held
        for u in held:
            chars = units.chars[units.offsets[u] : units.offsets[u + 1]]
            first, last = units.values[u]
            got = CONTEXT[chars[first, 0] : chars[last, 1]]
            assert got.strip() == CONTEXT[slice(*span)].strip()


def test_an_answer_that_is_not_in_its_context_is_not_learned():
    one = examples(["q"], ["the fox"], labels=[Answers(("cow",), ())])
    assert make_units(one, TOKENIZERS["bert"], "qa", L, 2).weights.tolist() == [0]


def test_long_questions_leave_room_for_the_context(caplog):
    texts = ["the dog", "fox " * 30, "the fox"]
    both = examples(texts, [CONTEXT] * 3, labels=[Answers((), ())] * 3)
    with caplog.at_level(logging.WARNING, "jaxplm"):
        units = make_units(both, TOKENIZERS["bert"], "qa", L, 6)
    assert_line(caplog.text, "1 questions", "6 tokens", "data.seq_len=16", "cut")
    assert units.example.tolist() == sorted(units.example.tolist()) and set(units.example.tolist()) == {0, 1, 2}
    assert units.lengths.max() <= L
    alone = make_units(both.select([2]), TOKENIZERS["bert"], "qa", L, 6)
    assert split(units, units.ids)[-len(alone) :] == split(alone, alone.ids)
    for i in range(3):  # every token of the context is in some window
        covered = np.zeros(len(CONTEXT), bool)
        for u in np.flatnonzero(units.example == i):
            for begin, end in units.chars[units.offsets[u] : units.offsets[u + 1]].tolist():
                covered[max(begin, 0) : max(end, 0)] = True
        assert covered[[not char.isspace() for char in CONTEXT]].all()


def test_wrong_sizes():
    for kind, one, held, most in (("qa", examples(["a"], ["b"]), "13", "9"), ("tag", tagged([["a"]], [["O"]]), "14", "10")):
        with refuses("task.overlap=11", "data.seq_len=16", held, most):
            make_units(one, TOKENIZERS["bert"], kind, L, 11)


def test_white_space_among_words_changes_nothing_that_is_read_or_learned():
    """Tokens that spaCy makes of line breaks: they keep their place, and a perfect model gives them their tags."""
    bare = tagged([["the", "fox", "reads"]], [["B-X", "I-X", "O"]], scheme="IOB2")
    spaced = tagged([["the", "\n", "fox", " ", "reads", ""]], [["B-X", "I-X", "I-X", "O", "O", "O"]], scheme="IOB2")
    one, other = (make_units(each, TOKENIZERS["bert"], "tag", L, 2) for each in (bare, spaced))
    for name in ("ids", "values", "weights", "offsets"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert other.words.how.tolist() == [OWN, GAP, OWN, GAP, OWN, GAP]
    assert other.words.tags(other.labels.names, other.values) == spaced.labels
