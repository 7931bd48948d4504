"""Runs small enough for tests: forty signals of sixteen points, a network of three channels, a few epochs."""

from __future__ import annotations

import copy
import importlib.util
import multiprocessing
import os
import subprocess
import sys

# Tests run side by side, one process per core; networks this small are slower on several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from safetensors.torch import save_file

from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.report.catalogue import figures

# What is generated comes from a seed, 0 unless --hypothesis-seed says otherwise, and nothing depends on how busy the machine is.
hypothesis.settings.register_profile(
    "suite",
    max_examples=20,
    deadline=None,
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("campaign", hypothesis.settings.get_profile("suite"), max_examples=400)
hypothesis.settings.load_profile("suite")


class TorchRandom:
    """PyTorch's random numbers, for Hypothesis to seed before every example and to put back after it."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH = TorchRandom()
hypothesis.register_random(TORCH)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers in every test, whatever ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _threads_left_alone() -> Iterator[None]:
    """Whatever a test does, those after it find as many threads as it did: they are as fast, and round alike."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


LAUNCH = """
import os, runpy, sys
for number, file in enumerate(outputs, 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *paths]
if arguments[0] == "-m":
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
elif arguments[0] == "-c":
    sys.argv = ["-c", *arguments[2:]]
    exec(arguments[1], {"__name__": "__main__"})
else:
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""
ONE_FIGURE = """
from anarch_core.cli import main
from anarch_core.report import catalogue, writer
writer.figures = lambda: catalogue.figures()[:1]
main()
"""


class Python:
    """Runs programs as ``subprocess.run([sys.executable, "-P", ...])`` does, without waiting for what takes seconds to import.

    Processes are forked from one that has imported that, and nothing of anarch or its plugins. Where PyTorch has a device a fork could not
    use it, and they are processes like any other.
    """

    def __init__(self, folder: Path, forkserver: ForkServerContext) -> None:
        self._outputs = (str(folder / "out"), str(folder / "err"))
        show = [sys.executable, "-I", "-c", "import sys; print('\\n'.join(sys.path))"]
        self._paths = subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines()
        self._forks = None if torch.accelerator.is_available() else forkserver

    def __call__(
        self, *arguments: object, environment: Mapping[str, str] = os.environ, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``python ARGUMENTS``; arguments begin with ``-m``, ``-c`` or the path of a script."""
        command, cwd = [str(argument) for argument in arguments], str(folder or Path.cwd())
        if self._forks is None:
            whole = [sys.executable, "-P", *command]
            return subprocess.run(whole, capture_output=True, text=True, check=False, env=dict(environment), cwd=cwd)
        names = {"arguments": command, "environment": dict(environment), "folder": cwd, "paths": self._paths, "outputs": self._outputs}
        for file in self._outputs:
            Path(file).write_text("")
        process = self._forks.Process(target=exec, args=(LAUNCH, names))
        process.start()
        process.join()
        out, err = (Path(file).read_text() for file in self._outputs)
        return subprocess.CompletedProcess(command, process.exitcode, out, err)

    def anarch(self, *arguments: object, **place: Any) -> subprocess.CompletedProcess[str]:
        """``anarch ARGUMENTS``, with one figure in its reports."""
        return self("-c", ONE_FIGURE, *arguments, **place)


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """Makes processes for work without a device, which begin with PyTorch imported."""
    context = multiprocessing.get_context("forkserver")
    heavy = ["torch", "torch._dynamo", "torchvision", "scipy.optimize", "matplotlib.backends.backend_svg"]
    context.set_forkserver_preload(heavy)
    return context


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, forkserver: ForkServerContext) -> Python:
    return Python(tmp_path_factory.mktemp("python"), forkserver)


@pytest.fixture(scope="session")
def _mnist1d_arrays() -> dict[str, Any]:
    from anarch_plugins.datasets.mnist1d.dataset import generated

    return generated()


@pytest.fixture(scope="module")
def mnist1d(_mnist1d_arrays: dict[str, Any]) -> Iterator[None]:
    """MNIST-1D is generated once, which takes a second, for all modules that only need some data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anarch_plugins.datasets.mnist1d.dataset.generated", lambda: copy.deepcopy(_mnist1d_arrays))
        yield


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have one figure: drawing all of them takes longer than the run that they show."""
    monkeypatch.setattr("anarch_core.report.writer.figures", lambda: figures()[:1])


@pytest.fixture(scope="session")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noisy waves [1, 16]: 40 to train on, 20 to test on."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    wave = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)
    x = (wave + 0.5 * torch.randn(60, 16, generator=generator))[:, None, :]
    path = tmp_path_factory.mktemp("data") / "signals.safetensors"
    save_file({"x": x[:40].clone(), "y": y[:40].clone(), "x_test": x[40:].clone(), "y_test": y[40:].clone()}, path)
    return path


@pytest.fixture(scope="session")
def small(signals: Path) -> Callable[..., RunConfig]:
    """Makes configurations on the signals, four steps an epoch; one job unless the test says otherwise."""

    def configuration(**settings: Any) -> RunConfig:
        defaults = {
            "data": f"tensors:{signals}",
            "model": "cnn1d",
            "batch_size": 10,
            "relax": "efcn",
            "epochs": 3,
            "branch_epochs": 2,
            "switch": "at:0,2",
            "jobs": 1,
            "threads": 1,
            "device": "cpu",
        }
        if settings.get("path"):
            del defaults["switch"]
        elif settings.get("relax") == () and settings.get("control") == "none":
            del defaults["switch"], defaults["branch_epochs"]
        options = {"cnn1d": {"channels": 3}, **settings.pop("options", {})}
        return resolve({**defaults, **settings, "options": options})

    return configuration


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a text as a module into a new working directory, and gives its name, which no other test has."""

    def write(text: str) -> str:
        name = f"module_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.chdir(tmp_path)
        return name

    return write


def _foreign(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "foreign" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def circulant() -> ModuleType:
    """A relaxation of a layer that is no convolution, as somebody else would have written it by hand."""
    return _foreign("circulant")


@pytest.fixture(scope="session")
def strange() -> ModuleType:
    """Relaxations of layers that take and give anything, and are called several times."""
    return _foreign("strange")
