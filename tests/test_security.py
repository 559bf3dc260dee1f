"""What docs/security.md says: nothing in data is run, obeyed, or lets a file outside of its directory be read."""

import ast
import json
import logging
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from markdown_it import MarkdownIt
from messages import refuses
from safetensors.numpy import save_file
from test_embed_data import add, open_files

from jaxplm import hf
from jaxplm.config import Config, Data, Export, Model
from jaxplm.data import checksums
from jaxplm.data.corpus.store import TokenStore, seal
from jaxplm.errors import UserError, visible
from jaxplm.hf.tokenizer_faults import why_unreadable
from jaxplm.recipes.embed.files import damaged_files
from jaxplm.reporting import console
from jaxplm.reporting.card import FILL_MASK, Card, model_card
from jaxplm.reporting.facts import Facts, Section
from jaxplm.reporting.report import write_report
from jaxplm.reporting.sections import classes_section
from jaxplm.reporting.tables import code, code_block
from jaxplm.scores.classification import ClassScore
from jaxplm.tasks.kinds import KINDS

HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "![x](http://example.org/x.png)",
    "[click](javascript:alert(1))", "`code` and ``more``", "**bold** _it_ __it__ ~~gone~~", "&lt;b&gt; &#60;i&#62;",
    "line\n\n# heading\n\n---\nlicense: mit", "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "half \ud800", "\\*kept\\*", "$x$", "한국어",
)


# --- Code

