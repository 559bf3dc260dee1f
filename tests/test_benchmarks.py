"""The parts of the benchmark scripts that a wrong figure could come from."""

import argparse
import gzip
import json
import os
import sys
import time
from typing import Any

import bootstrap_coverage
import curves
import fp8_products
import jax
import mlm_work
import numpy as np
import profile_step
import pytest
import record
import step_time
import vs_transformers
import workers


def test_flops_are_those_of_the_products():
    case = mlm_work.Case(preset="base", rows=3, length=512)
    tokens = case.rows * case.length
    c = case.encoder()
    kernels = 12 * (3 * 768 * 768 + 768 * 768 + 2 * 768 * 3072)
    head = 3 * 2 * (768 * 768 + 768 * c.padded_vocab) * case.rows * case.num_masked
    attention = 3 * 12 * 2 * 2 * 512 * 768 * tokens
    assert mlm_work.flops_of_step(case) == 3 * 2 * kernels * tokens + head + attention
    assert mlm_work.flops_of_step(case) / tokens == pytest.approx(601.5e6, rel=0.001)


@pytest.mark.slow
def test_compiler_counts_about_the_same():
    case = mlm_work.Case(preset="mini", rows=8, length=64, layers=2, vocab=3000, dtype="float32")
    work = mlm_work.Work(case)
    assert 1.0 < work.compiler_flops() / mlm_work.flops_of_step(case) < 1.3  # and elementwise work, which the formula leaves out
    assert len(work.run(2)) == 2
    assert work.peak_bytes() > 3 * 4 * sum(leaf.size for leaf in jax.tree.leaves(work.state.params))


@pytest.mark.slow
def test_true_differences_of_simulated_ways():
    """The truth is what large test sets and many seeds give, and no difference is one of 0."""
    gains = bootstrap_coverage.GAINS
    for metric in ("accuracy", "macro_f1"):
        case = bootstrap_coverage.Case(metric, 4000, 40, "usual")
        truth = case.truth(gains)
        sets = case.sets(np.random.default_rng(0), gains)
        found = [np.mean([bootstrap_coverage.row_parts.score(parts)[0] for parts in runs.values()]) for runs in sets.values()]
        assert np.subtract(found, truth) == pytest.approx(0, abs=0.025)
        assert truth[:5] == pytest.approx(truth[0], abs=1e-12) and (np.diff(truth[4:]) > 0).all()
    assert truth[-1] - truth[0] > 0.03
    found = bootstrap_coverage.measure(bootstrap_coverage.Case("accuracy", 50, 3, "calm"), 2, 0)
    assert found.keys() == {"cover", "naive", "false", "found", "best"} and all(0 <= value <= 1 for value in found.values())


def test_random_rows_are_full_and_hold_the_texts():
    case = mlm_work.Case(rows=4, length=64, texts=5)
    batch = mlm_work.random_batch(case)
    assert (batch.segment_ids.max(1) == 5).all() and (np.diff(batch.segment_ids, axis=1) >= 0).all()
    starts = np.diff(batch.segment_ids, axis=1, prepend=0) > 0
    assert ((batch.position_ids == 0) == starts).all()
    assert (np.diff(batch.mlm_positions, axis=1) > 0).all() and batch.mlm_positions.shape == (4, case.num_masked)
    assert (np.take_along_axis(batch.input_ids, batch.mlm_positions, 1) == batch.mlm_labels).all()


def test_a_case_is_varied_by_names():
    case = mlm_work.Case().varied("rows=2, unroll=false,masked=1.0")
    assert (case.rows, case.unroll, case.masked) == (2, False, 1.0)
    for wrong, said in (("colour=3", "colour=3: .*preset"), ("rows=x", "rows .*int"), ("unroll=off", "unroll .*true or false")):
        with pytest.raises(SystemExit, match=said):
            case.varied(wrong)
    with pytest.raises(SystemExit, match="preset=huge.*mini, base, large"):
        case.varied("preset=huge").encoder()


def test_texts_of_packed_rows_one_a_row():
    batch = mlm_work.random_batch(mlm_work.Case(rows=3, length=32, texts=4))
    ids, mask, labels = vs_transformers.torch_arrays(batch, line_by_line=True)
    assert len(ids) == 12 and ids.shape[1] == mask.sum(1).max()
    assert mask.sum() == 3 * 32 and (labels >= 0).sum() == batch.mlm_weights.sum()
    assert (np.concatenate([row[kept > 0] for row, kept in zip(ids, mask, strict=True)]) == batch.input_ids.reshape(-1)).all()


