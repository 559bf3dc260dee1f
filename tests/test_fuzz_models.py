"""Damaged model directories are taken or refused in one line, and never anything else."""

import shutil

import pytest
from mutated_models import Mutator, load_case

CASES = 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_model_directories(tmp_path, seed):
    mutator, refused = Mutator(seed), 0
    for _ in range(CASES):
        directory = tmp_path / "model"
        directory.mkdir()
        case = mutator.write(directory)
        refused += load_case(directory, case, tmp_path / "export") != ""
        shutil.rmtree(directory)
    assert 0.3 * CASES < refused < CASES  # the damage is neither harmless nor always fatal
