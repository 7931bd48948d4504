"""The notebook in ``examples/`` runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "examples" / "notebook" / "first_steps.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(FILE.read_text())["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the packages that run it
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FILE.parents[2]), os.environ.get("PYTHONPATH")])))
    notebook: Any = nbformat.read(FILE, as_version=4)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = {cell.source.splitlines()[-1]: cell.outputs for cell in cells}
    assert {output.output_type for cell in cells for output in cell.outputs} == {"display_data", "execute_result"}

    def html(line: str) -> str:
        return "".join(output["data"].get("text/html", "") for output in outputs[line])

    assert "<strong>Plan of a run</strong>" in html("anarch_core.plan(**settings, timed=False)")
    first, more = (cell.outputs for cell in cells if cell.source.startswith("results = anarch_core.run"))
    assert len(first) == len(more) == 2  # the progress and the results
    assert first[0]["data"]["text/plain"].startswith("6 of 6 segments: 6 trained in ")
    assert more[0]["data"]["text/plain"].endswith(", 6 were there before")
    assert "image/png" in outputs['anarch_core.figure(results, "training-curves")'][0]["data"]
    assert "__main__:Net" in html('anarch_core.run(**{**settings, "switch": "at:8"}, model=Net, out=folder / "own")')
    assert "exact to rounding" in html("relaxed")
    assert "off-local" in html("anarch_core.drift(relaxed.model)")
    assert "norm_unshared" in html('anarch_core.measure(relaxed.model, "gradient", data=data.limited(500))')
