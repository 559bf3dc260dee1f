"""What a run's score on the test set is made of, row by row: read back from its predictions."""

import json
from pathlib import Path
from typing import Any

from jaxplm.errors import UserError
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.kinds.kind import RowSet, TaskKind


def parts_of(path: Path, kind: TaskKind, metric: str, test: RowSet) -> RowParts | None:
    """Return the parts of a score, in the order of the rows that have a label; None where there are none.

    That is where no row has a label, or where the kind says nothing of this score; see `TaskKind.row_parts`.

    Args:
      path: predictions.jsonl of the run.
      kind: of the task.
      metric: the score, as in metrics.jsonl.
      test: the test set of the run, with rows without labels, and the labels of its training set.

    Raises:
      UserError: the file does not belong to these rows, or cannot be read.
    """
    predictions = _read(path)
    if [one.get("row") for one in predictions] != test.examples.rows.tolist():
        raise UserError(f"{path}: its {len(predictions):,} rows are not the {len(test.examples):,} of {test.examples.describe}: the test"
                        " set has changed since; run the task again in another workdir")
    known = test.examples.labelled.nonzero()[0].tolist()
    if not known:
        return None
    return kind.row_parts(metric, test._replace(examples=test.examples.select(known)), [predictions[row] for row in known])


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        return [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError):
        raise UserError(f"{path}: a line is not a JSON object; remove the run's workdir to run it again") from None