FILES = sorted((ROOT / "jaxplm").rglob("*.py"))
# Modules that run what they read.
RUNS_WHAT_IT_READS = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "yaml", "code"}
# Archives can name files outside of a directory. NumPy's .npz is one, of which arrays are read by name.
UNPACKS = ("tarfile.", "zipfile.ZipFile", "shutil.unpack_archive")


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """The calls of a module by the name as it is written: `np.load`, `eval`."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_runs_nothing_from_data(path):
    """No pickle, no archive, no `eval`, no shell; NumPy and transformers are told the same."""
    tree = ast.parse(path.read_text("utf-8"))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    assert not {name.split(".")[0] for name in imported} & RUNS_WHAT_IT_READS
    for name, call in calls(tree):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), ast.unparse(call)
        assert not name.startswith(UNPACKS) and not name.endswith((".extract", ".extractall")), ast.unparse(call)
        assert "shell" not in given, ast.unparse(call)
        assert given.get("allow_pickle", "False") == "False", ast.unparse(call)
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle") == "False", ast.unparse(call)
        if name.endswith(".from_pretrained"):
            assert given.get("trust_remote_code") == "False", ast.unparse(call)


def test_commands_in_messages_quote_their_directory(tmp_path):
    """A person copies them into a shell."""
    directory = tmp_path / "it's \"here\"; echo $HOME"
    directory.mkdir()
    (directory / "spiece.model").write_bytes(b"x")
    command = why_unreadable(ValueError("x"), directory).partition("installed: ")[2]
    assert shlex.split(command)[-1] == str(directory)
    assert shlex.split(hf.tensors.convert_command(directory))[-1] == str(directory)


# --- Paths

@pytest.fixture
def model(tmp_path) -> Path:
    """A model directory without weights, and beside it the weights and a vocabulary that it must not reach."""
    builtin = ROOT / "jaxplm" / "builtin" / "tiny"
    shutil.copytree(builtin, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(builtin / "model.safetensors", tmp_path / "outside.safetensors")
    return tmp_path / "model"


@pytest.mark.parametrize("name", [
    "../outside.safetensors", "{root}/outside.safetensors", "./../outside.safetensors", "a/../../outside.safetensors",
    "~/outside.safetensors", "a/b.safetensors", "..", ".", "\0", "x" * 5000,
])
def test_an_index_of_shards_stays_in_its_directory(model, name):
    content = {"weight_map": {"bert.embeddings.word_embeddings.weight": name.format(root=model.parent)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(content))
    with refuses("model.safetensors.index.json" if "/" in name or name == "." else "missing"):
        hf.load_model(str(model), KINDS)


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "merges_file", "name_or_path"])
@pytest.mark.parametrize("kept", ["vocab.txt", "tokenizer.json"])
def test_settings_of_a_tokenizer_name_no_other_file(model, key, kept):
    """transformers writes such paths into tokenizer_config.json; the files are those of the directory."""
    outside = model.parent / "words.txt"
    outside.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfromoutside\n")
    for name in ("vocab.txt", "tokenizer.json"):
        if name != kept:
            (model / name).unlink(missing_ok=True)
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", key: str(outside)}))
    tokenizer, _ = hf.load_tokenizer(model, "here")
    assert len(tokenizer) == 8192
    assert "fromoutside" not in tokenizer.get_vocab()


def test_a_tokenizer_without_files_reads_no_other(model):
    outside = model.parent / "words.txt"
    outside.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfromoutside\n")
    for name in ("vocab.txt", "tokenizer.json"):
        (model / name).unlink(missing_ok=True)
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "vocab_file": str(outside)}))
    with refuses("here", "tokenizer"):
        hf.load_tokenizer(model, "here")


def test_a_cached_corpus_lists_its_own_files_only(tmp_path):
    tokens = np.arange(6, dtype=np.uint16)
    tokens.tofile(tmp_path / "tokens.bin")
    np.ones(6, np.bool_).tofile(tmp_path / "word_starts.bin")
    np.array([0, 6]).tofile(tmp_path / "offsets.bin")
    seal(tmp_path, {"texts": 1, "tokens": 6, "dtype": "uint16"})
    assert TokenStore.open(tmp_path).tokens.tolist() == tokens.tolist()
    meta = checksums.opened(json.loads((tmp_path / "meta.json").read_text()), "meta.json")
    meta["files"]["/dev/zero"] = "0"  # would be read without end
    (tmp_path / "meta.json").write_text(json.dumps(checksums.sealed(meta)))
    with refuses("other files", error=ValueError):
        TokenStore.open(tmp_path)


def test_vectors_that_are_resumed_are_those_of_the_directory(tmp_path):
    """A workdir of someone else: the file of finished shards and the index list names."""
    files = open_files(tmp_path / "embeddings")
    add(files, 0, (2, 4))
    files.close()
    progress = tmp_path / "embeddings" / "progress.jsonl"
    first, second = (json.loads(line)["record"] for line in progress.read_text().splitlines())
    second["file"] = "../../outside.npy"
    lines = [json.dumps(checksums.sealed({"record": record})) for record in (first, second)]
    progress.write_text("\n".join([*lines, ""]))
    with refuses("progress.jsonl", "../../outside.npy", "--workdir"):
        open_files(tmp_path / "embeddings")
    progress.unlink()
    index = {"rows": 1, "vectors": 1, "shards": [{"file": "/dev/zero", "rows": 1, "vectors": 1, "sha256": ""}]}
    (tmp_path / "embeddings" / "index.json").write_text(json.dumps(index))
    assert damaged_files(tmp_path / "embeddings", checksums.Records(tmp_path)) == ["index.json is not what was written"]


# --- Sizes

@pytest.mark.parametrize("header", [b"\xff" * 8, (2**40).to_bytes(8, "little"), (10**8 + 1).to_bytes(8, "little"), b"\0" * 8])
def test_a_header_of_safetensors_is_bounded(model, header):
    (model / "model.safetensors").write_bytes(header + b"{}" * 100)
    with refuses("model.safetensors", "damaged"):
        hf.load_model(str(model), KINDS)


def test_tensors_larger_than_their_file_are_refused(model):
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with refuses("model.safetensors", "damaged"):
        hf.load_model(str(model), KINDS)


def test_weights_of_a_size_that_the_config_does_not_say_are_refused(model):
    save_file({"bert.embeddings.word_embeddings.weight": np.zeros((1, 1), np.float32)}, model / "model.safetensors")
    with pytest.raises(UserError):
        hf.load_model(str(model), KINDS)


# --- What is written for people

def hostile_facts() -> Facts:
    scores = [ClassScore(name, 0.5, 0.5, 0.5, 3) for name in HOSTILE]
    sections = [classes_section(scores, "test"), Section("Data", {text: text for text in HOSTILE})]
    return Facts(title=HOSTILE[0], command="jaxplm '```\n<b>'", exported_step=1, sections=sections)


def cells(markdown: str) -> list[str]:
    """The texts of a document's tables as a reader sees them; fails where something is more than text."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown):
        assert token.type != "html_block", token.content
        for child in token.children or ():
            if child.type in ("text", "code_inline", "softbreak", "strong_open", "strong_close", "text_special"):
                continue
            assert child.type == "image" and child.attrs["src"].startswith("plots/"), (child.type, token.content)
        if token.type == "inline":
            found.append("".join(child.content for child in token.children or ()))
    return found


