"""Work in another thread, so that the thread which waits for it stays open to signals.

Built on `_thread`: `threading.Thread.start`, `Event` and `Condition` are Python code, and an exception of a signal handler in the middle of it leaves
locks in a state that hangs their other users.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_in_worker(work: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Return `work()`, done in another thread. If a signal handler raises here meanwhile, `discard` gets the result when there is one."""
    done, lock = _thread.allocate_lock(), _thread.allocate_lock()
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
        done.release()

    done.acquire()
    _thread.start_new_thread(body, ())
    try:
        done.acquire()
    except BaseException:
        with lock:
            abandoned = True
            if results:
                discard(results.pop())
        raise
    if errors:
        raise errors.pop()
    return results.pop()
