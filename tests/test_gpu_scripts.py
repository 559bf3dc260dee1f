"""The parts of the scripts that check a GPU: their time limits, and the summary of what the benchmarks recorded."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_summary
import pytest
import vs_transformers

ROOT = Path(__file__).parents[1]
PARTS = """
out=$1 budget=60 model= size= vocab=
limits="good 20
bad 20
slow 2
last 20"
. benchmarks/gpu_parts.sh
part_good() { limited echo fine; }
part_bad() { all one two; }
one() { limited sh -c 'echo broken; exit 3'; }
two() { limited echo afterwards; }
part_slow() { limited sleep 30; }
part_last() { limited echo end; }
run_parts
"""


def run_parts(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script PARTS with a summary by this Python."""
    (out / "bin").mkdir(parents=True)
    (out / "bin" / "python").symlink_to(sys.executable)
    path = f"{out / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-c", PARTS, "bash", str(out)], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"PATH": path, "LEAST": "1"} | environment)


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path):
    began = time.monotonic()
    done = run_parts(tmp_path / "all")
    assert time.monotonic() - began < 25
    assert done.returncode == 1
    states = [line.split("\t")[:2] for line in (tmp_path / "all" / "parts.tsv").read_text().splitlines()]
    assert states == [["good", "done"], ["bad", "FAILED (3)"], ["slow", "out of time"], ["last", "done"]]
    assert "afterwards" in (tmp_path / "all" / "logs" / "bad.log").read_text()
    assert done.stdout.index("broken") < done.stdout.index("[parts]") < done.stdout.rindex("last ")
    chosen = run_parts(tmp_path / "chosen", PARTS="last,good")
    assert chosen.returncode == 0 and "bad" not in chosen.stdout and chosen.stdout.index("== good") < chosen.stdout.index("== last")
    unknown = run_parts(tmp_path / "unknown", PARTS="goood")
    assert unknown.returncode == 2 and "no part goood" in unknown.stderr and "good bad slow last" in unknown.stderr


def test_the_summary_has_the_figures_of_the_records(tmp_path):
    about = {"device": "NVIDIA H200", "devices": 1, "versions": {"jax": "0.11.2"}}
    case = {"case": {"preset": "base", "rows": 64, "length": 512}, "xla_flags": ""}
    measured = {"step": 0.05, "tokens_per_second": 655_360.0, "mfu": 0.5, "peak_bytes": 2**34, "build": 21.0, "limit": 7.9e14}
    records = [
        {"benchmark": "step_time", "cases": [case | measured | {"variant": "as it is"},
                                             case | {"variant": "texts=16", "error": "out of memory"}]},
        {"benchmark": "vs_transformers", "rows": 64, "length": 512, "tokens_per_second": {"jaxplm": 600_000.0, "torch": 200_000.0}},
        {"benchmark": "profile_step", "wall_ms": 58.0, "parts_ms": {"products": 25.1}, "top": [
            {"name": "nvjet", "part": "products", "ms": 4.6, "count": 24.0}]},
    ]
    records.append({"benchmark": "check_attention", "tolerance": 0.02, "wrong": True, "between products": {"768": {"dx": 0.0625}},
                    "shapes": [{"kernel": "cudnn", "rows": 8, "length": 64, "heads": 2, "width": 32, "errors": {"dq": 0.003},
                                "ms": 1.0, "plain_ms": 2.0}]})
    records.append({"benchmark": "embed_rate", "of": "another version"})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record | about) + "\n" for record in records))
    (tmp_path / "parts.tsv").write_text("steps\tdone\t63\nlosses\tleft out, no time\t0\n")
    run = tmp_path / "runs" / "dapt"
    run.mkdir(parents=True)
    rows = [{"split": "validation", "loss": 6.4}, {"split": "train", "tokens_per_second": 1000.0}, {"split": "validation", "loss": 4.2}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = gpu_summary.summary(tmp_path)
    for words in (["NVIDIA H200", "0.11.2"], ["base 64 × 512 as it is", "50.0", "655,360", "50.0%", "16.00", "21.0"],
                  ["texts=16", "out of memory"], ["790.000 TFLOP/s"], ["torch", "200,000", "3.00×"], ["nvjet", "4.600", "24.0"],
                  ["0.0625", "0.02", "WRONG"], ["cudnn 8 × 64", "0.0030", "1.00 ms"], ["another form", "texts"],
                  ["dapt", "6.4000 → 4.2000"], ["losses", "left out"]):
        assert [line for line in lines if all(word in line for word in words)], words


@pytest.mark.parametrize(("gpu", "waits", "counted"), [(True, 6, [4 / 3] * 3), (False, 10, [1, 2, 1])])
def test_a_gpu_is_timed_over_all_counted_steps(monkeypatch, gpu, waits, counted):
    """Its calls return at once; on a CPU each step is timed."""
    now, asked = 0.0, 0

    def step(index: int) -> None:
        nonlocal now
        now += 5.0 if index < vs_transformers.WARM_UP else 1.0 + index % 2

    def clock() -> float:
        nonlocal asked
        asked += 1
        return now

    monkeypatch.setattr(vs_transformers, "on_gpu", lambda: gpu)
    assert vs_transformers.seconds_of(step, clock, 5) == pytest.approx([5, 5, *counted])
    assert asked == waits
