"""One outermost call at a time per manager.

The owner word holds the identity of the thread that is inside, or 0. Native callables take it while they hold the GIL, and give it back by a plain store;
everybody else comes here. The owner re-enters freely: an extern, or a signal handler that a poll lets run, may call the manager again.

An interrupt can come between any two steps of Python code. So `hold` is no context manager, whose own entry and exit could be interrupted, and what
it does last is no call: CPython runs signal handlers, and switches threads, at calls and backward jumps only.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")
WAIT_SECONDS = 0.001
"""How long a wait for another thread's call lasts before the word is looked at again: a native call does not notify."""


class Ownership:
    """The owner word of a manager. `address` is where native code finds it."""

    def __init__(self) -> None:
        self._word = ctypes.c_int64(0)
        self.address = ctypes.addressof(self._word)

    @property
    def is_held(self) -> bool:
        return self._word.value != 0

    @property
    def is_mine(self) -> bool:
        return self._word.value == threading.get_ident()

    def hold(self, action: Callable[[bool], R]) -> R:
        """Return `action(outermost)`, done while the manager is held. Waiting releases the GIL and lets signals in."""
        me = threading.get_ident()
        word = self._word
        is_nested = word.value == me
        try:
            if not is_nested:
                self._take(me)
            return action(not is_nested)
        finally:
            if not is_nested and word.value == me:
                word.value = 0

    def _take(self, me: int) -> None:
        word = self._word
        while True:
            if word.value == 0:
                word.value = me  # no other thread runs between the test and this
                return
            time.sleep(WAIT_SECONDS)
