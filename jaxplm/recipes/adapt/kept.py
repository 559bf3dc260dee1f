"""What stays on disk of a stage that has ended: scores, predictions and the models that are used."""

import shutil
from pathlib import Path

from jaxplm.recipes.adapt.plan import METHODS, Stage


def remove_what_no_one_reads(stage: Stage, place: Path) -> None:
    """Remove a stage's checkpoints, and the weights of models on the task that are not the final one.

    A comparison of ten ways with five seeds would otherwise keep some hundred models, each with its optimizer's moments. Scores,
    predictions, reports and the files beside the weights stay, and so does the export of each way: that of its best seed.

    Args:
      place: the stage's workdir.
    """
    for checkpoints in (*place.glob("checkpoints"), *place.glob("seed-*/checkpoints")):
        shutil.rmtree(checkpoints)
    if stage.recipe in METHODS:
        final = stage.name.endswith("/final")
        for weights in (*(() if final else place.glob("export/*.safetensors")), *place.glob("seed-*/export/*.safetensors")):
            if final and not (place / "export" / weights.name).exists():
                continue  # the run of a single seed keeps its only export
            weights.unlink()
        shutil.rmtree(place / "vectors", ignore_errors=True)  # of a frozen encoder
