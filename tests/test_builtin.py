import hashlib
import subprocess
import sys

import pytest
from messages import refuses

from jaxplm.data.sources import builtin
from jaxplm.data.sources.texts import open_texts


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


LONG = "A sentence that is long enough to be kept."


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Replaces the installed packages by a directory of the test's."""

    def use(files):
        monkeypatch.setattr(builtin, "_roots", lambda: iter([("pkg", write(tmp_path / "pkg", files))]))
        monkeypatch.setattr(builtin, "_MIN_TEXT_SHARE", 0.0)
        builtin._pydocs.cache_clear()
        return builtin

    yield use
    builtin._pydocs.cache_clear()


def both(module):
    return [*module.pydocs("train"), *module.pydocs("validation")]


def test_docstrings_are_read_never_run(library):
    source = f'''"""Module.  {LONG}"""
raise SystemExit("imported")
class C:
    """Class. {LONG}

    Second:
        Indented more.
    """
    pattern = "\\d"  # a warning, from Python 3.12 on a visible one
    def method(self):
        """Method. {LONG}"""
        def inner():
            r"""Inner. {LONG}"""
if True:
    async def f(): """Function. {LONG}"""
else:
    def f(): "Other. {LONG}"
try:
    pass
except ValueError:
    def g(): "Handler. {LONG}"
def short(): "Too short."
def no_docstring(): return """Just a value. {LONG}"""
add_newdoc("numpy", "array", ("take", """New doc. {LONG}"""))
'''
    texts = both(library({"a.py": source, "broken.py": f'def f(:\n  """{LONG}"""', "null.py": "\0"}))
    starts = ["Module.", "Class.", "Method.", "Inner.", "Function.", "Other.", "Handler.", "New"]
    assert [text.split()[0] for text in texts] == starts
    assert texts[1] == f"Class. {LONG}\n\nSecond:\n    Indented more."  # cleaned as inspect.cleandoc does


def test_tests_and_duplicates_stay_out(library):
    files = {f"m{i}.py": f'"""Same text here.   {LONG}"""\ndef f(): """Own {i}. {LONG}"""' for i in range(60)}
    files |= {"tests/test_x.py": f'"""{LONG}"""', "test_y.py": f'"""{LONG}"""', "x_test.py": f'"""{LONG}"""'}
    module = library(files)
    train, validation = list(module.pydocs("train")), list(module.pydocs("validation"))
    assert len(train) + len(validation) == 61
    assert validation and train
    assert not set(train) & set(validation)
    assert sum(text.startswith("Same") for text in validation) == 1  # where both have it, training loses it
    held_out = {f"pkg.m{i}" for i in range(60) if builtin.in_validation(f"pkg.m{i}")}
    assert {text.split()[1][:-1] for text in validation if text.startswith("Own")} == {
        m[5:] for m in held_out
    }


def test_code_heavy_files_and_the_budget(library, monkeypatch):
    module = library(
        {"a.py": f'"""{LONG}"""', "b.py": f'"""B {LONG}"""' + "\nx = 1" * 500, "c.py": f'"""C {LONG}"""'}
    )
    assert len(both(module)) == 3
    monkeypatch.setattr(builtin, "_MIN_TEXT_SHARE", 0.3)
    builtin._pydocs.cache_clear()
    assert len(both(module)) == 2
    monkeypatch.setattr(builtin, "_MAX_PARSED_BYTES", 60)
    builtin._pydocs.cache_clear()
    assert len(both(module)) == 1


def test_topics_of_the_language_reference(library, monkeypatch, tmp_path):
    root = write(tmp_path / "lib", {"pydoc_data/topics.py": f"topics = {{'assert': 'Assert. {LONG}'}}"})
    module = library({})
    monkeypatch.setattr(builtin, "_roots", lambda: iter([("", root)]))
    assert both(module) == [f"Assert. {LONG}"]


@pytest.mark.slow
def test_this_installation():
    train, validation = open_texts("builtin:pydocs"), open_texts("builtin:pydocs", split="validation")
    assert train.fingerprint != validation.fingerprint
    texts, held_out = list(train), list(validation)
    assert len(texts) > 1000
    assert 0.01 < len(held_out) / len(texts) < 0.2
    assert not {" ".join(t.lower().split()) for t in texts} & {" ".join(t.lower().split()) for t in held_out}
    # The same in another process, where sets and hashes of strings come in another order.
    code = "from jaxplm.data.sources.builtin import pydocs; import hashlib as h, sys; "
    code += "print(h.sha256(chr(0).join(pydocs('train')).encode()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256("\0".join(builtin.pydocs("train")).encode()).hexdigest()


def test_wrong_names():
    with refuses("builtin:pydocs", "builtin:pydocs-short"):
        open_texts("builtin:pydoc")
    with refuses("train", "validation", "test"):
        open_texts("builtin:pydocs", split="test")


@pytest.mark.slow
def test_short_texts_stand_in_for_a_small_task():
    texts = list(open_texts("builtin:pydocs-short"))
    assert len(texts) == 200
    assert max(map(len, texts)) <= 160
    assert set(texts) <= set(open_texts("builtin:pydocs"))
