"""What compiling and running give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..mir.diagnostics import Diagnostic, Trap


@dataclass(frozen=True)
class CodeInfo:
    """What one `compile` defined.

    name: the module's name, or the cell's; entry_point: "main", else the first function, else ""; symbol_names: its functions.
    warnings are diagnostics; notes are sentences about globals that were reset and callers that broke; timings are nanoseconds by stage.
    """

    name: str
    entry_point: str
    symbol_names: tuple[str, ...]
    warnings: tuple[Diagnostic, ...] = ()
    notes: tuple[str, ...] = ()
    timings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ExecutionResult:
    """One run: its value, or the trap that ended it; the text it wrote; the engine that really ran; nanoseconds by stage."""

    value: object
    stdout: str
    stderr: str
    trap: Trap | None
    backend: str
    timings: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if the run ended normally, else 1."""
        return 0 if self.trap is None else 1


class CopiedArrayWarning(UserWarning):
    """A NumPy array was copied, because the program may keep it beyond the call."""
