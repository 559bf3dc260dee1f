"""Data sets by hub name (`hf:imdb`), streamed through HF `datasets`; nothing is copied to the disk."""

import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from jaxplm.data.sources.class_names import named
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.errors import UserError

_TIMEOUT = 5.0  # seconds without an answer after which the hub is taken to be unreachable
_BATCH_ROWS = 1024


def quiet_datasets() -> ModuleType:
    """Return the `datasets` module without its log lines and progress bars.

    The import takes a second, so it comes late.
    """
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    return datasets


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


class HubSource:
    """One split of a data set on the hub, at the revision that it had when it was opened.

    Code that a repository brings is never run.

    Args:
      spec: `name`, `owner/name` or `owner/name:config`.
      split: name of the split.

    Raises:
      UserError: within seconds, where no hub is reachable or the name is unknown.
    """

    def __init__(self, spec: str, split: str) -> None:
        self.name, _, config = spec.partition(":")
        self.config = config or None
        self.split = split
        import huggingface_hub

        try:
            info = huggingface_hub.HfApi().dataset_info(self.name, timeout=_TIMEOUT)
        except huggingface_hub.errors.RepositoryNotFoundError as error:
            raise UserError(f"hf:{spec}: the hub has no such data set (or it is private)") from error
        except Exception as error:  # the hub's client raises the errors of its HTTP library
            raise UserError(f"hf:{spec} cannot be reached ({_one_line(error)}); give a local file instead") from error
        self.revision = str(info.sha)
        self.fingerprint = f"hf:{self.name}:{self.config}:{self.split}:{self.revision}"

    def rows(self, columns: WantedColumns) -> Iterator[Row]:
        """Yield the rows with the wanted columns; numbered classes are given by their names.

        Raises:
          UserError: a required column or the split is not there (the error names those that are), or the connection
            failed.
        """
        where = f"hf:{self.name}"
        try:
            stream = quiet_datasets().load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
            names = stream.column_names or list(next(iter(stream.take(1)), {}))
            present = columns.present(names, where)
            features = stream.features or {}
            classes = {column: names for column in present if (names := _class_names(features.get(column)))}
            for table in stream.select_columns(present).with_format("arrow").iter(batch_size=_BATCH_ROWS):
                for row in table.to_pylist():
                    for column, class_names in classes.items():
                        row[column] = named(row[column], class_names, column, where)
                    yield row
        except UserError:
            raise
        except Exception as error:  # connection, unknown split or config, repositories that need code
            raise UserError(f"{where} split {self.split!r} cannot be read ({_one_line(error)})") from error


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of a column of numbered classes, or of lists of such; None for other columns."""
    feature = getattr(feature, "feature", feature)
    return feature.names if type(feature).__name__ == "ClassLabel" else None

