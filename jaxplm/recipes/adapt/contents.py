"""What the files, corpora and models that stages read contain, as digests: another content is another stage."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxplm.config import Data
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, read_json
from jaxplm.data.sources import builtin
from jaxplm.data.sources.same_files import file_digest
from jaxplm.data.sources.specs import local_files
from jaxplm.recipes.adapt.plan import Plan, Stage
from jaxplm.version import VERSION

FILE = "contents.json"
# Fields that name what a stage reads; `_MODELS` name a directory of a model.
_TEXTS = ("data.train", "data.validation", "data.test", "data.general", "data.corpus", "vocab.terms")
_MODELS = ("model.path", "model.tokenizer")
_MODEL_FILES = (".json", ".safetensors", ".txt", ".model")


def sources_of(stage: Stage, workdir: Path) -> dict[str, str]:
    """Return {field: what it names} of a stage, without the results of other stages."""
    made = f"{workdir / 'stages'}/"
    found = {}
    for field in (*_TEXTS, *_MODELS):
        items = [item for item in map(str.strip, str(stage.fields.get(field, "")).split(",")) if item and not item.startswith(made)]
        if items:
            found[field] = ",".join(items)
    return found


def write_contents(plan: Plan, workdir: Path) -> None:
    """Write contents.json: a digest of everything that the plan's stages read.

    A file is read again only when its size or time of change is another one than at the last call.

    Raises:
      UserError: a file is not there or cannot be read.
    """
    known = _known(workdir)
    digests = _Digests(known)
    found = {}
    for stage in plan.stages:
        for field, spec in sources_of(stage, workdir).items():
            key = f"{'model' if field in _MODELS else 'texts'} {spec}"
            if key not in found:
                found[key] = digests.of_model(spec) if field in _MODELS else digests.of_texts(spec)
    atomic.write_text(workdir / FILE, json.dumps({"contents": found, "files": digests.files}, indent=1) + "\n")


def contents_of(stage: Stage, workdir: Path) -> dict[str, str]:
    """Return {"content of data.train": digest} of what a stage reads, by contents.json."""
    found = read_json(workdir / FILE)["contents"]
    return {f"content of {field}": found[f"{'model' if field in _MODELS else 'texts'} {spec}"]
            for field, spec in sources_of(stage, workdir).items()}


def _known(workdir: Path) -> dict[str, Any]:
    try:
        return read_json(workdir / FILE)["files"]
    except (OSError, Damaged, KeyError, TypeError):
        return {}


class _Digests:
    """Digests of files, read again only where size or time of change differ from `known`: {path: [size, time, digest]}."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known
        self.files: dict[str, Any] = {}

    def of_texts(self, spec: str) -> str:
        parts = [self._of_name(item) for item in spec.split(",") if item.startswith(("hf:", "builtin:"))]
        return self._of((*parts, *(self._of_file(path) for path in local_files(spec))))

    def of_model(self, spec: str) -> str:
        directory = Path(spec).expanduser()
        if not directory.is_dir():
            return self._of([self._of_name(spec)])
        files = sorted(path for path in directory.iterdir() if path.is_file() and path.suffix in _MODEL_FILES)
        return self._of(f"{path.name} {self._of_file(path)}" for path in files)

    @staticmethod
    def _of(parts: Iterable[str]) -> str:
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @staticmethod
    def _of_name(name: str) -> str:
        """Return what stands for a name of the hub or a built-in corpus, whose texts depend on what is installed."""
        return f"{name} {VERSION} {builtin.environment()}" if name.startswith("builtin:") else name

    def _of_file(self, path: Path) -> str:
        if str(path) not in self.files:
            stat = path.stat()
            now = [stat.st_size, stat.st_mtime_ns]
            before = self._known.get(str(path), [])
            self.files[str(path)] = before if before[:2] == now else [*now, file_digest(path)]
        return self.files[str(path)][2]


assert set(_TEXTS[:-1]) <= {f"data.{name}" for name in vars(Data())}
