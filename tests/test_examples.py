"""Labelled rows from every format; what cannot be used is counted and told, and every row keeps its number."""

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet
import pytest
from messages import assert_line, assert_says, refuses

from jaxplm.config import Data
from jaxplm.data.labelled.label_values import Answers
from jaxplm.data.labelled.reading import read_examples
from jaxplm.tasks.kinds import KINDS

ROWS = [("첫 문장", "a, b", 1), ('say "hi"', "c", 0), ("셋", "d e", 1)]


def write(path, rows, **options):
    path.write_text("".join(json.dumps(row, **options) + "\n" for row in rows))
    return path


def read(path, kind="classify", **options):
    fields = {name: options.pop(name) for name in ("text", "text_pair", "label", "tokens", "tags", "lines") if name in options}
    return read_examples(str(path), KINDS[kind], Data(**fields), **options)


def test_a_set_is_named_by_its_file_however_long_its_path_is(tmp_path):
    directory = tmp_path / ("long" * 20)
    directory.mkdir()
    files = [directory / f"{i}.jsonl" for i in range(3)]
    for file in files:
        file.write_text("")
    with refuses(str(files[0]), "no row"):
        read(files[0])
    with refuses(str(files[0]), "2 more", "no row"):
        read(",".join(map(str, files)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format(tmp_path, ending, packed):
    rows = [{"a": a, "b": b, "y": y} for a, b, y in ROWS]
    data = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".json": json.dumps(rows),
        ".csv": 'a,b,y\n첫 문장,"a, b",1\n"say ""hi""",c,0\n셋,d e,1\n',
        ".tsv": 'a\tb\ty\n첫 문장\ta, b\t1\nsay "hi"\tc\t0\n셋\td e\t1\n',
    }.get(ending)
    path = tmp_path / f"x{ending}"
    if data is None:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif packed:
        path = tmp_path / f"x{ending}.gz"
        path.write_bytes(gzip.compress(data.encode()))
    else:
        path.write_text(data)
    found = read(path, text="a", text_pair="b", label="y")
    assert (found.texts, found.pairs, found.labels) == ([a for a, _, _ in ROWS], [b for _, b, _ in ROWS], ["1", "0", "1"])
    assert found.rows.tolist() == [0, 1, 2] and found.ids is None and found.tokens is None
    assert len(read(f"{path},{path.parent}", text="a", label="y")) == 3  # none twice
    assert read(path, text="a", label="y").pairs is None
    for field, missing in (("text", "A"), ("text_pair", "B"), ("label", "Y")):
        fields = {"text": "a", "text_pair": "b", "label": "y"} | {field: missing}
        with refuses(f"'{missing}'", "'a', 'b', 'y'", f"data.{field}"):
            read(path, **fields)
    assert read(path, text="a", label="Y", labelled=False).labels == [None] * 3
    assert read(path, text="a", label="y", labelled=False).labels == ["1", "0", "1"]


def test_the_field_to_set_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "x", "gold": 1}])
    with refuses("'label'", "'text', 'gold'", "data.label"):
        read(path)
    with refuses("'tokens'", "data.tokens"):
        read(path, "tag")
    with refuses("'question'", "'text', 'gold'") as caught:
        read(path, "qa")
    assert "data." not in str(caught.value), "the columns of questions have no field"


