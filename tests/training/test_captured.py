"""Captured steps are the ordinary ones, replayed; what cannot be captured is trained as it was, and says why. On a stand-in for a card."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from anarch_core.augmentation import AbstractAugmentation, Augmenting
from anarch_core.data.stored import Stored
from anarch_core.errors import ConfigError
from anarch_core.objective.classification import CrossEntropy
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.verbs import relax
from anarch_core.training import loop as loops
from anarch_core.training.averages import RunningAverage
from anarch_core.training.loop import Training
from tests.training.recorded import Recorded

SAMPLES, CLASSES, BATCH = 50, 3, 8
STEPS_PER_EPOCH, WHOLE, SMALLER = 7, 6, 1
OPTIMIZERS = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 1e-2}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    ("adam", {}),
    ("adamw", {}),
]


@pytest.fixture
def graphs(monkeypatch):
    """Let the processor be a device that captures."""
    found = Recorded()
    monkeypatch.setattr(loops, "graphs_on", lambda device: found)
    return found


@pytest.fixture(scope="module")
def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 2, 10, generator=generator), torch.randint(CLASSES, (SAMPLES,), generator=generator)


def cnn(*more, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), *more, nn.Flatten(), nn.Linear(40, CLASSES))


def relaxed(relaxation, *more):
    return relax(cnn(*more), relaxation, example_input=torch.randn(2, 2, 10)).model


def built(model, optimizer=OPTIMIZERS[0]):
    registry = get_registry()
    info = registry.find("optimizer", optimizer[0])
    return registry.target(info)(list(model.named_parameters()), 0.05, registry.parse_options(info, optimizer[1]))


def training(model, samples, optimizer=OPTIMIZERS[0], **settings):
    made = settings.pop("made", None) or built(model, optimizer)
    x, y = samples
    settings = {"learning_rate": lambda step: 0.05 / (1 + 0.1 * step), "capture": "auto", **settings}
    return Training(model=model, optimizer=made, x=x, y=y, batch_size=BATCH, seed=3, **settings)


def run_epochs(loop, epochs=2):
    scores = []
    for _ in range(epochs):
        loop.advance(loop.iteration + STEPS_PER_EPOCH)
        scores.append(loop.end_epoch())
    return scores


def assert_close(a, b):
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(tensor, b.state_dict()[name], rtol=2e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


def both(make, samples, epochs=2, **settings):
    """The same training, captured and ordinary."""
    found = []
    for capture in "on", "off":
        torch.manual_seed(1)
        loop = training(make(), samples, capture=capture, **{name: given() for name, given in settings.items()})
        found.append((loop, run_epochs(loop, epochs)))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_captured_steps_are_the_ordinary_ones(graphs, samples, relaxation, optimizer):
    (captured, scores), (ordinary, expected) = both(lambda: relaxed(relaxation), samples, optimizer=lambda: optimizer)
    assert captured.captured == graphs.replayed - 2 * 3 == 2 * STEPS_PER_EPOCH - 1  # two sizes, each tried for three steps
    assert graphs.recorded == 2
    if relaxation != "shared" or not optimizer[0].startswith("adam"):  # a bias before a batch normalisation: Adam follows its rounding
        assert_close(captured.model, ordinary.model)
    for score, wanted in zip(scores, expected, strict=True):
        assert score.loss == pytest.approx(wanted.loss, rel=1e-4)


def test_the_network_of_the_beginning_is_captured_as_well(graphs, samples):
    (captured, _), (ordinary, _) = both(cnn, samples)
    assert captured.captured == 2 * STEPS_PER_EPOCH - 1
    assert_close(captured.model, ordinary.model)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": lambda: 0.05},
        {"follow_gradient": lambda: True},
        {"learning_rate": lambda: lambda step: 0.0 if step < 3 else 0.05},
        {"precision": lambda: "bfloat16"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_training_are_captured(graphs, samples, settings):
    (captured, _), (ordinary, _) = both(lambda: relaxed("efcn"), samples, **settings)
    assert captured.captured == 2 * STEPS_PER_EPOCH - 1
    if "precision" not in settings:
        assert_close(captured.model, ordinary.model)
        assert captured.gradient_norm == (None if ordinary.gradient_norm is None else pytest.approx(ordinary.gradient_norm, rel=1e-5))


def test_dropout_draws_the_numbers_of_ordinary_steps(graphs, samples):
    (captured, _), (ordinary, _) = both(lambda: cnn(nn.Dropout(0.5)), samples)
    assert captured.captured
    assert_close(captured.model, ordinary.model)


def test_an_average_of_the_weights_is_kept_beside_captured_steps(graphs, samples):
    found = []
    for capture in "on", "off":
        model = cnn()
        loop = training(model, samples, capture=capture, average=RunningAverage(model, "ema", 0.9, 14))
        run_epochs(loop)
        assert loop.take_average()
        found.append(model)
    assert_close(*found)


class Scaled(AbstractAugmentation):
    """Every sample by a number of its own, in every epoch another."""

    def augmented(self, inputs, draws):
        return inputs * (0.5 + draws.uniform("size").to(inputs.dtype).unsqueeze(2))


@pytest.mark.parametrize(
    ("x", "augment"),
    [(Stored, None), (lambda x: x, Augmenting({"scaled": Scaled(None)}, 0)), (Stored, Augmenting({"scaled": Scaled(None)}, 0))],
    ids=["stored", "augmented", "stored and augmented"],
)
def test_batches_that_the_host_makes_are_given_to_captured_steps(graphs, samples, x, augment):
    inputs, targets = samples
    (captured, _), (ordinary, _) = both(cnn, (x(inputs), targets), augment=lambda: augment)
    assert captured.captured == 2 * STEPS_PER_EPOCH - 1
    assert_close(captured.model, ordinary.model)


@pytest.mark.parametrize("stopped", [1, 2, 5, STEPS_PER_EPOCH, 9])
@pytest.mark.parametrize("optimizer", [OPTIMIZERS[0], OPTIMIZERS[2], OPTIMIZERS[3]], ids=str)
def test_what_is_resumed_goes_on_to_the_same_bits(graphs, samples, optimizer, stopped):
    def begun():
        return training(relaxed("efcn", nn.Dropout(0.2)), samples, optimizer, capture="on")

    whole, first, second = begun(), begun(), begun()
    torch.manual_seed(1)
    run_epochs(whole)
    torch.manual_seed(1)
    while first.iteration < stopped:
        first.advance(stopped)
        if first.iteration == STEPS_PER_EPOCH and stopped >= STEPS_PER_EPOCH:
            first.end_epoch()
    tensors, metadata = first.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    torch.manual_seed(99)
    second.load_state(tensors, metadata)
    while second.iteration < 2 * STEPS_PER_EPOCH:
        second.advance(2 * STEPS_PER_EPOCH)
        if second.iteration % STEPS_PER_EPOCH == 0:
            second.end_epoch()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_seeing_that_steps_can_be_captured_leaves_no_trace(graphs, samples):
    """The state before and after, random numbers and running sums included, of steps that turn out not to be captured."""
    states = []
    for capture in "auto", "off":
        torch.manual_seed(1)
        model = relaxed("efcn", nn.Dropout(0.5), Drifting())
        loop = training(model, samples, OPTIMIZERS[2], capture=capture)
        loop.advance(1)
        model[-3].step = 0
        loop.advance(4)
        states.append((loop.state(), loop.not_captured))
    (state, why), (ordinary, nothing) = states
    assert why == "captured steps and ordinary ones differ in model.0.bias"
    assert nothing is None
    assert state[1] == ordinary[1]
    assert state[0].keys() == ordinary[0].keys()


class Drifting(nn.Module):
    """Its factor is counted up on the host, where no captured step does."""

    def __init__(self):
        super().__init__()
        self.step = 0

    def forward(self, x):
        self.step += self.training
        return x * (1.0 + 0.5 * (self.step % 3))


class Waiting(nn.Module):
    """Waits for a number."""

    def forward(self, x):
        return x * max(1.0, x.sum().item())


class Random(nn.Module):
    """Draws from a generator that nobody knows of."""

    def __init__(self):
        super().__init__()
        self.numbers = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x * torch.rand((), generator=self.numbers)


class Counting(torch.optim.SGD):
    """Counts its steps on the host."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1


