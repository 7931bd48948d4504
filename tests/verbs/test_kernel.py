"""Runs in a kernel, as a notebook's: the stop button, worker processes, the network of a cell, a thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]


@attrs.define
class Said:
    """What a cell sent: tracebacks, what its last line is, and how often its displays were drawn."""

    errors: list[str] = attrs.Factory(list)
    result: str = ""
    displays: list[str] = attrs.Factory(list)
    drawn: int = 0


@attrs.frozen
class Kernel:
    manager: Any
    client: Any

    def run(self, code: str, *, stop_at: str | None = None) -> Said:
        """Execute a cell; ``stop_at`` presses the stop button when its display shows that."""
        said, cell = Said(), self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return said
            if kind == "error":
                said.errors.append("\n".join(content["traceback"]))
            elif kind == "execute_result":
                said.result = content["data"]["text/plain"]
            elif kind == "display_data":
                said.displays.append(content["data"]["text/plain"])
            elif kind == "update_display_data":
                said.drawn += 1
                said.displays[-1] = content["data"]["text/plain"]
                if stop_at is not None and stop_at in content["data"]["text/html"]:
                    self.manager.interrupt_kernel()
                    stop_at = None


@pytest.fixture(scope="module")
def kernel(signals: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    folder = tmp_path_factory.mktemp("kernel")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}", "IPYTHONDIR": str(folder / "ipython")}
    started, client = manager.start_new_kernel(cwd=str(folder), env=environment)
    made = Kernel(started, client)
    settings = {
        "data": f"tensors:{signals}",
        "model": "cnn1d",
        "relax": "lcn",
        "batch_size": 10,
        "switch": "at:1",
        "device": "cpu",
        "epochs": 2,
    }
    begun = made.run(f"import anarch_core, signal, threading\nsettings = {settings!r} | {{'epochs': 2, 'branch_epochs': 1, 'threads': 1}}")
    assert begun.errors == []
    yield made
    client.stop_channels()
    started.shutdown_kernel(now=True)


def test_segments_are_trained_by_processes(kernel: Kernel) -> None:
    said = kernel.run("anarch_core.run(**settings, jobs=2, out='processes')")
    assert said.errors == []
    assert said.result.startswith("Results of processes: finished")
    assert [text.partition(" trained")[0] for text in said.displays] == ["4 of 4 segments: 4"]


def test_the_stop_button_saves_and_the_cell_goes_on(kernel: Kernel) -> None:
    kernel.run("found = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]")
    cell = "anarch_core.run(**settings | {'epochs': 4000}, control='none', jobs=1, out='stopped')"
    (error,) = kernel.run(cell, stop_at='<td style="text-align: left">trunk, seed 0</td>').errors
    assert error.splitlines()[-1] == "InterruptedRunError: stopped, nothing is lost; go on with: anarch resume stopped"
    assert "runner.py" not in error
    assert kernel.run("found == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]").result == "True"
    again = kernel.run(cell, stop_at="trunk, seed 0")
    assert "nothing is lost" in again.errors[0]


def test_a_network_of_a_cell_is_trained_here(kernel: Kernel) -> None:
    kernel.run(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__(nn.Conv1d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(24, classes))\n"
    )
    said = kernel.run("anarch_core.run(**settings | {'model': Net}, jobs=2, out='own')")
    assert (said.errors, said.result.splitlines()[:3][-1].split()) == ([], ["model", "__main__:Net"])


def test_a_thread_works(kernel: Kernel) -> None:
    said = kernel.run(
        "done = []\n"
        "run = lambda: done.append(anarch_core.run(**settings, jobs=1, out='thread', progress='silent'))\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join(); done[0].status"
    )
    assert (said.errors, said.result) == ([], "'finished'")
