"""Records refuse what no component could be, when they are made."""

from __future__ import annotations

import pytest

from anarch_core.plugin.records import OptimizerInfo


def test_a_role_of_optimizer_state_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="'roles' of 'average' must be one of 'weight', 'gradient', 'square': 'velocity'"):
        OptimizerInfo(name="averaging", summary="s", target="m:build", roles={"average": "velocity"})
