"""The notebook of the documents, executed on a small model and task."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from helpers import sentences

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "which_way.ipynb"


def notebook() -> nbformat.NotebookNode:
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def outputs(found: nbformat.NotebookNode) -> str:
    """All that the cells have printed or shown as text."""
    return "\n".join(output.get("text") or str(output.get("data", {}).get("text/plain", ""))
                     for cell in found.cells for output in cell.get("outputs", ()))


@pytest.mark.slow
def test_every_cell_runs(lab, tmp_path, monkeypatch):
    """In a kernel of its own, with the model of two layers that the tests share."""
    import nbclient

    for name, value in lab.environment(JAXPLM_NOTEBOOK_RUNS=str(tmp_path / "runs"), IPYTHONDIR=str(tmp_path / "ipython")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(NOTEBOOK.parents[2]), os.environ.get("PYTHONPATH")])))
    for split, texts in (("train", sentences(40)), ("validation", sentences(10, seed=1)), ("test", sentences(10, seed=2))):
        (tmp_path / f"{split}.jsonl").write_text("".join(
            json.dumps({"text": text, "label": ("even", "odd")[len(text) % 2]}) + "\n" for text in texts))
    task = {"task.kind": "classify"} | {f"data.{split}": str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    found = notebook()
    [sizes] = [cell for cell in found.cells if "sizes" in cell.metadata.get("tags", ())]
    sizes.source = (f"model, corpus, task = {str(lab.model)!r}, {str(lab.corpus)!r}, {task!r}\n"
                    "steps, epochs, seeds, seq_len = 5, 1, (1, 2), 32")
    nbclient.NotebookClient(found, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = outputs(found)
    assert "█ step 5/5" in said.replace("  ", " ")
    for line in ("before {'loss':", "after {'loss':", "base ", "dapt ", "tapt ", "report.html"):
        assert line in said, said
    images = [output for cell in found.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    assert len(images) == 2
