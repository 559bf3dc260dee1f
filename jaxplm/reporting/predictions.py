"""`predictions.jsonl`: one object per row, in the order of the input."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxplm.data import atomic


def write_predictions(path: Path, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Write the file, complete or not at all, in place of one of the same name."""
    with atomic.open_new(path) as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
