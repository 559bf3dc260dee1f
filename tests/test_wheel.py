"""The wheel in an empty environment, far from the repository and without a network: the console script and the recipes' files."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import sentences
from messages import assert_refusal, assert_says

from jaxplm.version import VERSION

ROOT = Path(__file__).parents[1]
LIMIT = 300  # seconds for one command
pytestmark = pytest.mark.slow


def run(arguments: list[str | Path], here: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory, with nothing of this repository in its environment, compiled as users' runs are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX", "XLA", "PYTHON", "PYTEST"))}
    settings = {"JAXPLM_CACHE": str(here / "cache"), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.run([*map(str, arguments)], cwd=here, env=kept | settings, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("jaxplm", "configs"):
        shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q"]
    done = run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "-w", built, sources], sources)
    assert done.returncode == 0, done.stderr
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and sees the libraries of this one but not its jaxplm."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home)
    python = home / "bin" / "python"
    done = run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], home)
    assert done.returncode == 0, done.stderr
    (site,) = (home / "lib").glob("python*/site-packages")
    # Named in a .pth file, a directory is searched last, and its own .pth files, those of editable installations, are not read.
    (site / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n")
    return python.parent


@pytest.fixture()
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("\n".join(sentences(60)) + "\n")
    return tmp_path


def test_the_wheel_has_every_config_file_the_built_in_model_and_the_report(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {f"jaxplm/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")} <= names
    assert {f"jaxplm/builtin/tiny/{path.name}" for path in (ROOT / "jaxplm/builtin/tiny").iterdir()} <= names
    report = [path for path in (ROOT / "jaxplm/reporting/comparison").rglob("*.*") if path.suffix != ".pyc"]
    assert {path.relative_to(ROOT).as_posix() for path in report} <= names
    assert {name.split("/")[0] for name in names} == {"jaxplm", f"jaxplm-{VERSION}.dist-info"}


def test_a_run_by_the_console_script(programs, elsewhere):
    fields = ["--config.data.train=corpus.txt", "--config.train.steps=2", "--config.train.batch_size=4", "--config.train.log_every=1",
              "--config.compute.unroll=False"]  # one layer is compiled in place of four
    done = run([programs / "jaxplm", "--config=dapt", *fields], elsewhere)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
    assert (elsewhere / "runs/dapt/export/model.safetensors").exists()
    assert "jaxplm --config=dapt --config.data.train=corpus.txt" in (elsewhere / "runs/dapt/report.md").read_text("utf-8")
    again = run([programs / "jaxplm", "--config=dapt", *fields], elsewhere)
    assert again.returncode == 0
    assert_says(again.stdout, "runs/dapt", "finished")


def test_python_sees_the_installed_package(programs, elsewhere):
    done = run([programs / "python", "-c", "import jaxplm; print(jaxplm.__file__, jaxplm.__version__)"], elsewhere)
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(programs.parent) and version == VERSION


@pytest.mark.parametrize("command", [["jaxplm"], ["python", "-m", "jaxplm.main"]], ids=["script", "module"])
def test_help_version_and_mistakes(programs, elsewhere, command):
    command = [programs / command[0], *command[1:]]
    said = run([*command, "--help"], elsewhere)
    assert (said.returncode, said.stderr) == (0, "")
    assert_says(said.stdout, "dapt", "finetune", "model.path")
    said = run([*command, "--config=exbert", "--help"], elsewhere)
    assert (said.returncode, said.stderr) == (0, "")
    assert_says(said.stdout, "vocab.new_tokens = 1000")
    said = run([*command, "--version"], elsewhere)
    assert (said.returncode, said.stdout) == (0, f"jaxplm {VERSION}\n")
    for arguments, parts in ((["--config=dpat"], ("dpat", "dapt")), (["--config=configs/dapt.py"], ("configs/dapt.py", "dapt")),
                             (["--config=dapt", "--config.trian.steps=1"], ("trian.steps", "train.steps")), ([], ("--config",))):
        said = run([*command, *arguments], elsewhere)
        assert said.returncode == 2
        assert_refusal(said.stderr, *parts)
