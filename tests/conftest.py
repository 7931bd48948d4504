"""Runs small enough for tests: forty signals of sixteen points, a network of three channels, a few epochs."""

from __future__ import annotations

import copy
import os

# Tests run side by side, one process per core; networks this small are slower on several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
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


@pytest.fixture(scope="session")
def _mnist1d_arrays() -> dict[str, Any]:
    from anarch_plugins.datasets.mnist1d import dataset

    with dataset._global_random_state_kept():
        return dataset.make_dataset(dataset.get_dataset_args())


@pytest.fixture
def mnist1d(_mnist1d_arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST-1D is generated once, which takes two seconds, for all tests that only need some data."""
    monkeypatch.setattr("anarch_plugins.datasets.mnist1d.dataset.make_dataset", lambda _: copy.deepcopy(_mnist1d_arrays))


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
