"""Boundary values of every scalar operation agree on all executors; the comparison runs in a child process, so that a crash is a failing test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_boundary_values_agree_on_every_executor():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    done = subprocess.run([sys.executable, str(TESTS / "boundaries.py")], capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    functions, cases, traps, different = (int(n) for n in re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert functions > 500 and cases > 50_000 and traps > 5_000 and different == 0
