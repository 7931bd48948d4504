"""The run directory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anarch_core.errors import RunError
from anarch_core.experiment.store import History, RunStore
from anarch_core.files.tables import read_json, write_json


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"loss": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"loss": 0.5}
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*result\.json"):
        read_json(tmp_path / "result.json")


def test_history_is_cut_back_to_what_the_saved_state_counts_on(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, 0)
    history.append({"epoch": 0, "train_loss": 2.25})
    size = history.size()
    history.append({"epoch": 1, "train_loss": None})
    history.close()
    with path.open("a") as file:
        file.write('{"epoch": 2, "trai')  # killed in the middle of a row

    history = History(path, size)
    assert history.rows == [{"epoch": 0, "train_loss": 2.25}]
    history.append({"epoch": 1, "train_loss": 1.5})
    history.close()
    assert path.read_text().splitlines() == ['{"epoch": 0, "train_loss": 2.25}', '{"epoch": 1, "train_loss": 1.5}']


def test_a_history_that_lost_rows_is_refused(tmp_path):
    with pytest.raises(RunError, match="has lost rows"):
        History(tmp_path / "history.jsonl", 10)


def test_a_run_directory_belongs_to_one_process(tmp_path):
    store = RunStore(tmp_path / "run")
    with store.lock(), pytest.raises(RunError, match="in use by another process"), store.lock():
        pass
    with store.lock():
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    program = (
        "import sys, pathlib; from anarch_core.experiment.store import RunStore\n"
        "with RunStore(pathlib.Path(sys.argv[1])).segment('abc').lock(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        process.kill()
        with RunStore(tmp_path).segment("abc").lock():
            pass