def test_union_of_intervals():
    assert profile_step.busy([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert profile_step.busy([]) == 0


def test_operations_are_told_apart():
    hlo = """
  %dot.1 = f32[8,8]{1,0} dot(%a, %b), metadata={op_name="jit(step)/jvp()/dot_general"}
  fusion.2 = f32[8]{0} fusion(%a), kind=kLoop, metadata={op_name="jit(step)/transpose(jvp(attention))/attention/exp"}
  ROOT fusion.3 = f32[8]{0} fusion(%a), kind=kLoop, metadata={op_name="jit(step)/optimizer/mul"}
  gather.4 = f32[8]{0} gather(%a), metadata={op_name="jit(step)/jvp()/gather"}
  add.5 = f32[8]{0} add(%a, %b), metadata={op_name="jit(step)/jvp()/add"}
"""
    parts = {name: operation.part for name, operation in profile_step.operations_of(hlo).items()}
    assert parts == {"dot.1": "products", "fusion.2": "attention", "fusion.3": "optimizer", "gather.4": "embedding tables",
                     "add.5": "elementwise"}


HLO = """
  %fusion.1 = bf16[8]{0} fusion(%a), metadata={op_name="jit(step)/jvp()/mul"}
  %pallas_call.2 = bf16[8]{0} custom-call(%a), custom_call_target="xla.gpu.triton", metadata={op_name="jit(step)/pallas_call"}
  %pallas_call.3 = bf16[8]{0} custom-call(%a), custom_call_target="xla.gpu.triton", metadata={op_name="jit(step)/attention/call"}
  %fusion.4 = f32[8]{0} fusion(%a), metadata={op_name="jit(step)/optimizer/mul"}
  %custom-call.5 = bf16[8,8]{1,0} custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/dot"}
  %dot.6 = f32[8,8]{1,0} dot(%a, %b), metadata={op_name="jit(step)/jvp()/dot_general"}
  %while.7 = f32[8]{0} while(%a), metadata={op_name="jit(step)/while"}
"""


def trace_events(process: str, *threads: str) -> list[dict[str, Any]]:
    """Return the events that name a process and its threads, which are numbered from 0."""
    return [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": process}},
            *({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}} for tid, name in enumerate(threads))]


def ran(name: str, operation: str, start: float, duration: float, tid: int = 0) -> dict[str, Any]:
    return {"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": start, "dur": duration, "args": {"hlo_op": operation}}


def test_kernels_of_a_trace_of_a_gpu(tmp_path):
    events = trace_events("/device:GPU:0", "Stream #16(Compute)", "Stream #20(MemcpyD2D)", "XLA Ops") + [
        ran("loop_multiply_fusion_1", "fusion.1", 0, 100),
        ran("nvjet_sm90_tst_128x128_64x6_2x1_v_bz_TNT", "custom-call.5", 100, 400),
        ran("gemm_fusion_dot_80", "unknown", 500, 100),
        ran("residual_norm_backward", "pallas_call.2", 600, 150),
        ran("attend_segments", "pallas_call.3", 750, 30),
        ran("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16", "", 780, 70),
        ran("loop_multiply_fusion_2", "fusion.4", 850, 50),
        ran("input_scatter_fusion_2", "unknown", 900, 20),
        ran("Memset 3", "custom-call.5", 900, 30, tid=1),
        ran("nvjet_sm90_tst_128x128_64x6_2x1_v_bz_TNT", "custom-call.5", 1000, 400),
        ran("fusion.1", "fusion.1", 0, 1400, tid=2),  # the same once more, on a thread by operation
        {"ph": "X", "pid": 2, "tid": 0, "name": "main", "ts": 0, "dur": 5000},  # the host
    ]
    folder = tmp_path / "plugins" / "profile" / "2026"
    folder.mkdir(parents=True)
    with gzip.open(folder / "host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": events}, file)
    shares = profile_step.shares_on_gpu(profile_step.events_of(tmp_path), profile_step.operations_of(HLO))
    table = profile_step.table_of(shares, wall=1600.0, steps=2)
    active, total = 930 + 400, 1350  # µs; the memset runs beside the scatter
    us = {"products": 900, "own kernels": 150, "attention": 100, "elementwise": 100, "optimizer": 50, "copies and memsets": 30,
          "sort and scatter": 20}
    assert table == pytest.approx({part: time * active / total / 2000 for part, time in us.items()} | {"gaps": (1600 - active) / 2000})
    top = profile_step.top_of(shares, steps=2, top=2)
    assert [(line.ms, line.count, line.share.name[:12]) for line in top] == [(0.4, 1.0, "nvjet_sm90_t"), (0.075, 0.5, "residual_nor")]


def test_operations_of_a_trace_of_a_cpu():
    events = trace_events("/host:CPU", "tf_XLATfrtCpuClient/1", "tf_XLATfrtCpuClient/2") + [
        ran("dot.6", "dot.6", 0, 100), ran("dot.6", "dot.6", 50, 100, tid=1), ran("while.7", "while.7", 0, 1000),
        {"ph": "X", "pid": 1, "tid": 0, "name": "fusion.4", "ts": 200, "dur": 50},
        ran("ThunkExecutor", "", 0, 1000)]
    shares = profile_step.shares_on_cpu(events, profile_step.operations_of(HLO))
    table = profile_step.table_of(shares, wall=300.0, steps=1)
    assert table == pytest.approx({"products": 0.2 * 200 / 250, "optimizer": 0.05 * 200 / 250, "gaps": 0.1})
    assert profile_step.shares_on_gpu(events, {}) == []


