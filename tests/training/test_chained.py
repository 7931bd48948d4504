"""Training a network in chains: the same network, the same steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from anarch_core.layers import LocallyConnectedLayer
from anarch_core.models import build_model
from anarch_core.objective.classification import CrossEntropy
from anarch_core.plugin import get_registry
from anarch_core.relaxation.verbs import relax
from anarch_core.training.chained import Chained
from anarch_core.training.loop import Training

TO_ROUNDING = 1e-10
SAMPLES, BATCH, STEPS = 50, 8, 7


@pytest.fixture(scope="module")
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 1, 40, generator=generator, dtype=torch.float64), torch.randint(10, (SAMPLES,), generator=generator)


def network(relaxation: str = "conv") -> nn.Module:
    model = build_model("cnn1d", input_shape=(1, 40), classes=10).double()
    return model if relaxation == "conv" else relax(model, relaxation, example_input=torch.zeros(2, 1, 40).double()).model


Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=1e-2)


def training(model, samples, *, chained=True, optimizer: Optimizer = sgd, **settings) -> Training:
    x, y = samples
    rate = settings.pop("learning_rate", lambda step: 0.2 / (1 + step))
    made = optimizer(model)
    return Training(model=model, optimizer=made, x=x, y=y, batch_size=BATCH, seed=3, learning_rate=rate, chained=chained, **settings)


def assert_trained_alike(model, samples, *, chains, epochs=2, **settings):
    ordinary, mine = training(copy.deepcopy(model), samples, chained=False, **settings), training(model, samples, **settings)
    for _ in range(epochs):
        for loop in (ordinary, mine):
            loop.advance(loop.iteration + STEPS)
        expected, found = ordinary.end_epoch(), mine.end_epoch()
        assert found.loss == pytest.approx(expected.loss, abs=TO_ROUNDING)
        assert found.metrics == expected.metrics
        assert mine.gradient_norm == pytest.approx(ordinary.gradient_norm, abs=TO_ROUNDING)
    assert (mine.chains > 0) == chains
    for name, tensor in ordinary.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=TO_ROUNDING)


@pytest.mark.parametrize("relaxation", ["conv", "lcn", "tiled", "shared", "efcn"])
def test_networks_of_the_default_run(samples, relaxation):
    assert_trained_alike(network(relaxation), samples, chains=True)


@pytest.mark.parametrize("settings", [
    {"optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True)},
    {"optimizer": lambda model: torch.optim.Adam(model.parameters())},
    {"clip_norm": 0.5, "follow_gradient": True},
    {"follow_gradient": True, "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)},
    {"objective": CrossEntropy(type("Options", (), {"label_smoothing": 0.1}))},
], ids=["momentum", "adam", "clipped", "followed", "smoothed"])  # fmt: skip
@pytest.mark.parametrize("relaxation", ["conv", "efcn"])
def test_other_ways_to_train(samples, relaxation, settings):
    assert_trained_alike(network(relaxation), samples, chains=True, **settings)


def assert_followed_to_the_bit(model, samples, **settings):
    """Whether the norm of the gradient is looked at or not, the weights are the same, and finite."""
    x, y = samples
    states = []
    for followed in (False, True):
        loop = training(copy.deepcopy(model), (x.float(), y), follow_gradient=followed, **settings)
        for _ in range(2):
            loop.advance(loop.iteration + STEPS)
            loop.end_epoch()
        states.append(loop.model.state_dict())
    expected, weights = states
    assert all(torch.equal(tensor, expected[name]) and tensor.isfinite().all() for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("relaxation", "chained"), [(name, True) for name in ("conv", "lcn", "tiled", "shared", "efcn")] + [("conv", False), ("efcn", False)]
)
def test_following_the_gradient_changes_no_bit(samples, relaxation, chained):
    assert_followed_to_the_bit(network(relaxation).float(), samples, chained=chained)


def test_following_a_gradient_too_large_to_be_squared_changes_no_bit_either(samples):
    model = network().float()
    with torch.no_grad():
        model.classifier[-1].weight.mul_(1e25)
    assert_followed_to_the_bit(model, samples, learning_rate=lambda _: 1e-30)


class Custom(nn.Module):
    """A network whose forward pass is code, with convolutions, a branch and a sequential inside."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 6, 5, padding=2), nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Sequential(nn.MaxPool1d(4), nn.Flatten(), nn.Linear(60, 12), nn.ReLU(), nn.Linear(12, 10))

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head(x + self.norm(self.second(x)))


def parts() -> nn.Sequential:
    shared = nn.Conv1d(4, 4, 3, padding=1)
    return nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Sequential(shared, nn.ReLU(), shared, nn.GELU()),
        nn.Conv1d(4, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(160, 10),
    )  # fmt: skip