def test_nothing_is_dropped_unseen(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "x"}\nnot json\n{"text": " ", "label": "y"}\n{"text": "b"}\n{"text": "c", "label": ""}\n'
                    '{"text": null, "label": "x"}\n{"text": "d", "label": "y"}\n')
    found = read(path)
    assert found.texts == ["a", " ", "b", "c", "", "d"]
    assert found.rows.tolist() == [0, 2, 3, 4, 5, 6]  # the unreadable line has a number too
    assert found.labels == ["x", "y", None, None, "x", "y"]
    assert found.labelled.tolist() == [True, True, False, False, True, True]
    with caplog.at_level(logging.WARNING, "jaxplm"):
        kept = found.trainable()
    assert (kept.texts, kept.labels, kept.rows.tolist(), kept.malformed) == (["a", "d"], ["x", "y"], [0, 6], 0)
    [message] = caplog.messages
    assert_says(message, "a.jsonl", "5 of 7 rows", "training", "2", "empty text", "label", "1", "parsed")
    caplog.clear()
    found.warn_unscored()
    assert_line(caplog.text, "scored", "2", "label", "1", "parsed", "prediction")
    caplog.clear()
    kept = read(write(tmp_path / "b.jsonl", [{"text": "a", "label": 1.0}, {"text": "b", "label": True}]))
    assert kept.trainable().labels == ["1", "true"] and not caplog.records
    kept.warn_unscored()
    assert not caplog.records