def test_labels_and_paths_are_text_in_reports_and_cards(tmp_path):
    """Read by a parser of Markdown: no HTML, link, picture, emphasis, heading or cell comes from data."""
    facts = hostile_facts()
    rows = [{"step": 1, "split": "train", "loss": 1.0, "learning_rate": 1e-4, "tokens_per_second": 1.0, "seconds": 1.0}]
    report = write_report(tmp_path, facts, rows).read_text("utf-8")
    config = Config(recipe="finetune", model=Model(path="a`<b>`c"), data=Data(train=HOSTILE[0]), export=Export(license=HOSTILE[4]))
    card = model_card(config, facts, Card(usage=FILL_MASK), rows)
    assert card.startswith("---\n")
    header, _, body = card[4:].partition("\n---\n")
    assert "license: mit" not in header.splitlines()
    for document in (report, body):
        shown = cells(document)
        for text in HOSTILE:
            expected = visible(" ".join(text.split()))
            assert shown.count(expected) >= 3, text  # the class, the name and the value of a setting
        assert document.count("<script>") == 0
        headings = re.findall(r"^#+ .*$", re.sub(r"^````.*?^````", "", document, flags=re.M | re.S), flags=re.M)
        assert not any("heading" in heading for heading in headings)


@pytest.mark.parametrize("text", ["a", "`", "``a`", "a`b``c", "a\nb"])
def test_code_ends_where_its_text_ends(text):
    [_, inline, _] = MarkdownIt().parse(code(text))
    assert [child.content for child in inline.children or ()] == [" ".join(text.split())]
    [block] = MarkdownIt().parse(code_block(f"x\n```{text}\n```\n<b>"))
    assert block.content == f"x\n```{text}\n```\n<b>\n"


def test_a_terminal_obeys_nothing_from_data(capsys):
    """Sequences of control characters move the cursor, change the title or hide lines."""
    console.setup()
    logging.getLogger("jaxplm").info("label %s", "\x1b[2J\x07\u202e한")
    assert capsys.readouterr().out == "label \\u001b[2J\\u0007\\u202e한\n"
    assert str(UserError("no \x1b]0;x\x07 file")) == "no \\u001b]0;x\\u0007 file"


# --- Network

def test_the_coordinator_of_one_machine_listens_to_that_machine():
    """JAX's default is every address of the machine; whoever reaches the port can take part in a run."""
    text = (ROOT / "launch" / "local.sh").read_text()
    assert 'JAX_COORDINATOR_BIND_ADDRESS="127.0.0.1:$port"' in text


# --- The page

def test_every_test_and_file_that_the_page_names_is_there():
    """docs/security.md names for each threat the file that meets it and the test that shows it."""
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"`((?:jaxplm|tests|launch|\.ci)/[\w./]+)(?:::(\w+))?`", page)
    assert len(named) > 20
    for path, test in named:
        assert os.path.exists(ROOT / path), path
        if test:
            assert f"def {test}(" in (ROOT / path).read_text("utf-8"), f"{path}::{test}"
