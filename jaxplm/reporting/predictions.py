"""`predictions.jsonl`: one object a row, in the order of the input."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_predictions(path: Path, predictions: Iterable[Mapping[str, Any]]) -> None:
    """Writes the file; it appears whole, in place of one of the same name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".jsonl.partial")
    with partial.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
    partial.replace(path)