def hooked(model):
    model[1].register_forward_hook(lambda module, given, output: output * 1.0)
    return model


def watched(model):
    model[0].weight.register_hook(lambda grad: grad * 1.0)
    return model


@pytest.mark.parametrize(
    ("model", "made", "why"),
    [
        (lambda: cnn(Drifting()), None, "differ in model."),
        (lambda: cnn(Waiting()), None, "waits for the device"),
        (lambda: cnn(Random()), None, "the same steps, taken twice, differ in"),
        (lambda: hooked(cnn()), None, "a hook is on module '1', which a captured step would not call"),
        (lambda: watched(cnn()), None, "a hook is on parameter '0.weight', which a captured step would not call"),
        (cnn, lambda model: Counting(model.parameters(), 0.05), "its optimizer counts on the host"),
        (cnn, lambda model: torch.optim.Adam(model.parameters(), 0.05), ""),
    ],
    ids=["drifting", "waiting", "random", "hook", "watched", "counting", "adam on the host"],
)
def test_what_cannot_be_captured_is_trained_as_it_was(graphs, samples, model, made, why):
    found = []
    for capture in "auto", "off":
        torch.manual_seed(1)
        network = model()
        loop = training(network, samples, capture=capture, made=made and made(network))
        run_epochs(loop)
        found.append(loop)
    auto, off = found
    assert why in auto.not_captured
    assert "\n" not in auto.not_captured
    assert auto.captured == 0
    assert off.not_captured is None
    if not isinstance(auto.model[3], (Drifting, Random)):  # whose steps cannot be put back
        for name, tensor in auto.model.state_dict().items():
            assert torch.equal(tensor, off.model.state_dict()[name]), name


