"""Work in another thread, so that the thread which waits for it stays open to signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_in_worker(work: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Return `work()`, done in another thread. If a signal handler raises here meanwhile, `discard` gets the result when there is one."""
    done, lock = threading.Event(), threading.Lock()
    results: list[T] = []
    errors: list[BaseException] = []
    abandoned = False

    def body() -> None:
        try:
            result = work()
        except BaseException as error:
            errors.append(error)
        else:
            with lock:
                results.append(result)
                if abandoned:
                    discard(results.pop())
        done.set()

    threading.Thread(target=body, name="simple_magic compiler").start()
    try:
        done.wait()
    except BaseException:
        with lock:
            abandoned = True
            if results:
                discard(results.pop())
        raise
    if errors:
        raise errors.pop()
    return results.pop()
