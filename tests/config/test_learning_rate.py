from __future__ import annotations

import pytest

from anarch_core.config.learning_rate import LearningRate
from anarch_core.errors import ConfigError

WRONG = [
    "warmup",
    "warmup:",
    "warmup:5+",
    "warmup:5+warmup:5",
    "cosine+warmup:5",
    "warmup:-1",
    "warmup:1.5",
    "warmup:5x+cosine",
    "cosine:",
    "cosine:-1",
]


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


def test_the_cosine_may_end_above_zero():
    rate = LearningRate.parse("cosine:0.01", base=0.2, epochs=10)
    assert rate.at(0, 5) == 0.2
    assert rate.at(25, 5) == pytest.approx(0.105)
    assert rate.at(50, 5) == pytest.approx(0.01)


def test_a_warm_up_grows_by_the_same_amount_at_every_step_and_ends_at_the_base():
    assert rates("warmup:2") == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert rates("warmup:2") == rates("warmup:2ep") == rates("warmup:4it") == rates(" warmup:2 + constant")
    assert rates("warmup:3it")[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_a_cosine_after_a_warm_up_takes_the_rest_of_the_stretch():
    rate = LearningRate.parse("warmup:2+cosine:0.1", base=1.0, epochs=6)
    assert [rate.at(iteration, 5) for iteration in (0, 9, 10, 20, 30)] == pytest.approx([0.1, 1, 1, 0.55, 0.1])


def test_steps_after_a_warm_up_count_epochs_from_the_start_of_the_stretch():
    assert rates("warmup:1+step:2,3@0.5") == pytest.approx([0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25])
    assert rates("warmup:1+step:1@1e+1") == pytest.approx([0.5, 1, 10, 10, 10, 10, 10, 10])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("warmup:4", "leaves nothing of a stretch of 4ep"),
        ("warmup:9+cosine", "leaves nothing"),
        ("warmup:2+step:1", "epoch 1, where the learning rate is to step, lies within the warm-up of 2ep"),
        ("warmup:0", "has no length"),
        ("cosine:2", "ends at 2, above the 1"),
        ("cosine:1e999", "ends at inf"),
    ],
)
def test_what_never_comes_to_its_learning_rate_is_refused_in_a_sentence(text, why):
    with pytest.raises(ConfigError, match=why):
        LearningRate.parse(text, base=1.0, epochs=4)


def test_a_warm_up_in_steps_is_held_to_the_stretch_when_its_steps_are_known():
    rate = LearningRate.parse("warmup:10it+cosine", base=1.0, epochs=4)
    rate.require_room(11, 5)
    with pytest.raises(ConfigError, match="warm-up of 10it leaves nothing of a stretch of 2ep"):
        rate.require_room(10, 5)
    with pytest.raises(ConfigError, match=r"epoch 1, where .* lies within the warm-up of 6it"):
        LearningRate.parse("warmup:6it+step:1", base=1.0, epochs=4).require_room(20, 5)


@pytest.mark.parametrize("text", [*WRONG, "linear", "step", "step:", "step:a", "step:3,1", "step:2,2", "step:1@", "constant:3", ""])
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
