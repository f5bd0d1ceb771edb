"""Work done ahead of its use, in a thread: reading, encoding, and copying to the device, while a step runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order; a thread makes up to `depth` of them before they are asked for.

    What the thread raises is raised here, in its place. Leaving the loop early ends the thread.
    """
    ready: queue.SimpleQueue[tuple[bool, object]] = queue.SimpleQueue()
    room, done = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        source = iter(items)
        try:
            while True:
                room.acquire()
                if done.is_set():
                    return
                try:
                    ready.put((True, next(source)))
                except StopIteration:
                    ready.put((False, None))
                    return
        except BaseException as error:  # noqa: BLE001  it is raised where the items are used
            ready.put((False, error))
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            fine, value = ready.get()
            if not fine:
                if value is not None:
                    raise value  # pyright: ignore[reportGeneralTypeIssues]
                return
            room.release()
            yield value  # pyright: ignore[reportReturnType]
    finally:
        done.set()
        room.release()
        thread.join()
