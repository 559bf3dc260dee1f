"""The real command reads every format in every packing, each format in a process of its own."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from commands import ROOT, Lab, fields, succeeded

from jaxplm.data.sources.formats import FORMATS

pytestmark = pytest.mark.slow

TEXTS = ["the dog reads a paper", "a quick fox", "the fox jumps over the dog"]
PACKINGS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
ROWS = [{"label": "even" if i % 2 else "odd", "text": text} for i, text in enumerate(TEXTS)]


def content(ending: str) -> bytes:
    """Return the texts as a file of a format, with labels where it has columns."""
    separator = {".csv": ",", ".tsv": "\t"}.get(ending)
    if separator:
        lines = [separator.join(row) for row in (ROWS[0].keys(), *(row.values() for row in ROWS))]
    elif ending == ".conll":
        lines = ["\n".join(f"{word}\tO" for word in text.split()) + "\n" for text in TEXTS]
    elif ending == ".json":
        lines = [json.dumps(ROWS)]
    else:
        lines = list(map(json.dumps, ROWS)) if ending == ".jsonl" else TEXTS
    return ("\n".join(lines) + "\n").encode()


def files(directory: Path, ending: str) -> list[Path]:
    """Write the texts in a format, in every packing that it has."""
    if ending == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), directory / "a.parquet")
        return [directory / "a.parquet"]
    paths = [directory / f"a{ending}{packing}" for packing in PACKINGS]
    for path, pack in zip(paths, PACKINGS.values(), strict=True):
        path.write_bytes(pack(content(ending)))
    return paths


@pytest.mark.parametrize("ending", FORMATS)
def test_embeddings_of_every_format(lab: Lab, tmp_path: Path, ending: str) -> None:
    paths = files(tmp_path, ending)
    flags = fields(model__path=lab.model, data__train=",".join(map(str, paths)), data__seq_len=16, compute__dtype="float32")
    # Parquet's library is imported by the first file of it: in an interpreter of its own, in which PyTorch is there or not as for a user.
    succeeded(lab.run(["--config=embed", f"--workdir={tmp_path / 'run'}", *flags], alone=ending == ".parquet"))
    [shard] = (tmp_path / "run" / "embeddings").glob("*.npy")
    vectors = np.load(shard)
    assert vectors.shape == (len(TEXTS) * len(paths), 32)
    np.testing.assert_allclose(vectors.reshape(len(paths), -1), vectors[: len(TEXTS)].reshape(1, -1).repeat(len(paths), 0), atol=1e-5)


def test_datasets_works_after_transformers_was_imported_without_torch(lab: Lab) -> None:
    """Where PyTorch is installed, and looked like a module that is not there while transformers was imported."""
    code = ("from jaxplm.devices.without_torch import import_transformers; import_transformers(); from jaxplm.data.sources import hub;"
            " data = hub.quiet_datasets().Dataset.from_dict({'text': ['a', 'b']}).map(lambda row: {'n': len(row['text'])});"
            " print(data.to_iterable_dataset().with_format('arrow')._head(2), data._fingerprint)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=lab.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
