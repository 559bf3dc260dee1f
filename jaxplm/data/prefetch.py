"""Values computed ahead by a background thread."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Generator[T, None, None]:
    """Yield make(start), ..., make(stop - 1), computed up to `depth` ahead by a background thread.

    An exception of `make` is raised where its result would have come. Closing the iterator, or an exception
    in the loop over it such as Ctrl-C, stops the thread.
    """
    ready: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closing = threading.Event()

    def work() -> None:
        try:
            for index in range(start, stop):
                room.acquire()
                if closing.is_set():
                    return
                ready.put((make(index), None))
        except BaseException as error:  # noqa: BLE001 - handed to the consumer
            ready.put((None, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            value, error = ready.get()
            if error is not None:
                raise error
            room.release()
            yield value  # type: ignore[misc]
    finally:
        closing.set()
        room.release()
        thread.join()