def test_the_limit_is_measured_on_random_factors(monkeypatch):
    seen = []
    monkeypatch.setattr(mlm_work.jax, "jit", lambda product: lambda a, b: seen.append((a, b)) or a)
    mlm_work.product_rate("bfloat16")
    for factor in seen[0]:
        assert float(np.asarray(factor, np.float32).std()) == pytest.approx(1, rel=0.02)


def worker_command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_with_what_it_started(capsys, tmp_path):
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    began = time.monotonic()
    assert workers.result_of("torch.compile", worker_command(code), os.environ, seconds=1.0) is None
    assert "torch.compile: not done in 1 s" in capsys.readouterr().out
    time.sleep(4)
    assert time.monotonic() - began < 30 and not (tmp_path / "alive").exists()
    assert workers.result_of("quick", worker_command("print('x'); print('[1, 2]')"), os.environ, seconds=60) == [1, 2]
    with pytest.raises(SystemExit, match="broken failed(.|\n)*ZeroDivisionError"):
        workers.result_of("broken", worker_command("1 / 0"), os.environ)


def test_records_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCHMARK_RECORDS", str(tmp_path / "records.jsonl"))
    record.append("some", {"figure": 3})
    record.append("some", {"figure": 4})
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [(line["benchmark"], line["figure"]) for line in lines] == [("some", 3), ("some", 4)]


def test_products_of_a_compiled_program_are_counted_by_kind():
    program = """
  %a = (bf16[8,8]{1,0}, s8[1]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul$f8", backend_config={}
  %b = (bf16[8,8]{1,0}, s8[1]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul$f8", backend_config={}
  %c = (bf16[8,8]{1,0}, s8[1]{0}) custom-call(%x, %y), custom_call_target="__cublas$lt$matmul", backend_config={}
  %d = bf16[8,8]{1,0} fusion(%x, %y), kind=kCustom, backend_config={"fusion_backend_config":{"kind":"__triton_nested_gemm_fusion"}}
"""
    assert fp8_products.kernels_of(program) == "2 f8, 1 cuBLASLt, 1 Triton"
    assert fp8_products.kernels_of("%a = f32[] add(%x, %y)") == "none of a GPU"


def test_curves_are_compared_after_averaging(tmp_path, capsys):
    first = np.linspace(10, 5, 60)
    noise = np.where(np.arange(60) % 2, 0.5, -0.5)  # averages away
    figures = curves.compare({"as it is": first, "noisy": first + noise, "worse": first * 1.01, "broken": first * np.nan},
                             tmp_path / "plot.png")
    assert figures["noisy"]["apart_max"] < 1e-9 and figures["worse"]["apart_max"] == pytest.approx(0.01)
    assert figures["worse"]["mean_apart"] == pytest.approx(0.01)
    assert curves.beyond(figures, 0.5) == ["worse", "broken"] and curves.beyond(figures, 2.0) == ["broken"]
    assert "worse beside as it is, 60 steps" in capsys.readouterr().out and (tmp_path / "plot.png").stat().st_size > 1000


def test_contestants_are_selected_by_the_beginnings_of_their_names():
    names = ("jaxplm", "torch float32", "torch bfloat16", "torch bfloat16, torch.compile")
    contestants: workers.Contestants = {name: (name, {}) for name in names}
    for only, chosen in (("", names), ("jaxplm,torch bfloat16", (names[0], *names[2:])), (names[3], names[3:])):
        assert tuple(workers.selected(contestants, only)) == chosen


def test_a_case_that_cannot_be_computed_does_not_stop_those_beside_it(capsys):
    options = argparse.Namespace(steps=1, compile_limit=60.0)
    results: list[dict] = []
    case = mlm_work.Case(preset="mini", rows=1, length=64, layers=1)
    assert step_time.measure_together([("dtype=float8", case.varied("dtype=float8"))], options, results)
    options.compile_limit = -1.0
    assert step_time.measure_together([("as it is", case)], options, results)
    assert "float8" in results[0]["error"] and results[1]["error"] == "not traced in time"
    assert capsys.readouterr().out.count("mini 1 × 64") == 2


@pytest.mark.slow
def test_cases_are_compiled_together_and_measured():
    options = argparse.Namespace(steps=2, compile_limit=600.0)
    results: list[dict] = []
    case = mlm_work.Case(preset="mini", rows=8, length=64, layers=1, vocab=3000, dtype="float32")
    assert step_time.measure_together([("as it is", case), ("rows=16", case.varied("rows=16"))], options, results)
    assert [result["case"]["rows"] for result in results] == [8, 16]
    for result in results:
        assert len(result["seconds"]) == 2 and result["build"] > 0 and result["peak_bytes"] > 2**20
