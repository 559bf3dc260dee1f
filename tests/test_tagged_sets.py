"""What a set of tagged sentences is: words or characters, entities or plain tags, their scheme and form, columns of CoNLL files.

The training set decides, the other sets and the export keep to it, and fields overrule it.
"""

import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import assert_line, refuses

from jaxplm.config import Data
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.labelled.tag_forms import TagForm, find_form
from jaxplm.data.labelled.tag_schemes import rewritten
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.labelled.word_map import GAP, NONE, OWN, WordMap
from jaxplm.data.sources.conll import find_layout, read_conll
from jaxplm.data.sources.texts import open_texts
from jaxplm.tasks.kinds import KINDS

TAG = KINDS["tag"]


def rows_of(path, *rows: tuple[list[str], list]):
    path.write_text("".join(json.dumps({"tokens": tokens, "tags": tags}) + "\n" for tokens, tags in rows))
    return path


def read(path, train: Examples | None = None, **fields) -> Examples:
    """A training set, or another set of the same run."""
    return read_examples(str(path), TAG, Data(**fields), labelled=train is None, reading=train.reading if train else None)


def through_export(train: Examples) -> Examples:
    """The training set with the reading that its export keeps."""
    return Examples(**vars(train) | {"reading": TaggedReading.from_json(json.loads(json.dumps(train.reading.to_json())))})


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "jaxplm")
    return caplog


# ---------------------------------------------------------------- words or characters


def test_white_space_among_words(tmp_path, said):
    """As spaCy writes it: the tokens stay words, and white space keeps its place and its tag."""
    tokens, tags = ["Ann", "Lee", "\n", "saw", " ", "Bonn", ""], ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "O"]
    found = read(rows_of(tmp_path / "a.jsonl", *[(tokens, tags)] * 3))
    assert not found.characters and found.texts[0] == "Ann Lee saw Bonn"
    assert (found.tokens, found.labels) == ([tokens] * 3, [tags] * 3)
    assert_line(said.text, "a.jsonl", "words", "entities", "IOB2", "data.token_unit", "data.tag_scheme")


@pytest.mark.parametrize(("tokens", "characters"), [
    (list("한국 은"), True), (["\u1112\u1161\u11ab", "국"], True), ([*"abcdefghijklmnopqrst" * 2, "NBA"], True), (["a", "b", "cd"], False),
    ([" ", "\t"], False), (["Ann", *" " * 30], False)])
def test_characters(tmp_path, tokens, characters):
    first = ["x", "y"] if characters else ["xx"]
    path = rows_of(tmp_path / "a.jsonl", (first, ["O"] * len(first)), (tokens, ["O"] * len(tokens)))
    assert read(path).characters == characters
    assert read(path, token_unit="words").characters is False
    forced = read(path, token_unit="characters")
    assert forced.characters and forced.texts[1] == "".join(tokens)


def test_the_unit_is_that_of_the_training_set(tmp_path):
    """A prediction does not depend on the rows beside it, in the run and from its export."""
    words = read(rows_of(tmp_path / "a.jsonl", (["Ann", "is", "here"], ["B-PER", "O", "O"])))
    characters = read(rows_of(tmp_path / "b.jsonl", (list("한국 은"), ["B-LC", "I-LC", "O", "O"])))
    letters = rows_of(tmp_path / "c.jsonl", (["I", "a"], ["O", "O"]))
    sentence = rows_of(tmp_path / "d.jsonl", (["EU", "is"], ["O", "O"]))
    for train in (words, through_export(words)):
        assert not read(letters, train).characters and read(letters, train).texts == ["I a"]
    for train in (characters, through_export(characters)):
        assert read(sentence, train).characters and read(sentence, train).texts == ["EUis"]
    assert read(letters, words, token_unit="characters").characters


