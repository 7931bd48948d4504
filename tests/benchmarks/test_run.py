"""The one command: tables, the record, the plot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import measure
import pytest
import run


def resting(seconds: float) -> measure.Step:
    return lambda: time.sleep(seconds)


def case() -> measure.Case:
    contenders = {"slow": lambda: resting(0.02), measure.OURS: lambda: resting(0.01)}
    return measure.Case("rest", contenders, flops=1e6, bytes=0, memory=False, steps=2)


def counts() -> Iterator[measure.Table]:
    yield measure.Table("counts", ("", "n"), [("one", "1")])


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setattr(run, "CASES", {"rest": case})
    monkeypatch.setattr(run, "TABLES", {"counts": counts})
    monkeypatch.setattr(measure, "machine", lambda: measure.Machine(1, 1e9, 1e9))


def test_contenders_are_compared_per_step_beside_the_floor(capsys, tmp_path: Path) -> None:
    record, plot = tmp_path / "record.json", tmp_path / "plot.svg"
    run.main(["--threads", "1", "--repeats", "2", "--json", str(record), "--plot", str(plot)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "best", "median", "of anarch's", "peak memory"]
    assert [row[0] for row in rows[2:5]] == ["slow", "anarch", "floor (0.0 GFLOP, 0.00 GB)"]
    assert rows[3][3] == "1.00"
    assert rows[4][1] == "1.00 ms"
    assert rows[-1] == ["one", "1"]
    found = json.loads(record.read_text())
    assert len(found["rest"]["slow"]["seconds"]) == 2
    assert min(found["rest"]["slow"]["seconds"]) >= 0.01
    assert found["counts"] == [{"title": "counts", "columns": ["", "n"], "rows": [["one", "1"]]}]
    assert "<svg" in plot.read_text()


def test_a_case_that_does_not_exist_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        run.main(["rset"])
    assert "no case 'rset'; there are rest, counts" in capsys.readouterr().err
