from __future__ import annotations

import pytest

from anarch_core.config.learning_rate import LearningRate
from anarch_core.errors import ConfigError


def rates(text: str, *, epochs: int = 4, iterations_per_epoch: int = 2) -> list[float]:
    rate = LearningRate.parse(text, base=1.0, epochs=epochs)
    return [rate.at(iteration, iterations_per_epoch) for iteration in range(epochs * iterations_per_epoch)]


def test_constant():
    assert rates("constant") == [1.0] * 8


def test_steps_multiply_by_a_tenth_at_the_start_of_each_milestone():
    assert rates("step:1,3") == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_steps_take_another_factor():
    assert rates("step:2@0.5") == pytest.approx([1] * 4 + [0.5] * 4)


def test_the_cosine_starts_at_the_base_and_would_end_at_zero():
    rate = LearningRate.parse("cosine", base=0.2, epochs=10)
    assert rate.at(0, 5) == 0.2
    assert rate.at(25, 5) == pytest.approx(0.1)
    assert rate.at(50, 5) == pytest.approx(0.0)
    assert all(earlier > later for earlier, later in zip(rates("cosine"), rates("cosine")[1:], strict=False))


@pytest.mark.parametrize("text", ["linear", "step", "step:", "step:a", "step:3,1", "step:2,2", "step:1@", "constant:3", ""])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        LearningRate.parse(text, base=1.0, epochs=1)
    assert "\n" not in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["step:1@1e7", "step:1,2,3@1e3", "step:1@" + "9" * 400, "step:99999999", "step:" + "9" * 5000, "step:٣"])
def test_a_rate_beyond_all_use_and_numbers_beyond_all_epochs_are_refused_in_few_words(text):
    with pytest.raises(ConfigError) as caught:
        LearningRate.parse(text, base=1.0, epochs=3)
    assert len(str(caught.value)) < 250


def test_a_rate_may_rise_as_far_as_is_of_use():
    assert LearningRate.parse("step:1,2@1000", base=1.0, epochs=3).at(2, 1) == 1e6
