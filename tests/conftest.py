"""Runs small enough for tests: forty signals of sixteen points, a network of three channels, a few epochs."""

from __future__ import annotations

import os

# Tests run side by side, one process per core; networks this small are slower on several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from safetensors.torch import save_file

from anarch_core.config.resolution import resolve
from anarch_core.config.run_config import RunConfig

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
