"""What networks, layers, optimizers and those who watch them may do while small layers are trained as chains."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.checkpoint import checkpoint

from anarch_core.objective import CrossEntropy
from anarch_core.relaxation.verbs import relax
from anarch_core.training.chained import Chained
from anarch_core.training.loop import Training

TO_ROUNDING = 1e-10
SAMPLES, BATCH, STEPS = 24, 8, 3

Change = Callable[[nn.Sequential], object]


@pytest.fixture(scope="module")
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 2, 9, generator=generator, dtype=torch.float64), torch.randint(5, (SAMPLES,), generator=generator)


def network(relaxation: str | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.Tanh()),
        nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 5),
    ).double()  # fmt: skip
    return model if relaxation is None else relax(model, relaxation, example_input=torch.zeros(2, 2, 9).double()).model


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)


def training(model: nn.Module, samples, *, chained: bool, optimizer=sgd, **settings) -> Training:
    x, y = samples
    made = optimizer(model)
    return Training(
        model=model, optimizer=made, x=x, y=y, batch_size=BATCH, seed=3, learning_rate=lambda step: 0.2, chained=chained, **settings
    )


def both(make: Callable[[], nn.Module], samples, **settings) -> list[Training]:
    """The same network layer by layer and in chains."""
    return [training(make(), samples, chained=chained, **settings) for chained in (False, True)]


def assert_alike(ordinary: Training, chained: Training) -> None:
    expected, found = ordinary.model.state_dict(), chained.model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=TO_ROUNDING, msg=lambda text, name=name: f"{name}: {text}")


def changed(change: Change, relaxation: str | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = network(relaxation)
        change(model)
        return model

    return make


def hold_fast(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)


def weights_of_the_head_to_zero(model: nn.Sequential) -> None:
    model[4].weight.register_hook(lambda gradient: gradient * (torch.arange(36) % 2))


def gradients_after_they_are_there(model: nn.Sequential) -> None:
    def clamp(weight: torch.Tensor) -> None:
        weight.grad.clamp_(-1e-3, 1e-3)

    model[6].weight.register_post_accumulate_grad_hook(clamp)


def tie(model: nn.Sequential) -> None:
    model.append(nn.ReLU())
    model.append(nn.Linear(5, 5).double())
    model.append(nn.ReLU())
    model.append(nn.Linear(5, 5).double())
    model[-1].weight = model[-3].weight


CHANGES: dict[str, Change] = {
    "held fast": hold_fast,
    "a hook on a weight": weights_of_the_head_to_zero,
    "a hook on a gradient": gradients_after_they_are_there,
    "one weight of two layers": tie,
    "weight norm": lambda model: parametrizations.weight_norm(model[4]),
    "spectral norm": lambda model: parametrizations.spectral_norm(model[0]),
    "pruned": lambda model: prune.random_unstructured(model[0], "weight", amount=0.5),
    "bias pruned": lambda model: prune.random_unstructured(model[4], "bias", amount=0.5),
    "bias that is no parameter": lambda model: (delattr(model[4], "bias"), model[4].register_buffer("bias", torch.ones(6).double())),
    "evaluation mode": lambda model: model[2].eval(),
    "a sequential of one's own": lambda model: setattr(model[2], "__class__", type("Own", (nn.Sequential,), {})),
    "a doubled output": lambda model: model.register_forward_hook(lambda module, args, output: 2 * output),
    "a doubled output inside": lambda model: model[2].register_forward_hook(lambda module, args, output: 2 * output),
    "a gradient changed on the way": lambda model: model[2].register_full_backward_hook(lambda module, gx, gy: (2 * gx[0],)),
}

OTHER_PARAMETERS = {"weight norm", "spectral norm", "pruned", "bias pruned", "one weight of two layers"}
"""Which an optimizer would have to be told."""


@pytest.mark.parametrize("relaxation", [None, "lcn"])
@pytest.mark.parametrize("name", CHANGES)
def test_before_it_is_trained(samples, name, relaxation):
    if relaxation is not None and name == "spectral norm":
        pytest.skip("of a convolution")
    ways = both(changed(CHANGES[name], relaxation), samples)
    for way in ways:
        torch.manual_seed(1)
        way.advance(STEPS)
    assert_alike(*ways)


@pytest.mark.parametrize("relaxation", [None, "lcn"])
@pytest.mark.parametrize("name", [name for name in CHANGES if name not in OTHER_PARAMETERS])
def test_in_the_middle_of_training(samples, name, relaxation):
    ways = both(lambda: network(relaxation), samples)
    for way in ways:
        way.advance(1)
        assert bool(way.chains) == way.chained
        CHANGES[name](way.model)
        way.advance(STEPS)
    assert_alike(*ways)


def test_a_parametrized_layer_of_the_lattice(samples):
    def make() -> nn.Module:
        model = network("lcn")
        nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Tanh())
        return model

    ways = both(make, samples)
    for way in ways:
        way.advance(STEPS)
    assert_alike(*ways)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*weight_norm:DeprecationWarning")
def test_weights_that_hooks_compute(samples):
    ways = both(changed(lambda model: weight_norm(model[4])), samples)
    for way in ways:
        way.advance(STEPS)
    assert_alike(*ways)


def test_layers_that_become_known_when_they_are_called(samples):
    def make() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.LazyConv1d(3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).double()
        model(samples[0][:2])
        return model

    ways = both(make, samples)
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


def test_settings_and_modules_that_become_others(samples):
    ways = both(network, samples)
    for way in ways:
        way.advance(1)
        way.model[0].padding, way.model[0].dilation = (2,), (2,)
        way.model[1] = nn.Tanh()
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


class Ascending(torch.optim.Optimizer):
    """Puts new memory in the place of its parameters at every step, as optimizers that step aside and back do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data = weight.data - group["lr"] * weight.grad


