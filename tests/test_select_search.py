"""The search of the recipe `select` on eight devices, against a brute force in float64."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxplm.config import Mesh
from jaxplm.data.selection.neighbours import unit
from jaxplm.devices import sharding
from jaxplm.recipes.select import device_search, search
from jaxplm.recipes.select.vectors import StoredVectors

pytestmark = pytest.mark.slow

K = 20


def stored(directory: Path, vectors: np.ndarray, shard: int = 70) -> StoredVectors:
    directory.mkdir()
    shards = [{"file": f"{first}.npy", "rows": len(vectors[first : first + shard])} for first in range(0, len(vectors), shard)]
    for first in range(0, len(vectors), shard):
        np.save(directory / f"{first}.npy", vectors[first : first + shard])
    (directory / "index.json").write_text(json.dumps({"rows": len(vectors), "width": vectors.shape[1], "shards": shards}))
    return StoredVectors(directory)


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(data=2, fsdp=2, tensor=2)], ids=["data", "data-fsdp-tensor"])
def test_neighbours_are_exact_also_among_equal_and_nearly_equal_vectors_and_after_a_stop(tmp_path, monkeypatch, caplog, mesh):
    monkeypatch.setattr(device_search, "_PART_ROWS", 16)  # 128 vectors per block
    monkeypatch.setattr(device_search, "_QUERIES", 8)
    monkeypatch.setattr(search, "_SCANNED_ROWS", 50)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(900, 40)).astype(np.float32)
    vectors[200:260] = vectors[3]  # more equal ones than there are candidates
    vectors[400:480] = vectors[5] + random.normal(size=(80, 40)).astype(np.float32) * 1e-5  # float32 products cannot order them
    vectors[600] = vectors[7] * 4
    queries = np.concatenate([random.normal(size=(13, 40)), vectors[[3, 5, 7]] + 1e-3]).astype(np.float32)
    task, corpus = stored(tmp_path / "task", queries, 5), stored(tmp_path / "corpus", vectors)
    on = sharding.make_mesh(mesh)
    assert len(jax.devices()) == 8

    def stop(done: int) -> None:
        if done >= 512:
            raise KeyboardInterrupt

    state = tmp_path / "search.npz"
    with pytest.raises(KeyboardInterrupt):
        search.find_candidates(task, corpus, K, on, state, stop)
    seen: list[int] = []
    with caplog.at_level("INFO", "jaxplm"):
        found = search.find_candidates(task, corpus, K, on, state, seen.append)
        numbers, similarities = search.rank(task, corpus, found, K, lambda done: None)
    assert seen[0] == 640 and seen[-1] == 900 and "512" in caplog.text
    assert f"of {len(queries)} task texts" in caplog.text, "some are compared with all vectors"

    exact = (unit(queries)[:, None] * unit(vectors)).sum(-1)
    wanted = np.argsort(-exact, axis=1, kind="stable")[:, :K]
    assert np.array_equal(similarities, np.take_along_axis(exact, wanted, 1))
    assert np.array_equal(numbers, wanted)
    assert numbers[13, :4].tolist() == [3, 200, 201, 202]
    whole = search.find_candidates(task, corpus, K, on, tmp_path / "other.npz", lambda done: None)
    assert np.array_equal(whole.values, found.values)

    state.write_bytes(state.read_bytes()[:100])
    again = search.find_candidates(task, corpus, K, on, state, lambda done: None)
    assert np.array_equal(again.values, found.values) and "not what was written" in caplog.text


def test_the_union_has_each_text_once_with_its_best_task_text():
    numbers, similarities = np.array([[4, 2], [2, 9], [9, 4]]), np.array([[0.9, 0.5], [0.7, 0.6], [0.6, 0.1]])
    chosen, best, task = search.union(numbers, similarities)
    assert (chosen.tolist(), best.tolist(), task.tolist()) == ([2, 4, 9], [0.7, 0.9, 0.6], [1, 0, 1])
