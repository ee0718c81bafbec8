"""One outermost call at a time per manager.

The owner word holds the identity of the thread that is inside, or 0. Native callables take it with one compare-exchange while they hold the GIL;
everybody else comes here. The owner re-enters freely: an extern may call back into its manager.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SECONDS = 0.005
"""How long one wait for another thread's call lasts before the word is looked at again: a native call does not notify."""


class Ownership:
    """The owner word of a manager. `address` is where native code finds it."""

    def __init__(self) -> None:
        self._word = ctypes.c_int64(0)
        self.address = ctypes.addressof(self._word)
        self._condition = threading.Condition()

    @property
    def is_held(self) -> bool:
        return self._word.value != 0

    @property
    def is_mine(self) -> bool:
        return self._word.value == threading.get_ident()

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the manager; yield whether this is the outermost call. Waiting releases the GIL and lets signals in."""
        me = threading.get_ident()
        if self._word.value == me:
            yield False
            return
        with self._condition:
            while self._word.value != 0:
                self._condition.wait(WAIT_SECONDS)
            self._word.value = me
        try:
            yield True
        finally:
            with self._condition:
                self._word.value = 0
                self._condition.notify()