def test_an_optimizer_that_replaces_the_memory_of_weights(samples):
    ways = both(network, samples, optimizer=Ascending)
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


class Tied(nn.Module):
    """A layer whose weight is used by others, too: in operations that nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x):
        y = self.body(x)
        return y + (y.detach() @ self.body[6].weight) @ self.body[6].weight.t() + self.body[0].weight.sum()


def test_weights_that_others_use_as_well(samples):
    ways = both(Tied, samples)
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


class Recomputing(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.body, self.norm, self.reentrant = network(), nn.BatchNorm1d(5).double(), reentrant

    def forward(self, x):
        return checkpoint(lambda x: self.norm(self.body(x)), x.requires_grad_(), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_are_computed_again_on_the_way_back(samples, reentrant):
    ways = both(lambda: Recomputing(reentrant=reentrant), samples)
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


class WithATeacher(nn.Module):
    """A pass under inference mode before the one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x):
        with torch.inference_mode():
            offset = self.body(x).mean()
        return self.body(x) + offset.item()


def test_passes_in_inference_mode(samples):
    ways = both(WithATeacher, samples)
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


class Failing(CrossEntropy):
    """Fails once."""

    failed = False

    def loss(self, outputs, targets, reduction="mean"):
        if not self.failed:
            self.failed = True
            msg = "for once"
            raise ValueError(msg)
        return super().loss(outputs, targets, reduction)


@pytest.mark.parametrize("make", [network, Tied])
def test_a_step_after_one_that_failed(samples, make):
    ways = []
    for chained in (False, True):
        ways.append(training(make(), samples, chained=chained, objective=Failing()))
        with pytest.raises(ValueError, match="for once"):
            ways[-1].advance(1)
        ways[-1].advance(STEPS)
    assert not any("forward" in vars(module) for module in ways[1].model.modules())
    assert_alike(*ways)


class Sharper(CrossEntropy):
    """Another loss than the one whose gradient it would inherit."""

    def loss(self, outputs, targets, reduction="mean"):
        return super().loss(3 * outputs, targets, reduction)


def test_an_objective_that_overrides_the_loss_alone(samples):
    ways = both(network, samples, objective=Sharper())
    for way in ways:
        way.advance(STEPS)
    assert ways[1].chains
    assert_alike(*ways)


def test_gradients_by_inputs(samples):
    model, x = network(), samples[0][:4].clone().requires_grad_()
    expected = torch.autograd.grad(model(x).square().sum(), x)[0]
    chained = Chained(model)
    with chained.taken():
        assert chained.whole(x) is None
        found = torch.autograd.grad(model(x).square().sum(), x)[0]
        assert chained.chains()
    torch.testing.assert_close(found, expected, rtol=0, atol=TO_ROUNDING)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copied", "pickled"])
def test_copies_of_a_network_in_the_middle_of_a_step(samples, copied):
    model, x = network(), samples[0][:4]
    chained = Chained(model)
    with chained.taken():
        model(x)
        twin = copied(model)
    expected = model(x)
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=TO_ROUNDING)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert not twin(x).any()


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_numbers_go_layer_by_layer(samples, dtype):
    model = nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 5)).to(dtype)
    x = samples[0][:4, 0].to(dtype)
    chained = Chained(model)
    with chained.taken():
        assert chained.whole(x) is None
        assert torch.equal(model(x), model[2](model[1](model[0](x))))
    assert not chained.chains()


def test_inputs_of_another_type_than_the_weights_are_refused_as_ever(samples):
    model = network()
    with Chained(model).taken(), pytest.raises(RuntimeError, match=r"(?i)type"):
        model(samples[0].float())
