"""What is installed, what works, and how to get what is missing."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from .execution.defaults import choose_backend
from .execution.manager import LocalExecutionManager
from .mir.diagnostics import SimpleError
from .show.html import Table, table

REQUIRED = ("ipython", "ipykernel", "llvmlite", "numpy", "matplotlib")
PROBE = "fn main() -> i64:\nentry:\n  a = const 40\n  b = add a, 2\n  ret b\n"


def report() -> Table:
    """Return a table of versions, and of what each back end answers to a two-line program."""
    rows = [("python", f"{platform.python_implementation()} {platform.python_version()}", sys.platform)]
    for name in REQUIRED:
        try:
            rows.append((name, version(name), "installed"))
        except PackageNotFoundError:
            rows.append((name, "-", f"missing: pip install {name}"))
    for backend in ("interpreter", "llvm", "cranelift"):
        rows.append((f"{backend} back end", *_probe(backend)))
    chosen, reason = choose_backend("auto")
    rows.append(("auto", chosen, reason))
    return table(("what", "version", "state"), rows)


def _probe(backend: str) -> tuple[str, str]:
    try:
        with LocalExecutionManager(backend) as manager:
            manager.compile(PROBE)
            answer = manager.execute("main")
            return manager.backend_name, "works" if answer == 42 else f"WRONG: 40 + 2 gave {answer}"
    except (ValueError, ImportError, SimpleError) as error:
        return "-", str(error).split("\n")[0]
