"""The time that JAX spends on compiling, so that a speed can leave it out."""

import contextlib
from collections.abc import Iterator

from jax import monitoring

_TRACING, _LOWERING, _COMPILING = (
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile"))


class CompileClock:
    """The seconds of compilation while `running`.

    Functions are traced inside one another, and the time of the outermost contains that of the others: the longest counts.
    Compilations follow one another: their sum counts.

    Attributes:
      seconds: in the last block of `running`.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure the compilations in this block."""
        longest = {_TRACING: 0.0, _LOWERING: 0.0}
        compiling = 0.0

        def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
            nonlocal compiling
            if event in longest:
                longest[event] = max(longest[event], duration_secs)
            elif event == _COMPILING:
                compiling += duration_secs

        monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(listen)
            self.seconds = compiling + sum(longest.values())
