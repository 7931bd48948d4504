"""Data that are given as an object: held by this process under a name, so that a run can say what it was trained on.

The name has the digest of the data, so other data are another experiment. ``anarch_core.data.held:NAME`` leads to them as to any function
of the user's, but in this process alone, and as long as it lives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from anarch_core.data.gathering import gathered
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import DataError

_HELD: dict[str, TensorData] = {}


def hold(given: object) -> str:
    """Hold data, and say under which import string.

    Args:
        given: a TensorData, or what :func:`~anarch_core.data.gathering.gathered` makes one of, as ``((x, y), (x_test, y_test))``.

    Raises:
        DataError: it is something else. Whether it fits the objective is seen when it is loaded.
    """
    data = gathered("given", given)
    name = f"{re.sub(r'[^0-9a-z]+', '_', data.name.lower()).strip('_') or 'given'}_{data.digest()[:8]}"
    name = name if name[0].isalpha() else f"data_{name}"
    _HELD[name] = data
    return f"{__name__}:{name}"


def __getattr__(name: str) -> Callable[[], Any]:
    if not re.fullmatch(r"[a-z]\w*_[0-9a-f]{8}", name):
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def held() -> TensorData:
        if name not in _HELD:
            msg = f"the data {name!r} were given as an object, and this process does not have them; give the same again, data=..."
            raise DataError(msg)
        return _HELD[name]

    return held
