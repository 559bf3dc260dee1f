"""The kinds of labelled tasks, one object per kind. Importing this package imports no JAX."""

from jaxplm.tasks.kinds.classify import Classify
from jaxplm.tasks.kinds.kind import TaskKind
from jaxplm.tasks.kinds.multilabel import Multilabel
from jaxplm.tasks.kinds.qa import QuestionAnswering
from jaxplm.tasks.kinds.regress import Regress
from jaxplm.tasks.kinds.tag import Tag

# The registry: `task.kind` is one of these names. A kind of a user's own is added by `register`.
KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (Classify(), Multilabel(), Regress(), Tag(), QuestionAnswering())}


_BUILT_IN = frozenset(KINDS)


def register(kind: TaskKind) -> TaskKind:
    """Add a kind of task to `KINDS` and return it. A config file is a good place to call this.

    A kind that was registered by the same name before is replaced: a config file may be executed more than once.

    Raises:
      ValueError: the package itself has a kind of that name.
    """
    if kind.name in _BUILT_IN:
        raise ValueError(f"task kind {kind.name!r} exists already: choose another name")
    KINDS[kind.name] = kind
    return kind
