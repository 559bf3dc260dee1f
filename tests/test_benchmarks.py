"""The parts of the benchmark scripts that a wrong figure could come from."""

import jax
import mlm_work
import numpy as np
import profile_step
import pytest
import vs_transformers


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