def test_white_space_inside_an_entity():
    def tags(predicted, how, offsets, space="O"):
        token = [-1 if one in (GAP, NONE) else at for at, one in enumerate(how)]
        names = tuple(dict.fromkeys(predicted))
        ids = [names.index(tag) for tag in predicted]
        return WordMap(np.array(offsets), np.array(token), np.array(how), space).tags(names, np.array(ids))

    gaps = [OWN, GAP, GAP, OWN]
    assert tags(["B-X", "O", "O", "I-X"], gaps, [0, 4]) == [["B-X", "I-X", "I-X", "I-X"]]
    assert tags(["B-X", "O", "O", "E-X"], gaps, [0, 4]) == [["B-X", "I-X", "I-X", "E-X"]]
    assert tags(["B-X", "O", "O", "I-Y"], gaps, [0, 4]) == [["B-X", "O", "O", "I-Y"]]
    assert tags(["S-X", "O", "O", "I-X"], gaps, [0, 4]) == [["S-X", "O", "O", "I-X"]]
    assert tags(["B-X", "O", "O", "I-X"], gaps, [0, 2, 4]) == [["B-X", "O"], ["O", "I-X"]]
    assert tags(["B-X", "O", "O", "I-X"], [OWN, NONE, GAP, OWN], [0, 4]) == [["B-X", "O", "O", "I-X"]]
    assert tags(["NN", "NN", "NN", "VB"], gaps, [0, 4], "_SP") == [["NN", "_SP", "_SP", "VB"]]


def test_plain_tags_of_white_space_are_the_training_set_s(tmp_path):
    found = read(rows_of(tmp_path / "a.jsonl", (["Ann", "\n", "runs", " "], ["NNP", "_SP", "VBZ", "_SP"])))
    assert found.scheme == "" and found.reading.space == through_export(found).reading.space == "_SP"


# ---------------------------------------------------------------- entities or plain tags


OUTSIDE = ["O", "-", "_", "0", "other"]
forms = st.builds(TagForm, st.sampled_from("-_:/|."), st.booleans(), st.sampled_from(OUTSIDE))


@given(form=forms, letters=st.sampled_from(["BI", "BIES", "BILU", "BMES", "BMEW"]), lower=st.booleans())
def test_every_form_is_found(form: TagForm, letters: str, lower: bool) -> None:
    def written(letter: str, kind: str) -> str:
        letter = letter.lower() if lower else letter
        return f"{kind}{form.separator}{letter}" if form.letter_last else f"{letter}{form.separator}{kind}"

    tags = {written(letter, kind): (letter, kind) for letter in letters for kind in ("PER", "LOC")}
    expected = {tag: f"{dict(zip('LUMW', 'ESIS', strict=True)).get(letter, letter)}-{kind}" for tag, (letter, kind) in tags.items()}
    for names in ({*tags, form.outside}, {*tags}):
        found = find_form(names)
        assert found is not None and {tag: found.read(tag) for tag in tags} == expected
    assert found is not None and found.read("O") == "O"
    found = find_form({*tags, form.outside})
    assert found is not None and found.read(form.outside) == "O" and found.read("NN") is None


@pytest.mark.parametrize("names", [
    {"NN", "VB", "IN"}, {"O", "NN"}, {"0", "1", "2"}, {"B_PER", "NN", "VB", "-"}, {"S_1", "E_1"}, {"SF", "SP", "EC"}, {"O"},
    {"B_1", "B_2"}, {"B-X", "M-X", "U-X", "O"}, {"I", "E"}])
def test_other_names_are_no_form(names) -> None:
    assert find_form(names) is None


@pytest.mark.parametrize(("tags", "read_as"), [
    (["B-NUM", "B-ST", "I-ST", "B-CITY"], ["B-NUM", "B-ST", "I-ST", "B-CITY"]),  # no O anywhere
    (["-", "PER_B", "PER_I", "LOC_B"], ["O", "B-PER", "I-PER", "B-LOC"]),
    (["O", "B_PER", "I_PER", "B_LOC"], ["O", "B-PER", "I-PER", "B-LOC"]),
    (["U-PER", "B-LOC", "I-LOC", "L-LOC"], ["S-PER", "B-LOC", "I-LOC", "E-LOC"]),
    (["B", "M", "E", "S"], ["B", "I", "E", "S"]),  # words of a sentence of characters
    (["o", "b-per", "i-per", "o"], ["O", "B-per", "I-per", "O"])])
def test_tags_that_mark_entities(tmp_path, said, tags, read_as):
    train = read(rows_of(tmp_path / "a.jsonl", (["ab"] * 4, tags)))
    assert train.labels == [read_as] and train.scheme == ("BIOES" if {"S", "E"} & {tag[0] for tag in read_as} else "IOB2")
    assert "WARNING" not in said.text
    assert_line(said.text, "a.jsonl", "entities")
    # One tag alone says nothing of its form.
    for like in (train, through_export(train)):
        assert read(rows_of(tmp_path / "b.jsonl", (["ab"], [tags[0]])), like).labels == [[read_as[0]]]
    assert read(tmp_path / "a.jsonl", tag_scheme="plain").labels == [tags]


