"""Data sets by hub name (`hf:imdb`), streamed through HF `datasets`; nothing is copied to the disk."""

import logging
from collections.abc import Iterator, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from jaxplm.data.sources.json_rows import missing_column
from jaxplm.errors import UserError

# A hub that does not answer within this many seconds is taken as unreachable.
_TIMEOUT = 5.0


def quiet_datasets() -> ModuleType:
    """The `datasets` module without its log lines and progress bars (imported late: it takes a second)."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    return datasets


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


class HubSource:
    """One split of a data set on the hub, pinned to the revision found when it was opened.

    `spec` is `name`, `owner/name` or `owner/name:config`. Raises `UserError` within seconds where no hub is
    reachable or the name is unknown. Code that a repository ships is never run.
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
        except Exception as error:  # the hub client raises its HTTP library's own errors
            raise UserError(
                f"hf:{spec} cannot be reached ({_one_line(error)}); give a local file instead"
            ) from error
        self.revision = str(info.sha)
        self.fingerprint = f"hf:{self.name}:{self.config}:{self.split}:{self.revision}"

    def rows(
        self, columns: tuple[str, ...], optional: tuple[str, ...] = (), fields: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[dict[str, Any]]:
        """The rows with these columns, and `optional` ones where they exist; numbered classes by their names.

        `UserError` names the splits or columns that exist instead; `fields` says which field chooses a column.
        """

        where = f"hf:{self.name}"
        try:
            stream = quiet_datasets().load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
            names = stream.column_names or list(next(iter(stream.take(1)), {}))
            for column in columns:
                if column not in names:
                    raise missing_column(where, column, names, fields.get(column, "data.text"))
            columns = (*columns, *(column for column in optional if column in names and column not in columns))
            classes = {column: found for column in columns if (found := _class_names((stream.features or {}).get(column)))}
            for table in stream.select_columns(list(columns)).with_format("arrow").iter(batch_size=1024):
                for row in table.to_pylist():
                    for column, class_names in classes.items():
                        row[column] = _named(row[column], class_names)
                    yield row
        except UserError:
            raise
        except Exception as error:  # connection, unknown split or config, repositories that need code
            raise UserError(f"{where} split {self.split!r} cannot be read ({_one_line(error)})") from error


def _class_names(feature: Any) -> list[str] | None:
    """The names of a column of numbered classes, or of lists of such."""
    feature = getattr(feature, "feature", feature)
    return feature.names if type(feature).__name__ == "ClassLabel" else None


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return None if value is None or value < 0 else names[value]  # -1: the hub's mark for a label that is not given
