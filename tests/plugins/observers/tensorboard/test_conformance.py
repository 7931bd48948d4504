from __future__ import annotations

import pytest

from anarch_core.testing import ObserverConformance

pytest.importorskip("tensorboard")


class TestConformance(ObserverConformance):
    name = "tensorboard"
