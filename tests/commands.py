"""The real command: how tests start it, read it, stop it, and one finished run they share."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import LIMIT, MAIN, ForkedProcess, Server, run_all

ROOT = Path(__file__).parents[1]
STEPS = 24
# Where and which compiled programs are kept for the whole session; set by conftest.
COMPILED = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
CLOCKS = ("seconds", "tokens_per_second")  # what two runs of the same numbers differ in


@dataclass(frozen=True)
class Lab:
    """A directory with a checkpoint, a corpus and caches, and the commands over them."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def corpus(self) -> Path:
        return self.root / "corpus.txt"

    @property
    def general(self) -> Path:
        return self.root / "general.txt"

    def environment(self, *, cached: bool = True, **more: str) -> dict[str, str]:
        """Return that of a machine with one CPU device and no network. `cached`: compile once for all processes of the tests."""
        dropped = ("JAX", "XLA", "SLURM", "TPU")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped) or (cached and name in COMPILED)}
        settings = {
            "JAXPLM_CACHE": str(self.root / "cache"), "HF_HOME": str(self.root / "hub"), "HF_HUB_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable, "XLA_FLAGS": os.environ["XLA_FLAGS"],
        }
        return kept | settings | more

    @functools.cached_property
    def server(self) -> Server:
        """The process that the commands are forked from."""
        return Server(ROOT, self.environment())

    def training(self, workdir: Path, *more: str, config: str | Path = "configs/dapt.py") -> list[str]:
        """Return the flags of the run that the tests share: 2 layers × 32, dropout on, rows of 32 tokens, 24 steps × 8 rows."""
        return [
            f"--config={config}", f"--workdir={workdir}",
            *fields(model__path=self.model, data__train=self.corpus, data__general=self.general, data__seq_len=32,
                    train__batch_size=8, train__steps=STEPS, train__learning_rate=2e-3, train__eval_every=6, train__log_every=1,
                    checkpoint__every=2),
            *more,
        ]

    def run(self, flags: list[str], *, alone: bool = False, code: str = MAIN, here: Path | None = None, path: Sequence[Path] = (),
            **environment: Any) -> subprocess.CompletedProcess[str]:
        """Run the command to its end: forked by `Server.start`, or in an interpreter of its own, `alone` or with another environment."""
        if not alone and not environment:
            [done] = run_all(self, [flags], code=code, here=here, path=path)
            return subprocess.CompletedProcess(flags, done.status, done.out, done.err)
        return subprocess.run([sys.executable, "-m", "jaxplm.main", *flags], cwd=ROOT, env=self.environment(**environment),
                              capture_output=True, text=True, timeout=LIMIT, check=False)

    def train(self, workdir: Path, *more: str, alone: bool = False, **environment: Any) -> subprocess.CompletedProcess[str]:
        return self.run(self.training(workdir, *more), alone=alone, **environment)

    @contextmanager
    def started(self, flags: list[str], **environment: Any) -> Iterator["Started"]:
        """Start the command, and kill it at the end of the block if it still runs. Forked, as `run` is."""
        process = subprocess.Popen([sys.executable, "-u", "-m", "jaxplm.main", *flags], cwd=ROOT, env=self.environment(**environment),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   ) if environment else ForkedProcess(self.server, flags)
        try:
            yield Started(process)
        finally:
            process.kill()
            process.communicate()


@dataclass
class Started:
    """A command that is running."""

    process: subprocess.Popen[str] | ForkedProcess
    seen: str = ""

    def wait_for(self, pattern: str) -> str:
        """Read the output up to a line in which the pattern is found; fail if the command ends without one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if re.search(pattern, line):
                return line
        raise AssertionError(f"the command ended without {pattern!r}:\n{self.seen}{self.process.communicate()[1]}")

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        """Send the signal; return (exit status, stdout, stderr) when the command has ended."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, self.seen + out, err


def fields(**values: Any) -> list[str]:
    """Return flags: model__path=x → --config.model.path=x."""
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]


def rows(workdir: Path, *, clocks: bool = False) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, by default without what depends on the machine's speed."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return found if clocks else [{name: value for name, value in row.items() if name not in CLOCKS} for row in found]


def weights(workdir: Path) -> bytes:
    return (workdir / "export" / "model.safetensors").read_bytes()


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that must have succeeded without a word on stderr."""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a directory: when it was written and what is in it."""
    return {str(file.relative_to(directory)): (file.stat().st_mtime_ns, file.read_bytes())
            for file in sorted(directory.rglob("*")) if file.is_file()}


def make_model(directory: Path, **changes: Any) -> Path:
    """Write a BERT of 2 layers × 32 and 40 positions with random weights of BERT's own variance, and its tokenizer."""
    # Imported here: conftest imports this file for every test.
    import checkpoints
    import transformers
    from helpers import wordpiece

    wordpiece(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64, "max_position_embeddings": 40}
    checkpoints.save_masked_lm(directory, transformers.BertConfig(**(sizes | changes)), spread=0.02, norm_spread=0, bias_spread=0)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from helpers import sentences

    made = Lab(tmp_path_factory.mktemp("lab"))
    make_model(made.model)
    made.corpus.write_text("\n".join(sentences(400)) + "\n")
    made.general.write_text("\n".join(sentences(60, seed=1)) + "\n")
    yield made
    if "server" in vars(made):
        made.server.close()


@dataclass(frozen=True)
class Finished:
    workdir: Path
    output: str

    @property
    def exported_step(self) -> int:
        return int(re.findall(r"exported: .* \(step (\d+)\)", self.output)[0])


@pytest.fixture(scope="session")
def reference(lab: Lab) -> Finished:
    """One run from start to end, without interruption. Tests must not write into its workdir."""
    workdir = lab.root / "reference"
    return Finished(workdir, succeeded(lab.train(workdir, alone=True)))