def test_where_steps_have_to_be_captured_it_is_an_error_that_they_cannot(graphs, samples):
    loop = training(cnn(Waiting()), samples, capture="on")
    with pytest.raises(ConfigError, match=r"capture 'on': .*waits for the device.*; use capture auto, or off"):
        loop.advance(5)


def test_nothing_is_captured_on_a_processor(samples):
    loop = training(cnn(), samples)
    run_epochs(loop, 1)
    assert (loop.captured, loop.not_captured) == (0, None)


def test_weights_of_float64_are_not_captured(graphs, samples):
    x, y = samples
    loop = training(cnn().double(), (x.double(), y), precision="float64")
    run_epochs(loop, 1)
    assert loop.not_captured == "fused optimizers take no learning rate from the device for weights of float64"


def test_a_tally_that_waits_for_the_device_is_not_captured(graphs, samples):
    class Reading(CrossEntropy):
        def tally(self, outputs, targets):
            return {name: total * max(1, int(total > 0)) for name, total in super().tally(outputs, targets).items()}

    loop = training(cnn(), samples, objective=Reading())
    run_epochs(loop, 1)
    assert "waits for the device" in loop.not_captured


def test_memory_is_given_back_and_steps_are_captured_again(graphs, samples):
    loops_ = [training(cnn(), samples, capture="on") for _ in range(2)]
    for loop, rests in zip(loops_, (True, False), strict=True):
        loop.advance(4)
        if rests:
            loop.rest()
        loop.advance(STEPS_PER_EPOCH)
    assert_close(loops_[0].model, loops_[1].model)
    assert graphs.recorded == (1 + 2) + 2


def test_weights_that_were_put_elsewhere_between_epochs_are_captured_again(graphs, samples):
    found = []
    for capture in "on", "off":
        torch.manual_seed(1)
        model = cnn()
        loop = training(model, samples, OPTIMIZERS[2], capture=capture)
        run_epochs(loop, 1)
        model[0].weight.data = model[0].weight.data.clone()
        run_epochs(loop, 1)
        found.append(model)
    assert_close(*found)
    assert graphs.recorded == 2 + 2


def test_a_step_reads_its_learning_rate_from_the_device(graphs, samples):
    """Of two trainings, one stops learning after it was captured."""
    model = cnn()
    loop = training(model, samples, learning_rate=lambda step: 0.05 if step < 4 else 0.0, capture="on")
    loop.advance(4)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    loop.advance(WHOLE)
    assert loop.captured == WHOLE - 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())


def test_replays_meet_every_batch_in_its_order(graphs, samples):
    """Inputs that a step sees are those of its rows: the running sums of a network that tells them."""

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))

        def forward(self, x):
            with torch.no_grad():
                self.seen.mul_(0.5).add_(x.mean((0, 2)))
            return x

    seen = []
    for capture in "on", "off":
        torch.manual_seed(0)
        model = nn.Sequential(Sums(), nn.Flatten(), nn.Linear(20, CLASSES))
        run_epochs(training(model, samples, capture=capture))
        seen.append(model[0].seen)
    torch.testing.assert_close(*seen)


def test_the_same_seed_captures_to_the_same_bits(graphs, samples):
    first, second = (training(relaxed("lcn"), samples, OPTIMIZERS[3], capture="on") for _ in range(2))
    for loop in first, second:
        run_epochs(loop)
    pairs = itertools.zip_longest(first.model.parameters(), second.model.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
