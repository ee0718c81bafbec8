"""A warm child process that compares batches: a program that kills or hangs it is a finding, and the next batch gets a new child.

Requests and answers are pickles over pipes. A request names the executors and holds a `Batch`, or the arguments of `make_batch`: then nothing large
travels. `python -m simple_magic.fuzz.child` is the child.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from .compare import EXECUTORS, Comparison, Executors
from .generate import Batch, make_batch

RENEW_EVERY = 40
"""Batches after which a child makes new back ends: texts of units stay in their heaps."""


class ChildDied(Exception):
    """The child died of a signal, or did not answer in time."""


class Child:
    """The parent's side. The process starts when it is first needed, and again after it has died."""

    def __init__(self, executors: Sequence[str] = tuple(EXECUTORS), timeout: float = 120.0) -> None:
        self.executors = tuple(executors)
        self.timeout = timeout
        self._process: subprocess.Popen | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)

    @property
    def pid(self) -> int:
        return self._started().pid

    def compare(self, request: Batch | tuple) -> Comparison:
        """Compare a batch, or that of `make_batch(*request)`. Raises: ChildDied; RuntimeError with the traceback of an exception in the child."""
        self.send(request)
        return self.receive()

    def send(self, request: Batch | tuple) -> None:
        process = self._started()
        assert process.stdin is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # Then there is no answer either.
            pickle.dump((self.executors, request), process.stdin)
            process.stdin.flush()

    @property
    def answers(self) -> IO[bytes]:
        """Where the answer comes, for `select`."""
        assert self._process is not None and self._process.stdout is not None, "a request was sent"
        return self._process.stdout

    def receive(self, timeout: float | None = None) -> Comparison:
        """Wait for the answer to what was sent."""
        process = self._process
        assert process is not None and process.stdout is not None, "a request was sent"
        try:
            if not select.select([process.stdout], [], [], self.timeout if timeout is None else timeout)[0]:
                raise ChildDied(f"no answer in {self.timeout:g} s")
            answer = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            status = process.wait()
            raise ChildDied(f"the process died with status {status}\n{self._last_words()}") from None
        except BaseException:
            self.stop()
            raise
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def _started(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._errors.truncate(0)
            package = str(Path(__file__).parent.parent.parent)
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "simple_magic.fuzz.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
            )
        return self._process

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[:2000].decode("utf-8", "replace")

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._errors.close()


def serve() -> None:
    """Answer requests until the input ends."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    executors: Executors | None = None
    served = 0
    while True:
        try:
            names, request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if executors is None or executors.names != names or served % RENEW_EVERY == 0:
            if executors is not None:
                executors.close()
            executors = Executors(names)
        served += 1
        answer: Comparison | str
        try:
            answer = executors.compare(request if isinstance(request, Batch) else make_batch(*request))
        except Exception:
            answer = traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
