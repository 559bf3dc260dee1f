"""The recipe `select` by the real command: what it selects, stopped, killed and resumed, on several devices, and each mistake."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import fields, succeeded, tree
from helpers import sentences
from messages import assert_line, assert_refusal

import jaxplm
from jaxplm.data.selection import importance
from jaxplm.data.selection.neighbours import unit

pytestmark = pytest.mark.slow

K, TASK, CORPUS = 5, 40, 900


def selected(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "selected" / "texts.jsonl").read_text("utf-8").splitlines()]


def outputs(workdir: Path) -> dict[str, bytes]:
    """Every file of the result; the report names the workdir."""
    return {name: content for name, (_, content) in tree(workdir / "selected").items()} | {
        "plot": (workdir / "plots" / "similarity.png").read_bytes(),
        "report": (workdir / "report.md").read_bytes().replace(str(workdir).encode(), b"WORKDIR")}


@pytest.fixture(scope="module")
def data(lab) -> Path:
    """A task with a validation and a test set, and a corpus with planted copies, leaks and duplicates in two files."""
    here = lab.root / "selection"
    here.mkdir()
    random = np.random.default_rng(5)
    task = list(dict.fromkeys(sentences(TASK * 2, seed=1, length=10)))[:TASK]
    held = {name: [" ".join([text] * 3) for text in sentences(12, seed=seed)] for name, seed in (("validation", 2), ("test", 3))}
    corpus = sentences(CORPUS, seed=4, length=14)
    places = random.permutation(CORPUS)
    for i, text in enumerate(task):
        corpus[places[i]] = f"{text.rstrip('.')} ."  # near-duplicates: the same tokens
    for i, text in enumerate([*held["validation"], *held["test"]]):
        corpus[places[TASK + i]] = f"the river {text} 고양이가 매트 위에 앉았다"
    corpus[places[100]] = corpus[places[101]] = corpus[places[102]]
    (here / "a.txt").write_text("\n".join(corpus[:500]) + "\n", "utf-8")
    (here / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus[500:]), "utf-8")
    for name, texts in {"train": task, **held}.items():
        rows = [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)]
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (here / "planted.json").write_text(json.dumps(places.tolist()))
    return here


def flags(lab, data: Path, workdir: Path, **more) -> list[str]:
    settings = {"model__path": lab.model, "data__corpus": f"{data / 'a.txt'},{data / 'b.jsonl'}", "data__seq_len": 32,
                "train__batch_size": 8, "compute__dtype": "float32", "select__neighbours": K, "embed__shard_rows": 64}
    settings |= {f"data__{name}": data / f"{name}.jsonl" for name in ("train", "validation", "test")} | more
    return ["--config=configs/select.py", f"--workdir={workdir}", *fields(**settings)]


@pytest.fixture(scope="module")
def finished(lab, data) -> tuple[Path, str]:
    workdir = lab.root / "selection-run"
    return workdir, succeeded(lab.run(flags(lab, data, workdir)))


def corpus_of(data: Path) -> list[str]:
    return (data / "a.txt").read_text("utf-8").split("\n")[:-1] + [
        json.loads(line)["text"] for line in (data / "b.jsonl").read_text("utf-8").splitlines()]


def test_the_neighbours_are_those_of_a_brute_force_in_float64(lab, data, finished):
    workdir, out = finished
    places = json.loads((data / "planted.json").read_text())
    corpus = corpus_of(data)
    task = [json.loads(line)["text"] for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
    leaks = set(places[TASK : TASK + 24])
    kept = [i for i, text in enumerate(corpus) if i not in leaks and corpus.index(text) == i]
    vectors = [unit(jaxplm.embed(texts, str(lab.model), seq_len=32, compute="float32")) for texts in (task, [corpus[i] for i in kept])]
    exact = (vectors[0][:, None] * vectors[1]).sum(-1)
    wanted = np.sort(exact, axis=1)[:, ::-1][:, :K]
    numbers, similarities = (np.load(workdir / "selected" / f"{name}.npy") for name in ("neighbours", "similarities"))
    np.testing.assert_allclose(similarities, wanted, rtol=0, atol=2e-6)
    place = {number: i for i, number in enumerate(kept)}
    found = np.array([[place[number] for number in row] for row in numbers.tolist()])
    np.testing.assert_allclose(np.take_along_axis(exact, found, 1), wanted, rtol=0, atol=2e-6)
    assert all(len(set(row)) == K for row in numbers.tolist())

    rows = selected(workdir)
    assert [row["index"] for row in rows] == sorted(set(numbers.ravel().tolist()))
    for row in rows:
        assert row["text"] == corpus[row["index"]]
        assert row["source"] == str(data / ("a.txt" if row["index"] < 500 else "b.jsonl"))
        best = np.where((numbers == row["index"]).any(1), exact[:, place[row["index"]]], -1)  # of task texts whose neighbour it is
        assert abs(row["similarity"] - best.max()) < 3e-6 and best[row["task_row"]] > best.max() - 3e-6
    assert set(places[:TASK]) <= {row["index"] for row in rows}, "every planted near-duplicate"
    assert not leaks & {row["index"] for row in rows}, "no planted leak"
    index = json.loads((workdir / "selected" / "index.json").read_text())
    told = {"method": "knn", "texts": len(rows), "task_texts": TASK, "corpus_texts": CORPUS, "available": len(kept), "leaks": 24,
            "leaks_by_set": {"validation": 12, "test": 12}, "duplicates": CORPUS - 24 - len(kept)}
    assert {name: index[name] for name in told} == told
    assert_line(out, f"{CORPUS} texts", "24", "12 with data.validation", "12 with data.test")
    assert_line(out, "selected", f"{len(rows)} of {CORPUS} texts")
    report = (workdir / "report.md").read_text("utf-8")
    assert f"{len(rows)} texts" in report and "plots/similarity.png" in report and sum(text in report for text in task) >= 6
    assert {path.name for path in workdir.iterdir()} == {"config.json", ".checksums.json", "selected", "plots", "report.md"}


def test_a_finished_run_does_nothing_and_a_damaged_one_selects_again(lab, data, finished):
    workdir, _ = finished
    before = tree(workdir)
    out = succeeded(lab.run(flags(lab, data, workdir)))
    assert_line(out, "finished", f"{len(selected(workdir))} texts")
    assert tree(workdir) == before
    wanted = outputs(workdir)
    (workdir / "selected" / "texts.jsonl").write_text("{}\n")
    assert_line(succeeded(lab.run(flags(lab, data, workdir))), "warning", "selected/texts.jsonl")
    assert outputs(workdir) == wanted


def test_stopped_and_killed_the_same_command_gives_the_same_files(lab, data, finished, tmp_path):
    command = flags(lab, data, tmp_path / "run")
    moments = ((signal.SIGKILL, r"left out"), (signal.SIGTERM, r"^embeddings-00003"), (signal.SIGKILL, r"^embeddings-0000[67]"),
               (signal.SIGINT, r"^embeddings-00010"))
    for number, moment in moments:
        with lab.started(command) as process:
            process.wait_for(moment)
            status, _, err = process.stop(number)
        assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], err
        if number != signal.SIGKILL:
            assert_refusal(err, "stopped", "saved", "command")
        assert not (tmp_path / "run" / "selected" / "index.json").exists()
    assert_line(succeeded(lab.run(command)), "resuming")
    assert outputs(tmp_path / "run") == outputs(finished[0])


def test_several_devices_give_the_same_selection(lab, data, finished, tmp_path):
    done = lab.run(flags(lab, data, tmp_path / "run", mesh__fsdp=2), XLA_FLAGS="--xla_force_host_platform_device_count=4")
    succeeded(done)
    ours, theirs = selected(tmp_path / "run"), selected(finished[0])
    assert [row["index"] for row in ours] == [row["index"] for row in theirs]
    assert max(abs(a["similarity"] - b["similarity"]) for a, b in zip(ours, theirs, strict=True)) < 3e-6


@pytest.mark.parametrize("method", ["dsir", "random"])
def test_without_a_model_as_many_texts_are_chosen_as_are_wanted(lab, data, finished, tmp_path, method):
    size = len(selected(finished[0]))
    available = json.loads((finished[0] / "selected" / "index.json").read_text())["available"]
    more = {"model__path": tmp_path / "none", "select__method": method, "select__texts": size}
    succeeded(lab.run(flags(lab, data, tmp_path / "run", **more)))
    rows, corpus = selected(tmp_path / "run"), corpus_of(data)
    assert len({row["index"] for row in rows}) == len(rows) == size
    assert [row["text"] for row in rows] == [corpus[row["index"]] for row in rows]
    if method == "dsir":
        kept = [text for text in dict.fromkeys(corpus) if "고양이가" not in text]
        task = [json.loads(line)["text"] for line in (data / "train.jsonl").read_text("utf-8").splitlines()]
        ngrams = importance.HashedNgrams()
        ratios = importance.log_ratios(importance.count(task, ngrams), importance.count(kept, ngrams))
        wanted = importance.log_weights([row["text"] for row in rows], ratios, ngrams)
        assert np.abs(np.array([row["weight"] for row in rows]) - wanted).max() < 1e-6
        assert wanted.mean() > importance.log_weights(kept, ratios, ngrams).mean()
    else:
        assert "weight" not in rows[0]
    assert not {"고양이가"} & {word for row in rows for word in row["text"].split()}, "no planted leak"
    usual = {name: value for name, value in more.items() if name != "select__texts"}
    usual["select__neighbours"] = 50 if method == "random" else K
    out = succeeded(lab.run(flags(lab, data, tmp_path / "all", **usual)))
    assert len(selected(tmp_path / "all")) == (available if method == "random" else TASK * K)
    assert ("warning" in out) == (method == "random")
    if method == "random":
        assert_line(out, "warning", f"{available} texts", "select.texts")
    succeeded(lab.run(flags(lab, data, tmp_path / "other", seed=1, **more)))
    assert [row["index"] for row in selected(tmp_path / "other")] != [row["index"] for row in rows]


@pytest.mark.parametrize("more, parts", [
    ({"data__corpus": ""}, ("data.corpus",)),
    ({"data__train": ""}, ("data.train",)),
    ({"select__method": "dsri"}, ("select.method", "dsri", "dsir")),
    ({"select__texts": 5}, ("select.texts=5", "select.neighbours")),
    ({"embed__pooling": "none"}, ("embed.pooling", "mean")),
    ({"model__path": ""}, ("model.path", "dsir")),
    ({"select__neighbours": 2000}, ("select.neighbours=2000", "has only")),
    ({"select__method": "random", "select__texts": 901}, ("select.texts=901", "has only")),
    ({"data__corpus": "{data}/train.jsonl,{data}/a.txt"}, ("train.jsonl", "data.corpus", "data.train")),
    ({"data__corpus": "{data}/*.jsonl"}, ("jsonl", "data.corpus")),
    ({"data__corpus": "{data}/test-copy.jsonl"}, ("test-copy.jsonl", "data.corpus", "data.test")),
    ({"data__corpus": "{data}/nothing.txt"}, ("nothing.txt",)),
    ({"data__corpus": "{data}/empty.txt"}, ("empty.txt", "no text")),
    ({"data__corpus": "builtin:pydocs-labels", "data__train": "builtin:pydocs-labels"}, ("builtin:pydocs-labels", "data.corpus")),
    ({"data__corpus": "{data}/leaks.txt"}, ("data.corpus", "leaks.txt", "8 words")),
    ({"data__seq_len": 64}, ("data.seq_len",)),
    ({"train__seeds": "(1,2)"}, ("train.seeds",)),
])
def test_a_mistake_is_one_line(lab, data, tmp_path, more, parts):
    (data / "empty.txt").write_text("\n \n")
    (data / "test-copy.jsonl").write_bytes((data / "test.jsonl").read_bytes())
    (data / "leaks.txt").write_text("".join(json.loads(line)["text"] + "\n" for line in (data / "test.jsonl").read_text().splitlines()))
    more = {name: value.format(data=data) if isinstance(value, str) else value for name, value in more.items()}
    done = lab.run(flags(lab, data, tmp_path / "run", **more))
    assert done.returncode == 2
    assert_refusal(done.stderr, *parts)
