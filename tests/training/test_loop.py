"""The loop against hand-written references, and its state."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn

from anarch_core.data.order import epoch_order
from anarch_core.errors import CheckpointError, ConfigError
from anarch_core.ops.fused import linear
from anarch_core.segment.scoring import is_milestone
from anarch_core.training.averages import RunningAverage
from anarch_core.training.evaluation import evaluate
from anarch_core.training.loop import Training
from anarch_core.training.precision import dtype_of, matmul_precision

SAMPLES, FEATURES, CLASSES, BATCH = 50, 6, 3, 8
STEPS_PER_EPOCH = 7


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, CLASSES))


@pytest.fixture(scope="module")
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, FEATURES, generator=generator), torch.randint(CLASSES, (SAMPLES,), generator=generator)


def training(model: nn.Module, samples: tuple[torch.Tensor, torch.Tensor], **settings: object) -> Training:
    optimizer = settings.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-3)
    rate = settings.pop("learning_rate", lambda iteration: 0.1 / (1 + iteration))
    return Training(model=model, optimizer=optimizer, x=samples[0], y=samples[1], batch_size=BATCH, seed=3, learning_rate=rate, **settings)


def run_epochs(training: Training, epochs: int) -> None:
    for _ in range(epochs):
        training.advance(training.iteration + training.iterations_per_epoch)
        training.end_epoch()


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_the_norm_of_the_gradient_is_the_mean_over_the_steps_of_an_epoch(samples):
    x, y = samples
    expected, norms = network(), []
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for rows in torch.split(epoch_order(SAMPLES, 3, 0), BATCH):
        optimizer.zero_grad()
        cross_entropy(expected(x[rows]), y[rows]).backward()
        norms.append(torch.cat([weight.grad.flatten() for weight in expected.parameters()]).norm().item())
        optimizer.step()

    model, alone = network(), network()
    loop = training(
        model, samples, follow_gradient=True, learning_rate=lambda _: 0.1, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
    )
    run_epochs(loop, 1)
    assert loop.gradient_norm == pytest.approx(sum(norms) / STEPS_PER_EPOCH, rel=1e-6)

    other = training(alone, samples, learning_rate=lambda _: 0.1, optimizer=torch.optim.SGD(alone.parameters(), lr=0.1))
    run_epochs(other, 1)
    assert other.gradient_norm is None
    assert_same_weights(model, alone)


def test_the_norms_of_an_epoch_that_is_interrupted_are_kept(samples):
    whole = training(network(), samples, follow_gradient=True)
    run_epochs(whole, 1)
    begun = training(network(), samples, follow_gradient=True)
    begun.advance(3)
    resumed = training(network(1), samples, follow_gradient=True)
    resumed.load_state(*begun.state())
    resumed.advance(STEPS_PER_EPOCH)
    resumed.end_epoch()
    assert resumed.gradient_norm == whole.gradient_norm


def test_equals_a_handwritten_loop_bit_for_bit(samples):
    x, y = samples
    expected = network()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    losses, hits, step = [], [], 0
    for epoch in range(3):
        losses, hits = [], []
        order = epoch_order(SAMPLES, 3, 10 + epoch)
        for start in range(0, SAMPLES, BATCH):
            rows = order[start : start + BATCH]
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.zero_grad()
            output = expected(x[rows])
            loss = cross_entropy(output, y[rows])
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(rows)
            hits += (output.argmax(1) == y[rows]).tolist()
            step += 1

    model = network()
    loop = training(model, samples, first_epoch=10)
    run_epochs(loop, 2)
    loop.advance(3 * STEPS_PER_EPOCH)
    score = loop.end_epoch()

    assert_same_weights(expected, model)
    assert loop.iteration == step == 3 * STEPS_PER_EPOCH
    assert score.loss == pytest.approx(sum(losses) / SAMPLES, rel=1e-12)
    assert score.accuracy == pytest.approx(100 * sum(hits) / SAMPLES)


def test_advance_stops_at_the_end_of_the_epoch_at_the_goal_and_when_paused(samples):
    loop = training(network(), samples)
    loop.advance(100)
    assert loop.iteration == STEPS_PER_EPOCH
    loop.advance(STEPS_PER_EPOCH + 2)
    assert loop.iteration == STEPS_PER_EPOCH + 2
    loop.advance(100, pause=lambda: True)
    assert loop.iteration == STEPS_PER_EPOCH + 3
    loop.advance(100)
    assert loop.iteration == 2 * STEPS_PER_EPOCH


def test_stops_inside_an_epoch_change_nothing(samples):
    whole, interrupted = network(dropout=0.5), network(dropout=0.5)
    torch.manual_seed(1)
    run_epochs(loop := training(whole, samples), 2)
    torch.manual_seed(1)
    halting = training(interrupted, samples)
    for _ in range(2 * STEPS_PER_EPOCH):
        halting.advance(halting.iteration + 1)
        if halting.iteration % STEPS_PER_EPOCH == 0:
            halting.end_epoch()
    assert halting.iteration == loop.iteration
    assert_same_weights(whole, interrupted)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("average", [None, "ema", "swa"])
@pytest.mark.parametrize("stop", [0, 4, STEPS_PER_EPOCH + 1])
def test_state_goes_on_to_the_same_bits(samples, optimizer, stop, average):
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}

    def start(seed: int) -> Training:
        model = network(seed, dropout=0.5)
        optimized = optimizer(model.parameters(), lr=0.1, **options)
        kept = average and RunningAverage(model, average, 0.5, 2 * STEPS_PER_EPOCH)
        return training(model, samples, optimizer=optimized, learning_rate=lambda _: 0.01, clip_norm=1.0, average=kept)

    def go(loop: Training, until: int) -> None:
        while loop.iteration < until:
            loop.advance(until)
            if loop.iteration % STEPS_PER_EPOCH == 0:
                scores.append(loop.end_epoch())

    scores: list[object] = []
    whole = start(0)
    torch.manual_seed(5)
    go(whole, 2 * STEPS_PER_EPOCH)
    expected = list(scores)

    scores.clear()
    first = start(0)
    torch.manual_seed(5)
    go(first, stop)
    tensors, metadata = first.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    torch.rand(7)
    second = start(9)
    second.load_state(tensors, metadata)
    go(second, 2 * STEPS_PER_EPOCH)

    assert_same_weights(whole.model, second.model)
    assert scores == expected
    assert whole.take_average() == second.take_average() == (average is not None)
    assert_same_weights(whole.model, second.model)


class Relaxed(nn.Linear):
    """A layer whose weight plain descent updates within the backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), Relaxed(12, CLASSES))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_clipped_step_is_torch_s(samples, momentum):
    x, y = samples
    expected, model = deep(), deep()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.3, momentum=momentum)
    norms = []
    for rows in torch.split(epoch_order(SAMPLES, 3, 0), BATCH):
        optimizer.zero_grad()
        cross_entropy(expected(x[rows]), y[rows]).backward()
        norms.append(nn.utils.clip_grad_norm_(expected.parameters(), 0.8).item())
        optimizer.step()
    assert min(norms) < 0.8 < max(norms)

    settings = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.3, momentum=momentum), "learning_rate": lambda _: 0.3}
    training(model, samples, clip_norm=0.8, **settings).advance(STEPS_PER_EPOCH)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_changes_nothing_in_what_is_trained(samples, kind):
    plain, averaged = network(), network()
    run_epochs(training(plain, samples), 2)
    run_epochs(training(averaged, samples, average=RunningAverage(averaged, kind, 0.5, 2 * STEPS_PER_EPOCH)), 2)
    assert_same_weights(plain, averaged)


