"""Start a real kernel on this interpreter, run cells in it, read what comes back. Used by `demo` and by the kernel tests."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

KERNEL_NAME = "simple-magic-python"


@dataclass
class CellOutcome:
    """What one cell did: its streams, the MIME bundles it displayed (the result last), and its error as (name, value, traceback lines)."""

    stdout: str = ""
    stderr: str = ""
    displayed: list[dict[str, str]] = field(default_factory=list)
    error: tuple[str, str, list[str]] | None = None
    expressions: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text/plain of the last thing displayed, or ""."""
        return self.displayed[-1].get("text/plain", "") if self.displayed else ""


class Kernel:
    """A running kernel: its manager and a connected client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def start(self, code: str, expressions: dict[str, str] | None = None) -> str:
        """Send a cell and return its message id, without waiting."""
        return self.client.execute(code, user_expressions=expressions or {}, allow_stdin=False)

    def finish(self, message_id: str, timeout: float = 60.0) -> CellOutcome:
        """Wait until a cell is done. Raises: TimeoutError."""
        outcome, deadline = CellOutcome(), time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                setattr(outcome, content["name"], getattr(outcome, content["name"]) + content["text"])
            elif kind in ("execute_result", "display_data"):
                outcome.displayed.append(content["data"])
            elif kind == "error":
                outcome.error = (content["ename"], content["evalue"], content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                break
        reply = self.client.get_shell_msg(timeout=max(0.01, deadline - time.monotonic()))
        while reply["parent_header"].get("msg_id") != message_id:
            reply = self.client.get_shell_msg(timeout=max(0.01, deadline - time.monotonic()))
        if outcome.error is None and reply["content"]["status"] == "error":
            # A UsageError is a line on stderr; only the reply says that the cell failed.
            outcome.error = (reply["content"]["ename"], reply["content"]["evalue"], reply["content"]["traceback"])
        for name, answer in reply["content"].get("user_expressions", {}).items():
            outcome.expressions[name] = answer["data"]["text/plain"] if answer["status"] == "ok" else f"{answer['ename']}: {answer['evalue']}"
        return outcome

    def run(self, code: str, timeout: float = 60.0, **expressions: str) -> CellOutcome:
        """Run a cell; `expressions` are evaluated after it."""
        return self.finish(self.start(code, expressions), timeout)

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()


@contextmanager
def kernel_manager() -> Iterator[KernelManager]:
    """Yield a manager that starts kernels on this very interpreter, whatever kernels are installed."""
    with tempfile.TemporaryDirectory() as directory:
        spec = Path(directory) / KERNEL_NAME
        spec.mkdir()
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=40"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": KERNEL_NAME, "language": "python"}))
        specs = KernelSpecManager(kernel_dirs=[directory], ensure_native_kernel=False)
        manager = KernelManager(kernel_name=KERNEL_NAME, kernel_spec_manager=specs)
        try:
            yield manager
        finally:
            manager.cleanup_connection_file()


def kernel_environment() -> dict[str, str]:
    """Return the environment for a kernel: ipykernel does not capture native output while it believes that it runs inside pytest."""
    return {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}


@contextmanager
def running_kernel(cwd: str | None = None) -> Iterator[Kernel]:
    """Start a kernel; shut it down afterwards."""
    with kernel_manager() as manager:
        manager.start_kernel(env=kernel_environment(), cwd=cwd)
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
            yield Kernel(manager, client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
