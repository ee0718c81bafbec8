"""A warm child process in which generated programs run natively: a crash there is a failing example and not a dead session.

Protocol: one JSON object per line, {"source", "functions", "model"}; the answer is one line: per executor the outcomes of all functions, or {"error"}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from filetests import EXECUTORS

from simple_magic import LocalExecutionManager, MirError
from simple_magic.execution.compare import Run
from simple_magic.mir.diagnostics import LIMIT_KINDS

FUEL = 20_000
"""Instructions per call: a generated program needs far fewer, a mutated one may loop for ever."""


def outcomes(backend: str, level: int, source: str, functions: list[str], model: str) -> list[object]:
    """Run every function on one executor, one after the other on the same globals; return what each did."""
    found: list[object] = []
    with LocalExecutionManager(backend, opt_level=level, semantics=model) as em:
        em.compile(source)
        for name in functions:
            result = em.execute_captured(name, fuel=FUEL)
            trap = result.trap
            seen = None if trap is None else trap.kind if trap.kind in LIMIT_KINDS else [trap.kind, str(trap.origin), trap.message, [str(f) for f in trap.frames]]
            found.append([Run(backend, level, model, result).answer if trap is None else "", seen, result.stdout, repr(em.globals())])
    return found


def serve() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: object = {f"{b} O{level}": outcomes(b, level, request["source"], request["functions"], request["model"]) for b, level in EXECUTORS}
        except MirError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


class NativeChild:
    """The parent's side; the child starts again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def run(self, source: str, functions: list[str], model: str) -> dict:
        """Return the child's answer. Raises: AssertionError with the signal if the child died."""
        if self._process is None:
            tests = Path(__file__).parent
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
            self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._process.stdin.write(json.dumps({"source": source, "functions": functions, "model": model}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            self.close()
            raise AssertionError(f"the process died with status {status}")
        return json.loads(answer)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


if __name__ == "__main__":
    serve()