def test_an_equal_average_is_torch_s_with_its_statistics_estimated_on_the_training_set(samples):
    x, _ = samples
    model = network()
    loop = training(model, samples, average=RunningAverage(model, "swa", 0.5, 4 * STEPS_PER_EPOCH), first_epoch=10)
    expected = AveragedModel(model)
    for epoch in range(1, 5):
        loop.advance(epoch * STEPS_PER_EPOCH)
        loop.end_epoch()
        if epoch >= 2:
            expected.update_parameters(model)
    update_bn([x[rows] for rows in torch.split(epoch_order(SAMPLES, 3, 10), BATCH)], expected)
    modes = [module.training for module in model.modules()]
    assert loop.take_average()
    assert [module.training for module in model.modules()] == modes
    for name, tensor in expected.module.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_where_nothing_was_averaged_the_network_stays(samples):
    model = network()
    loop = training(model, samples, average=RunningAverage(model, "swa", 0.9, 4 * STEPS_PER_EPOCH))
    run_epochs(loop, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not loop.take_average()
    assert not training(model, samples).take_average()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_state_of_another_network_is_refused(samples):
    tensors, metadata = training(network(), samples).state()
    other = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    with pytest.raises(CheckpointError, match="does not fit the network"):
        training(other, samples).load_state(tensors, metadata)


def test_evaluate_is_the_mean_over_all_samples_and_restores_a_mixed_mode(samples):
    x, y = samples
    model = network(dropout=0.5)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    score = evaluate(model, x, y, batch=17)
    assert [module.training for module in model.modules()] == modes

    model.eval()
    with torch.no_grad():
        output = model(x)
    assert score.loss == pytest.approx(cross_entropy(output, y).item(), rel=1e-6)
    assert score.accuracy == pytest.approx(100 * (output.argmax(1) == y).float().mean().item())


def test_bfloat16_keeps_float32_weights_and_differs_from_float32(samples):
    assert dtype_of("bfloat16") is torch.float32
    full, half = network(), network()
    run_epochs(training(full, samples), 1)
    run_epochs(training(half, samples, precision="bfloat16"), 1)
    assert half[0].weight.dtype is torch.float32
    assert not torch.equal(full[0].weight, half[0].weight)
    torch.testing.assert_close(full[0].weight, half[0].weight, rtol=0.1, atol=0.05)


def test_tf32_is_allowed_only_where_asked_for():
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with matmul_precision("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        with matmul_precision("float32"):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == found


def test_milestones_are_the_papers_moments():
    assert [epoch for epoch in range(151) if is_milestone(epoch)] == [0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, 40, 52, 67, 88, 115, 150]


def test_a_parameter_group_may_learn_at_a_rate_of_its_own(samples):
    model = network()
    weights, biases = [[p for n, p in model.named_parameters() if n.endswith(kind)] for kind in ("weight", "bias")]
    optimizer = torch.optim.SGD([{"params": weights}, {"params": biases, "lr_scale": 0.25}], lr=1.0)
    loop = training(model, samples, optimizer=optimizer, learning_rate=lambda iteration: 0.5)
    loop.advance(1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.125]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda logits: {"logits": logits}, r"gives a dict \(logits\) for 10 inputs in evaluation mode"),
        (lambda logits: logits.argmax(1, keepdim=True), r"gives \(10, 1\) of int64 for"),
        (lambda logits: logits[:, 0], r"gives \(10,\) for"),
    ],
)
def test_what_is_no_row_of_logits_is_not_scored(output, message):
    class Given(nn.Linear):
        def forward(self, x):
            return output(super().forward(x))

    with pytest.raises(ConfigError, match=message):
        evaluate(Given(4, 3), torch.randn(10, 4), torch.zeros(10, dtype=torch.long))


def test_outputs_that_are_not_numbers_are_right_about_nothing():
    model = nn.Linear(4, 3)
    nn.init.constant_(model.weight, torch.nan)
    score = evaluate(model, torch.randn(10, 4), torch.zeros(10, dtype=torch.long))
    assert score.accuracy == 0
    assert score.loss != score.loss
