"""Dependencies point down: magics -> show -> autograd, execution -> backends -> runtime, passes -> mir; fuzz -> backends. Read from the imports, nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "simple_magic"
LAYERS = ("mir", "passes", "runtime", "backends", "execution", "autograd", "fuzz", "show")
ALLOWED = {
    "mir": {"mir"},
    "runtime": {"runtime", "mir"},
    "passes": {"passes", "runtime", "mir"},
    "backends": {"backends", "passes", "runtime", "mir"},
    "execution": {"execution", "backends", "passes", "mir"},
    "fuzz": {"fuzz", "backends", "passes", "mir"},
    "autograd": {"autograd", "execution", "backends", "passes", "mir"},
    "show": {"show", "autograd", "execution", "passes", "mir"},
}
"""What each folder may import from the package; the modules beside the folders (magics, __main__, demo, ...) may import all of them."""
OUTSIDE = {"llvmlite": {"backends"}, "wasmtime": {"backends"}, "IPython": {"show", ""}, "jupyter_client": {""}, "matplotlib": {"show"}, "numpy": {"backends", "fuzz", "autograd"}}
"""Which folders may import which outside package ("" is the package's top level)."""
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (relative level, dotted name) of everything a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found += [(node.level, f"{base}.{alias.name}" if not base or node.level else base) for alias in node.names]
    return found


def folder(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = folder(path)
    for level, name in imports(path):
        if level == 0:
            package = name.partition(".")[0]
            if package in OUTSIDE:
                assert here in OUTSIDE[package], f"{path.name} imports {package}"
            continue
        target = name.partition(".")[0] if level == 2 else here if level == 1 and here else name.partition(".")[0]
        if here and target in LAYERS:
            assert target in ALLOWED[here], f"{here} must not import {target} ({path.name})"
        elif here:
            assert target not in ("magics", "demo", "doctor", "kernels"), f"{path.name} imports upwards: {name}"


def test_the_language_needs_the_standard_library_alone():
    import sys

    for path in (ROOT / "mir").glob("*.py"):
        for level, name in imports(path):
            assert level or name.partition(".")[0] in sys.stdlib_module_names, (path.name, name)


def test_a_turn_back_would_be_seen(tmp_path):
    """The check itself: an upward import is found."""
    bad = ROOT / "mir" / "model.py"
    source = "from ..execution.manager import LocalExecutionManager\n"
    (tmp_path / "x.py").write_text(source)
    (level, name) = imports(tmp_path / "x.py")[0]
    assert (level, name.partition(".")[0]) == (2, "execution") and "execution" not in ALLOWED[folder(bad)]


def test_loading_the_extension_imports_no_engine():
    import subprocess
    import sys

    code = "import sys, simple_magic.magics; print([m for m in ('llvmlite', 'wasmtime', 'matplotlib', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