@pytest.mark.parametrize("make", [Custom, parts])
def test_networks_of_which_only_parts_are_chains(samples, make):
    torch.manual_seed(0)
    model = make().double()
    states = []

    def seeded(loop):
        torch.manual_seed(5)
        loop.advance(STEPS)
        states.append(loop.model.state_dict())

    for chained in (False, True):
        seeded(training(copy.deepcopy(model), samples, chained=chained))
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=TO_ROUNDING)


def test_the_network_is_as_it_was_outside_of_steps(samples):
    model = network()
    before = [(name, type(module), set(vars(module))) for name, module in model.named_modules()]
    training(model, samples).advance(STEPS)
    assert [(name, type(module), set(vars(module))) for name, module in model.named_modules()] == before
    x = samples[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), x)[0].abs().sum() > 0  # as often as one likes


class Doubled(LocallyConnectedLayer):
    """A layer that inherits, and computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Linear):
    """Likewise of PyTorch's."""

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_class_that_overrides_the_forward_pass_is_called(samples):
    model = network("lcn")
    for module in model.modules():
        if type(module) is LocallyConnectedLayer:
            module.__class__ = Doubled
    model.classifier[1].__class__ = Twice
    assert_trained_alike(model, samples, chains=False)


def test_modules_that_are_watched_are_called(samples):
    model, seen = network(), []
    model.features[2].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model.features[5].register_full_backward_hook(lambda module, *gradients: seen.append("back"))
    training(model, samples).advance(STEPS)
    assert seen == [(BATCH, 25, 10), "back"] * (STEPS - 1) + [(SAMPLES % BATCH, 25, 10), "back"]


def test_a_forward_pass_that_was_put_in_place_stays(samples):
    model = network()
    model.features[0].forward = lambda x: nn.functional.conv1d(x, model.features[0].weight, stride=2, padding=2)
    bias = model.features[0].bias.clone()
    training(model, samples).advance(STEPS)
    assert torch.equal(model.features[0].bias, bias)  # it was not used
    assert "forward" in vars(model.features[0])


def test_weights_that_are_replaced_are_those_that_are_trained(samples):
    model = network()
    loop = training(model, samples, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0))
    loop.advance(2)
    with torch.no_grad():
        weight = model.features[0].weight
        weight.data = torch.zeros_like(weight)
    other = copy.deepcopy(model)
    loop.advance(4)
    expected = training(other, samples, chained=False, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0))
    expected.iteration = 2
    expected.advance(4)
    for parameter, reference in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, reference, rtol=0, atol=TO_ROUNDING)


def test_it_goes_on_to_the_same_bits_from_any_step(samples):
    loop = training(network("lcn"), samples)
    loop.advance(3)
    tensors, metadata = loop.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    loop.advance(STEPS)
    score = loop.end_epoch()

    again = training(network("lcn"), samples)
    again.load_state(saved, metadata)
    again.advance(STEPS)
    assert again.end_epoch() == score
    for name, tensor in loop.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_other_arithmetic_and_other_kinds_of_tensors_go_the_ordinary_way(samples):
    model = network().float()
    chained = Chained(model)
    x = samples[0].float()[:4]
    with chained.taken(), torch.autocast("cpu", torch.bfloat16):
        model(x)
    with chained.taken():
        assert chained.whole(x.to("meta")) is None
        torch.func.vmap(model)(x.unsqueeze(1))
        torch.export.export(model, (x,))
    assert not chained.chains()
    with chained.taken():
        assert chained.whole(x) is not None


@pytest.mark.parametrize("name", sorted(get_registry().names("objective")))
def test_the_gradient_of_every_objective_is_that_of_its_loss(name):
    objective = get_registry().create("objective", name, {})
    targets = {
        "int64": torch.randint(3, (6,)),
        "map": torch.randint(3, (6, 4, 4)),
        "float": torch.randn(6, 3),
        "hot": torch.randint(2, (6, 3)),
    }
    taken = next(each for each in targets.values() if objective.problem(each, 3) is None)
    shape = (6, *(size or 3 for size in objective.output_shape(taken, 3)))
    outputs = torch.randn(shape, dtype=torch.float64)
    leaf = outputs.clone().requires_grad_()
    expected = objective.loss(leaf, taken.double() if taken.is_floating_point() else taken)
    loss, gradient = objective.loss_and_gradient(outputs, taken.double() if taken.is_floating_point() else taken)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0], rtol=0, atol=TO_ROUNDING)
    assert not loss.requires_grad
    assert not gradient.requires_grad