def test_rows_of_the_wrong_width_have_numbers(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\na\t1\nb\nc\t2\td\ne\t3\n")
    found = read(path)
    assert (found.texts, found.rows.tolist(), found.malformed) == (["a", "e"], [0, 3], 2)


def test_max_rows_counts_what_can_be_used(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b", "label": 1}, {"text": "", "label": 1}, {"text": "c", "label": 2}])
    assert read(path, max_rows=1).trainable().texts == ["b"]
    assert read(path, max_rows=2).trainable().texts == ["b", "c"]
    assert read(path, max_rows=2, labelled=False).texts == ["a", "b"]
    with refuses("'body'"):
        read(path, text="body", max_rows=1, labelled=False)


def test_no_label_at_all(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": None}, {"text": "b", "label": ""}])
    with refuses("a.jsonl", "2 rows", "label"):
        read(path)
    with refuses("a.jsonl", "2", "label"):
        read(path, labelled=False).trainable()
    (tmp_path / "b.jsonl").write_text("x\n")
    with refuses("b.jsonl", "1", "parsed"):
        read(tmp_path / "b.jsonl")


def test_text_files_have_no_labels(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo lines\nof text\n")
    assert read(path, labelled=False).texts == ["one", "two lines\nof text"]
    assert read(path, labelled=False, lines="true").texts == ["one", "", "two lines", "of text"]
    path.write_text("one\ntwo\n")
    assert read(path, labelled=False).texts == ["one", "two"]
    with refuses("a.txt", ".txt", "columns", "'text', 'label'"):
        read(path)
    with refuses("'question', 'context'"):
        read(path, "qa", labelled=False)


def test_multilabel(tmp_path):
    labels = [["b", "a", "b"], [], "a|c, d", "a, c", None, "", 3]
    found = read(write(tmp_path / "a.jsonl", [{"text": "x", "label": label} for label in labels]), "multilabel")
    assert found.labels == [("b", "a"), (), ("a", "c, d"), ("a", "c"), None, None, ("3",)]
    assert len(found.trainable()) == 5  # none of the labels is a label
    path = write(tmp_path / "b.jsonl", [{"text": "x", "label": "['a', 'b']"}])
    with refuses("row 1", "a|b|c"):
        read(path, "multilabel")
    with refuses("row 1", "list", "task.kind=multilabel"):
        read(tmp_path / "a.jsonl")


def test_regress(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,1.5\nb,\nc,-2\n")
    assert read(path, "regress").labels == [1.5, None, -2.0]
    for wrong in ("high", "nan", "inf"):
        path.write_text(f"text,label\na,1.5\nb,{wrong}\n")
        with refuses("a.csv", "row 2", f"'{wrong}'", "number"):
            read(path, "regress")


def test_tags_as_columns(tmp_path, caplog):
    rows = [{"w": ["EU", "rejects"], "t": ["B-ORG", "O"]}, {"w": ["a", "b"], "t": ["O"]}, {"w": ["a", "b"]}, {"w": [], "t": []},
            {"w": "a b", "t": "O B-ORG"}, {"w": ["a", "b"], "t": ["O", None]}]
    found = read(write(tmp_path / "a.jsonl", rows), "tag", tokens="w", tags="t")
    assert found.tokens == [["EU", "rejects"], ["a", "b"], ["a", "b"], [], ["a", "b"], ["a", "b"]]
    assert found.labels == [["B-ORG", "O"], None, None, [], ["O", "B-ORG"], None]
    assert (found.scheme, found.characters, found.texts[0]) == ("IOB2", False, "EU rejects")
    assert found.trainable().rows.tolist() == [0, 4]
    assert_line(caplog.text, "4 of 6 rows", "training", "1", "empty text", "label", "2", "tokens")


@pytest.mark.parametrize("name", ["a.conll", "a.tsv", "a.txt", "a.conll.gz"])
def test_conll(tmp_path, name):
    text = ("-DOCSTART- -X- O O\n\nEU NNP B-NP I-ORG\nrejects VBZ B-VP O\n# SYM B-NP O\n\n# a comment\n"
            "EU NNP B-NP I-ORG\nUN NNP I-NP B-ORG\nof IN B-PP I-ORG\n")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = read(path, "tag")
    assert found.tokens == [["EU", "rejects", "#"], ["EU", "UN", "of"]]
    assert found.labels == [["B-ORG", "O", "O"], ["B-ORG", "B-ORG", "I-ORG"]]  # IOB1, converted
    assert found.scheme == "IOB2"


def test_conll_of_characters(tmp_path):
    path = tmp_path / "klue.tsv"
    path.write_text("## 주석 : ##\n## 00\t<한국:LC> 은\n한\tB-LC\n국\tI-LC\n \tO\n은\tO\n\n## 01\tx\n영\tO\n화\tO\n")
    found = read(path, "tag")
    assert found.tokens == [["한", "국", " ", "은"], ["영", "화"]]
    assert found.characters and found.texts == ["한국 은", "영화"]  # the second too, though it has no space


def test_conll_without_tags(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("EU\nrejects\n\nit\n")
    assert read(path, "tag", labelled=False).labels == [None, None]
    with refuses("'tags'"):
        read(path, "tag")
    path.write_text("EU\tB-X\nrejects\n\nit\tO\n")
    assert read(path, "tag").labels == [None, ["O"]]


@pytest.mark.parametrize(("tags", "scheme", "after"), [
    (["S-X", "B-X", "E-X", "O"], "BIOES", ["S-X", "B-X", "E-X", "O"]),
    (["NN", "VB", "NN", "IN"], "", ["NN", "VB", "NN", "IN"]),
    (["0", "1", "2", "0"], "", ["0", "1", "2", "0"]),
])
def test_schemes(tmp_path, tags, scheme, after):
    found = read(write(tmp_path / "a.jsonl", [{"tokens": ["ab"] * 4, "tags": tags}]), "tag")
    assert (found.scheme, found.labels) == (scheme, [after])
    same = found.in_scheme("IOB2")
    assert (same.scheme, same.labels) == (("IOB2", [["B-X", "B-X", "I-X", "O"]]) if scheme == "BIOES" else (scheme, [after]))


def test_bioes_of_characters_becomes_iob2(tmp_path):
    """A token of the model that stands for several characters has no tag for the last of them."""
    found = read(write(tmp_path / "a.jsonl", [{"tokens": list("ab c"), "tags": ["B-X", "E-X", "O", "S-X"]}]), "tag")
    assert (found.scheme, found.labels) == ("IOB2", [["B-X", "I-X", "O", "B-X"]])


CONTEXT = "The cat sat. The dog ran. 고양이는 앉았다."


def squad(path, *answers, **extra):
    qas = [{"id": f"q{i}", "question": f"Q{i}"} | ({} if one is None else {"answers": one}) | extra for i, one in enumerate(answers)]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    return path


def test_squad(tmp_path, caplog):
    def at(text, start):
        return {"text": text, "answer_start": start}

    found = read(squad(tmp_path / "a.json", [at("cat", 4), at("The cat", 0)], [at("고양이", 26)], [at("dog", 15)], [at("The", 5)],
                       [at("cow", 4)], [], None, [at("cow", 4), at("cat", 4)], [at("", 0)]), "qa")
    assert found.texts[:2] == ["Q0", "Q1"] and found.pairs == [CONTEXT] * 9 and found.ids == [f"q{i}" for i in range(9)]
    assert found.labels[:4] == [Answers(("cat", "The cat"), ((4, 7), (0, 7))), Answers(("고양이",), ((26, 29),)),
                                Answers(("dog",), ((17, 20),), 1), Answers(("The",), ((0, 3),), 1)]
    assert found.labels[4:8] == [Answers(("cow",), ()), Answers((), ()), None, Answers(("cow", "cat"), ((4, 7),))]
    assert found.faults == ["", "", "", "", "no_answer", "", "missing", "", "no_answer"]
    assert_line(caplog.text, "2 answers", "context")
    found.trainable()
    assert_line(caplog.text, "3 of 9 rows", "training", "1", "label", "2", "answer", "context")


def test_answers_far_from_their_place(tmp_path):
    """Of several places that are all far away none can be taken; the only one can."""
    context = "x" * 100 + " cat " + "x" * 100 + " cat dog"
    rows = [{"question": "q", "context": context, "answers": [{"text": text, "answer_start": 0}]} for text in ("cat", "dog")]
    found = read(write(tmp_path / "a.jsonl", rows), "qa")
    assert [label.spans for label in found.labels] == [(), ((210, 213),)]


def test_squad_2(tmp_path):
    found = read(squad(tmp_path / "a.json", [{"text": "cat", "answer_start": 4}], is_impossible=True, plausible_answers=[]), "qa")
    assert found.labels == [Answers((), ())] and found.faults == [""]
    with refuses("2 rows", "label"):
        read(squad(tmp_path / "b.json", None, None), "qa")
    assert read(tmp_path / "b.json", "qa", labelled=False).labels == [None, None]


def test_questions_as_rows(tmp_path):
    rows = [{"id": 7, "question": "q", "context": CONTEXT, "answers": {"text": ["cat"], "answer_start": [4]}},
            {"question": "q", "context": CONTEXT, "answers": {"text": [], "answer_start": []}}]
    found = read(write(tmp_path / "a.jsonl", rows), "qa")
    assert found.labels == [Answers(("cat",), ((4, 7),)), Answers((), ())] and found.ids == ["7", "1"]
    path = write(tmp_path / "b.jsonl", [{"question": "q", "context": "c", "answers": ["cat"]}])
    with refuses("b.jsonl", "row 1", "answers", "SQuAD"):
        read(path, "qa")


@pytest.mark.slow
def test_built_in_texts_have_no_labels():
    with refuses("builtin:pydocs-short", "'label'", "'text'"):
        read("builtin:pydocs-short")


def test_texts_are_not_changed_but_for_what_no_tokenizer_takes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "  a\xff b \\ud800", "label": " x "}\n')
    found = read(path)
    assert (found.texts, found.labels) == (["  a b "], ["x"])


def test_hub(monkeypatch):
    import datasets
    import huggingface_hub

    from jaxplm.data.sources import hub

    features = datasets.Features({
        "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"]),
        "words": datasets.List(datasets.Value("string")), "ner": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
    })
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1], "words": [["x", "y"], ["z"]], "ner": [[0, 1], [0]]},
                                      features=features)
    info = type("Info", (), {"sha": "abc"})
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: type("Api", (), {"dataset_info": lambda self, name, timeout: info})())
    load = {"load_dataset": lambda *args, **options: data.to_iterable_dataset()}
    monkeypatch.setattr(hub, "quiet_datasets", lambda: type("Datasets", (), load))
    assert read("hf:films").labels == ["pos", None]
    assert read("hf:films", label="none", labelled=False).labels == [None, None]
    found = read("hf:films", "tag", tokens="words", tags="ner")
    assert found.labels == [["O", "B-X"], ["O"]] and found.scheme == "IOB2"
    with refuses("hf:films", "'gold'", "'text', 'label'", "data.label"):
        read("hf:films", label="gold")
