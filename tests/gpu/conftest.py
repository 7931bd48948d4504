"""What a card does, tried on one where there is one, on a stand-in for it where there is none: `pytest -m gpu` runs all of it.

The stand-in is the processor, with training steps that are recorded and replayed as a CUDA graph would be.
"""

from __future__ import annotations

import pytest
import torch

from anarch_core.ops import sparse_product
from anarch_core.training import loop
from anarch_core.training.precision import matmul_precision
from tests.training.recorded import Recorded


def pytest_report_header():
    there = torch.cuda.is_available()
    return f"card: {torch.cuda.get_device_name() if there else 'none, what is marked gpu runs on a stand-in'}"


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def card():
    """Whether there is one."""
    return torch.cuda.is_available()


@pytest.fixture
def device(card, monkeypatch):
    """A card, or the stand-in: a processor that captures steps, and takes none as a chain of its own."""
    if not card:
        graphs = Recorded()
        monkeypatch.setattr(loop, "graphs_on", lambda device: graphs)
        monkeypatch.setattr(loop, "Chained", lambda model: None)
        monkeypatch.setattr(sparse_product, "pays", lambda *operands: False)
    with matmul_precision("float32"):
        yield torch.device("cuda" if card else "cpu")


@pytest.fixture
def never_waits(card):
    """Inside, waiting for the card is an error; on the stand-in nothing is, as its replays are no operations of the loop."""

    class Nothing:
        def __enter__(self):
            if card:
                torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *error):
            if card:
                torch.cuda.set_sync_debug_mode("default")

    return Nothing()