@pytest.mark.parametrize(("tags", "says"), [
    ([0, 1, 2, 0], ("numbers", "names")),
    (["0", "1", "2", "0"], ("numbers", "names")),
    (["O", "PER", "PER", "O"], ("O", "'PER'", "B-")),
    (["B_PER", "I_PER", "NN", "VB"], ("'B_PER'", "'NN'"))])
def test_plain_tags_that_may_be_entities_are_warned_of(tmp_path, said, tags, says):
    path = rows_of(tmp_path / "a.jsonl", (["ab"] * 4, tags))
    train = read(path)
    assert train.scheme == "" and train.labels == [[str(tag) for tag in tags]]
    [warning] = [record.getMessage() for record in said.records if record.levelno == logging.WARNING]
    assert_line(warning, "a.jsonl", "plain", "entities", "data.tag_scheme=plain", *says)
    said.clear()
    read(path, train)
    read(path, tag_scheme="plain")
    assert not [record for record in said.records if record.levelno == logging.WARNING]


def test_numbers_named_by_a_field(tmp_path, said):
    names = ("-", "PER_B", "PER_I")
    path = rows_of(tmp_path / "a.jsonl", (["ab"] * 4, [0, 1, 2, 0]), (["ab"], ["PER_B"]))
    found = read(path, label_names=names)
    assert found.labels == [["O", "B-PER", "I-PER", "O"], ["B-PER"]] and found.scheme == "IOB2" and "WARNING" not in said.text


def test_lists_written_as_texts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('tokens,tags\n"[\'Ann\', \'is\']","[\'B-PER\', \'O\']"\n')
    with refuses("a.csv row 1", "'tokens'", "list", ".jsonl"):
        read(path)
    path.write_text('tokens,tags\n"[ Ann ]","O B-PER O"\n')
    assert read(path).tokens == [["[", "Ann", "]"]]


def test_parts_of_speech_are_no_reason_to_warn(tmp_path, said):
    assert read(rows_of(tmp_path / "a.jsonl", (["ab"] * 3, ["NN", "VB", "-"]))).scheme == ""
    assert "WARNING" not in said.text
    assert_line(said.text, "words", "plain", "data.tag_scheme")


def test_a_tag_beside_those_of_entities(tmp_path):
    with refuses("a.jsonl", "'MISC'", "data.tag_scheme=plain"):
        read(rows_of(tmp_path / "a.jsonl", (["ab"] * 3, ["B-PER", "O", "MISC"])))
    train = read(rows_of(tmp_path / "b.jsonl", (["ab"] * 2, ["B-PER", "O"])))
    with refuses("a.jsonl", "'MISC'"):
        read(tmp_path / "a.jsonl", train)


