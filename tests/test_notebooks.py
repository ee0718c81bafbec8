"""Every teaching notebook runs from top to bottom in a fresh kernel; cells that are meant to fail say so in their tags."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from simple_magic.kernels import kernel_environment, kernel_manager

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    with kernel_manager() as manager:
        NotebookClient(notebook, km=manager, timeout=120, kernel_name=manager.kernel_name).execute(env=kernel_environment())
    failing = [cell for cell in notebook.cells if cell.cell_type == "code" and any(o.output_type == "error" for o in cell.outputs)]
    meant = [cell for cell in notebook.cells if "raises-exception" in cell.metadata.get("tags", [])]
    assert failing == meant, "the cells that fail are those that are meant to"
    assert any("assert" in cell.source or "--expect" in cell.source for cell in notebook.cells), "a notebook asserts what it claims"
