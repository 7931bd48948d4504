from __future__ import annotations

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.config.weight_average import WeightAverage
from anarch_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "average"),
    [
        ("ema:0.99", WeightAverage("ema", 0.99)),
        ("ema", WeightAverage("ema", 0.999)),
        (" ema : .5 ", WeightAverage("ema", 0.5)),
        ("ema:9e-1", WeightAverage("ema", 0.9)),
        ("swa", WeightAverage("swa", 0.75)),
        ("swa:0", WeightAverage("swa", 0.0)),
    ],
)
def test_is_written_as_its_kind_and_a_number(text, average):
    assert WeightAverage.parse(text) == average
    assert RunConfig(average=text).weight_average == average
    assert RunConfig(average=text) == RunConfig(average=str(average))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ema:1", "decay of an exponential average must be a number above 0 and below 1"),
        ("ema:0", "above 0 and below 1"),
        ("ema:1e-400", "above 0 and below 1"),
        ("swa:1", "share of training .* must be a number from 0 to below 1"),
        ("swa:10", "from 0 to below 1"),
        ("ema:-1", "no average of weights"),
        ("ema:", "no average of weights"),
        ("mean", "write 'ema:0.999', the decay per step, or 'swa:0.75'"),
        ("ema:0.9,swa", "no average of weights"),
        ("", "expected a text"),
        (0.999, "expected a text"),
        (True, "expected a text"),
        ("9" * 5000, "expected|average"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text, why):
    with pytest.raises(ConfigError, match=f"^average: .*{why}") as caught:
        RunConfig(average=text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan"), float("inf"), 1e10])
def test_a_norm_is_a_positive_number(value):
    assert RunConfig(clip_norm=1).clip_norm == 1.0
    with pytest.raises(ConfigError, match=r"^clip_norm: expected a number above 0"):
        RunConfig(clip_norm=value)
