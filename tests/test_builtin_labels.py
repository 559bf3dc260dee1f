"""The built-in task: docstrings of a dozen packages, split by whole modules so that nothing leaks."""

import subprocess
import sys
from collections import Counter

import pytest
from messages import refuses

from jaxplm.config import Data
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.sources import builtin_labels
from jaxplm.data.sources.texts import open_texts
from jaxplm.tasks.kinds import KINDS

LONG = "A sentence that is long enough to be kept."


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Replaces the installed packages by a directory of the test's."""

    def use(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(builtin_labels, "PACKAGES", tuple(sorted({name.split("/")[0] for name in files})))
        monkeypatch.setattr(builtin_labels, "_modules", lambda package: builtin_labels.module_files(package, tmp_path / package))
        builtin_labels._rows.cache_clear()
        return {split: list(builtin_labels.pydocs_labels(split)) for split in builtin_labels.SPLITS}

    yield use
    builtin_labels._rows.cache_clear()


def test_rows(packages):
    doc = f'"""{LONG} One.\n\n>>> import alpha\n>>> alpha.x(\n... 1)\n2\n\nThe end.\n"""\n'
    rows = packages({
        "alpha/a.py": doc + f'def f(): """This is of Alpha. {LONG}"""\ndef g(): """Too short."""\n',
        "beta/b.py": f'"""{LONG} Two."""\ndef f(): """{LONG}  ONE.\n\n2\n\nThe end."""\n' + f'def g(): """{"word " * 100}"""\n',
    })
    found = sorted(sum(rows.values(), []))
    # Without examples, without the name of its package, without what another text says.
    assert [row for row in found if row[1] == "alpha"] == [(f"{LONG} One.\n\n2\n\nThe end.", "alpha")]
    assert [row for row in found if row[1] == "beta"] == [(f"{LONG} Two.", "beta"), (("word " * 80).strip(), "beta")]


def test_modules_are_split_whole_and_none_is_too_many(packages):
    files = {f"alpha/m{i}.py": "\n".join(f'def f{k}(): """Own {i} {k}. {LONG}"""' for k in range(50)) for i in range(30)}
    rows = packages(files)
    assert {split: len(found) for split, found in rows.items()} == builtin_labels._ROWS
    for split, found in rows.items():
        of_module = Counter(text.split()[1] for text, _ in found)
        assert max(of_module.values()) <= builtin_labels._MODULE_ROWS[split]
        assert {builtin_labels.split_of(f"alpha.m{module}") for module in of_module} == {split}


@pytest.mark.slow
def test_this_installation():
    data = Data()
    sets = {split: read_examples("builtin:pydocs-labels", KINDS["classify"], data, split=split) for split in builtin_labels.SPLITS}
    assert len(sets["train"]) > 2000 and len(sets["validation"]) > 200 and len(sets["test"]) > 300
    labels = KINDS["classify"].label_set(sets["train"].trainable(), [sets["validation"], sets["test"]])
    assert labels.names == builtin_labels.PACKAGES and labels.counts.min() > 0.3 * labels.counts.max()
    texts = [" ".join(text.lower().split()) for found in sets.values() for text in found.texts]
    assert len(set(texts)) == len(texts)
    for found in sets.values():
        assert all(label not in text.lower() for text, label in zip(found.texts, found.labels, strict=True))
        assert set(found.labels) == set(labels.names)
        assert max(Counter(found.labels[:200]).values()) < 60  # the packages are mixed
    # Its training texts without their labels, for further pre-training on the task.
    opened = open_texts("builtin:pydocs-labels")
    assert list(opened) == sets["train"].texts
    assert opened.fingerprint != open_texts("builtin:pydocs-labels", split="test").fingerprint
    code = "from jaxplm.data.sources import builtin_labels; print(builtin_labels.fingerprint())"  # sets and hashes in another order
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == builtin_labels.fingerprint()


def test_wrong_split():
    with refuses("builtin:pydocs-labels", "train", "validation", "test", "dev"):
        open_texts("builtin:pydocs-labels", split="dev")
