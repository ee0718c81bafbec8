"""The output of running programs: collected, bounded, written to `sys.stdout` between calls."""

from __future__ import annotations

import sys
from typing import TextIO

from ..mir.diagnostics import Trap


class Output:
    """Text that a program wrote and nobody has seen yet. `limit` is in characters per outermost call."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sink: TextIO | None = None
        """Where text goes instead of `sys.stdout`."""
        self._parts: list[str] = []
        self._used = 0

    def begin(self) -> None:
        """Start a new outermost call."""
        self._used = 0

    def write(self, text: str) -> None:
        """Append. Raises: Trap output_limit."""
        self._used += len(text)
        if self._used > self.limit:
            raise Trap("output_limit", f"the program wrote more than {self.limit} characters")
        self._parts.append(text)

    def flush(self) -> None:
        """Hand everything to `sys.stdout`, or to `sink`; lone surrogates cannot occur in text."""
        if self._parts:
            text, self._parts = "".join(self._parts), []
            stream = self.sink or sys.stdout
            stream.write(text)
            stream.flush()