def test_numbers_with_names_in_parquet(tmp_path, said):
    feature = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}
    for number, described in enumerate(({"feature": feature, "_type": "List"}, {"feature": feature, "length": -1, "_type": "Sequence"},
                                        [feature])):
        features = {"tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}, "tags": described}
        table = pa.table({"tokens": [["Ann", "Lee", "is"], ["x"]], "tags": [[1, 2, 0], [-1]]})
        path = tmp_path / f"{number}.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
        found = read(path)
        assert found.labels == [["B-PER", "I-PER", "O"], None] and found.scheme == "IOB2"
    assert "WARNING" not in said.text
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    classes = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": classes}})}), path)
    assert read_examples(str(path), KINDS["classify"], Data()).labels == ["good", "bad"]
    for broken in ("{", "[]", json.dumps({"info": {"features": {"label": 3}}})):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": broken}), path)
        assert read_examples(str(path), KINDS["classify"], Data()).labels == ["1", "0"]
    classes["label"]["names"] = ["bad"]
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": classes}})}), path)
    with refuses("'label'", "class 1", "1"):
        read_examples(str(path), KINDS["classify"], Data())


# ---------------------------------------------------------------- schemes


def test_the_scheme_is_that_of_the_training_set(tmp_path, said):
    """A set without O shows no IOB1; it is converted as the training set is."""
    train = read(rows_of(tmp_path / "a.jsonl", (["Ann", "Lee", "is", "Jo"], ["I-PER", "I-PER", "O", "I-PER"])))
    assert (train.scheme, train.reading.scheme, train.labels) == ("IOB2", "IOB1", [["B-PER", "I-PER", "O", "B-PER"]])
    for like in (train, through_export(train)):
        test = read(rows_of(tmp_path / "b.jsonl", (["Ann", "Lee"], ["I-PER", "I-PER"]), (["Jo", "Al"], ["I-PER", "B-PER"])), like)
        assert (test.scheme, test.labels) == ("IOB2", [["B-PER", "I-PER"], ["B-PER", "B-PER"]])
        test = read(rows_of(tmp_path / "c.jsonl", (["Jo"], ["I-PER"])), like)
        assert (test.scheme, test.labels) == ("IOB2", [["B-PER"]])
    assert_line(said.text, "a.jsonl", "IOB1", "converted", "IOB2")


def test_sets_of_another_scheme_are_converted(tmp_path):
    iob2 = read(rows_of(tmp_path / "a.jsonl", (["ab"] * 3, ["B-X", "I-X", "O"])))
    bioes = read(rows_of(tmp_path / "b.jsonl", (["ab"] * 3, ["B-X", "E-X", "O"])))
    assert (iob2.scheme, bioes.scheme) == ("IOB2", "BIOES")
    sets = {"IOB1": ["I-X", "I-X", "O", "I-X"], "IOB2": ["B-X", "I-X", "O", "B-X"], "BIOES": ["B-X", "E-X", "O", "S-X"]}
    for name, tags in sets.items():
        path = rows_of(tmp_path / f"{name}.jsonl", (["ab"] * 4, tags))
        for train, expected in ((iob2, sets["IOB2"]), (bioes, sets["BIOES"])):
            for like in (train, through_export(train)):
                found = read(path, like).in_scheme(train.scheme)
                assert (found.labels, found.scheme) == ([expected], train.scheme), name
    assert rewritten(["I-X", "I-Y", "I-Y", "O", "E-X"], "BIOES") == ["S-X", "B-Y", "E-Y", "O", "S-X"]


def test_the_scheme_of_a_field(tmp_path):
    path = rows_of(tmp_path / "a.jsonl", (["ab"] * 4, ["I-X", "O", "B-X", "I-X"]))
    assert read(path, tag_scheme="IOB1").labels == [["B-X", "O", "B-X", "I-X"]]
    assert read(path, tag_scheme="IOB2").labels == [["I-X", "O", "B-X", "I-X"]]
    train = read(path, tag_scheme="IOB2")
    assert read(rows_of(tmp_path / "b.jsonl", (["ab"], ["I-X"])), train, tag_scheme="IOB2").labels == [["I-X"]]
    with refuses("c.jsonl", "'E-X'", "IOB2"):
        read(rows_of(tmp_path / "c.jsonl", (["ab"] * 2, ["B-X", "E-X"])), tag_scheme="IOB2")
    with refuses("d.jsonl", "'NN'"):
        read(rows_of(tmp_path / "d.jsonl", (["ab"], ["NN"])), tag_scheme="IOB1")


# ---------------------------------------------------------------- columns of CoNLL files


def test_only_spaces_and_tabs_separate_columns(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Wert O\n10\u00a0000 B-NUM\n\u3000 O\n\nDer\tO\n\tO\n\u00a0\tO\nHund\u2009x\tO\n \tO\n\nA  B-X \n  O\nb\u00a0 O\n")
    found = read(path)
    assert found.tokens == [["Wert", "10\u00a0000", "\u3000"], ["Der", "", "\u00a0", "Hund\u2009x", " "], ["A", " ", "b\u00a0"]]
    assert found.labels == [["O", "B-NUM", "O"], ["O"] * 5, ["B-X", "O", "O"]]
    assert not found.characters and found.texts[1] == "Der Hund\u2009x"
    assert list(open_texts(str(path))) == ["Wert 10\u00a0000", "Der Hund\u2009x", "A b"]


GERMEVAL = ("#\thttp://example.org/Berg [2009-10-17]\n1\tAnna\tB-PER\tO\n2\tBerg\tI-PER\tB-LOC\n3\t.\tO\tO\n\n"
            "#\tein Blatt vom 3. Mai [2010-05-03]\n1\t1\tO\tO\n2\tEuro\tO\tO\n")


@pytest.mark.parametrize("start", [1, 0])
def test_a_column_of_numbers_is_not_the_token(tmp_path, said, start):
    path = tmp_path / "a.tsv"
    path.write_text(GERMEVAL if start else GERMEVAL.replace("\n2\t", "\n1\t").replace("1\tAnna", "0\tAnna").replace("3\t.", "2\t.")
                    .replace("1\t1\t", "0\t1\t"))
    found = read(path)
    assert found.tokens == [["Anna", "Berg", "."], ["1", "Euro"]] and found.labels == [["O", "B-LOC", "O"], ["O", "O"]]
    assert_line(said.text, "a.tsv", "token", "column 2", "tag", "last", "data.tokens")
    # A tag in another column, by its number.
    found = read(path, tags="3")
    assert found.labels == [["B-PER", "I-PER", "O"], ["O", "O"]]
    assert read(path, tokens="1", tags="3").tokens[0] == [str(start + i) for i in range(3)]


def test_numbers_that_are_tokens(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("1 CD O\n000 CD O\nmen NN O\n\n2 CD O\n")
    assert read(path).tokens == [["1", "000", "men"], ["2"]]
    path.write_text("1 CD O\n\n1 CD O\n")  # too few to tell
    assert read(path).tokens == [["1"], ["1"]]


def test_columns_are_those_of_the_training_set(tmp_path, said):
    (tmp_path / "numbered.conll").write_text(GERMEVAL)
    (tmp_path / "bare.conll").write_text("Anna B-PER\nis O\nhere O\n")
    (tmp_path / "one.conll").write_text("1 CD O\n2 CD O\n3 CD O\n")
    numbered, bare = read(tmp_path / "numbered.conll"), read(tmp_path / "bare.conll")
    for like in (numbered, through_export(numbered)):
        assert read(tmp_path / "one.conll", like).tokens == [["CD", "CD", "CD"]]
        assert read(tmp_path / "bare.conll", like).tokens == [["Anna", "is", "here"]]
        assert_line(said.text, "bare.conll", "column 1", "column 2", "data.tokens")
    for like in (bare, through_export(bare)):
        assert read(tmp_path / "one.conll", like).tokens == [["1", "2", "3"]]
    by_number = read(tmp_path / "numbered.conll", tokens="2", tags="3")
    assert read(tmp_path / "numbered.conll", through_export(by_number)).labels[0] == ["B-PER", "I-PER", "O"]
    unlabelled = tmp_path / "u.conll"
    unlabelled.write_text("1\tAnna\n2\tBerg\n")
    found = read(unlabelled, numbered)
    assert (found.tokens, found.labels) == ([["Anna", "Berg"]], [None])


def test_tokens_that_are_all_numbers(tmp_path, said):
    path = tmp_path / "a.tsv"
    path.write_text("1-1\t0-4\tAnna\tB-PER\n1-2\t5-7\tis\tO\n1-3\t8-10\tin\tO\n")
    assert read(path).tokens == [["1-1", "1-2", "1-3"]]
    assert_line(said.text, "WARNING", "a.tsv", "numbers", "'1-1'", "data.tokens=2")
    said.clear()
    assert read(path, tokens="3").tokens == [["Anna", "is", "in"]] and "WARNING" not in said.text


def test_texts_of_conll_files(tmp_path):
    """For pre-training each file shows what it is: words or characters, with or without numbers."""
    path = tmp_path / "a.conll"
    path.write_text(GERMEVAL)
    assert list(open_texts(str(path))) == ["Anna Berg .", "1 Euro"]
    path.write_text("한 O\n국 O\n\n\tO\n")
    assert list(open_texts(str(path))) == ["한국"]
    path.write_text("1-2\tzum\t_\n1\tzu\tP\n2\tdem\tD\n2.1\tx\t_\n3\tHaus\tN\n")  # CoNLL-U
    assert list(open_texts(str(path))) == ["zum zu dem x Haus"]


def test_comments_and_the_token_of_that_sign() -> None:
    lines = ["#\tO\n", "# SYM O\n", "x O\n", "#\tO\n", "## y\n", "# a comment\n"]
    assert [columns[0] for columns in next(read_conll(iter(lines)))] == ["#", "x", "#"]
    layout, sentences = find_layout(iter([[["1", "a"], ["2", "b"], ["3", "c"]]]), None)
    assert layout.token == 1 and next(sentences)[0] == ["1", "a"]
