"""Terms beside the loss: against references written by hand, and their part in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.data.order import epoch_order
from anarch_core.errors import CheckpointError, ConfigError, PenaltyError, PluginError, SurgeryError
from anarch_core.layers import LatticeLayer, RelaxedLayer, ReparametrisedLayer
from anarch_core.relaxation import relax
from anarch_core.training import AbstractPenalty, PartSquare, Penalties, Progress, Term
from anarch_core.training.loop import Training
from anarch_core.training.precision import matmul_precision

SAMPLES, BATCH, STEPS_PER_EPOCH = 40, 8, 5


def network(relaxation: str = "efcn", *, moved: bool = True, dtype: torch.dtype = torch.float32, padding: str = "zeros") -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv1d(2, 4, 3, padding=1, groups=2, padding_mode=padding)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).to(dtype)
    relaxed = relax(model, relaxation, example_input=torch.zeros(2, 2, 8, dtype=dtype)).model
    if moved:
        with torch.no_grad():
            for parameter in relaxed.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return relaxed


class Pull(AbstractPenalty):
    """Half the squared norm of the off-local part times a number that it counts up itself."""

    def __init__(self, options: float = 1.0) -> None:
        super().__init__(options)
        self.count = torch.zeros((), dtype=torch.float64)

    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        self.count.add_(self.options)
        for path, layer in layers.items():
            square = PartSquare.of(layer, ("off-local", "unshared"), path)
            gradients = {name: gradient * float(self.count) for name, gradient in square.gradients.items()}
            yield Term(path, sum(square.squares.values()) * float(self.count) / 2, gradients)

    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        return {"count": float(self.count)}

    def state(self) -> dict[str, torch.Tensor]:
        return {"count": self.count}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.count = tensors["count"].clone()


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SAMPLES, 2, 8, generator=generator), torch.randint(3, (SAMPLES,), generator=generator)


def training(
    model: nn.Module, penalties: dict[str, AbstractPenalty], *, optimizer: torch.optim.Optimizer | None = None, **more: object
) -> Training:
    x, y = data()
    return Training(
        model=model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
        x=x,
        y=y,
        batch_size=BATCH,
        seed=3,
        learning_rate=lambda _: 0.1,
        penalties=Penalties(penalties, model, 3 * STEPS_PER_EPOCH, STEPS_PER_EPOCH),
        **more,
    )


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_the_square_of_the_parts_is_that_of_the_drift(relaxation, padding):
    layer = network(relaxation, dtype=torch.float64, padding=padding)[0]
    drift = layer.drift()
    for parts, expected in ((("unshared",), drift.unshared), (("off-local",), drift.off_local), (("shared",), drift.shared)):
        assert PartSquare.of(layer, parts).drifting.item() == pytest.approx(expected, abs=1e-12)
    both = PartSquare.of(layer, ("unshared", "off-local"))
    assert both.drifting.item() == pytest.approx(drift.unshared + drift.off_local)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_its_gradient_is_that_of_half_the_squared_norm_of_the_matrix(relaxation, padding):
    layer = network(relaxation, dtype=torch.float64, padding=padding)[0]
    square = PartSquare.of(layer, ("unshared", "off-local"))
    basis = torch.eye(16, dtype=torch.float64).reshape(16, 2, 8)

    def matrix(module: nn.Module) -> torch.Tensor:
        """Rows: outputs for each input, less the bias; the outputs for no input, which are the bias."""
        nothing = module(torch.zeros_like(basis[:1]))
        return torch.cat([(module(basis) - nothing).flatten(), nothing.flatten()])

    rest = matrix(layer) - matrix(layer.project()).detach()  # the projection is a constant: the rest is at right angles to it
    (rest.square().sum() / 2).backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(square.gradients[name], parameter.grad, atol=1e-10, rtol=1e-10)
    assert sum(square.squares.values()).item() == pytest.approx(rest.square().sum().item())


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_is_that_of_the_loss_and_the_term_together(clip_norm, momentum):
    model, expected = network(), network()
    settings = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01}
    under_way = training(model, {"pull": Pull()}, optimizer=torch.optim.SGD(model.parameters(), **settings), clip_norm=clip_norm)
    under_way.advance(STEPS_PER_EPOCH)
    (x, y), optimizer = data(), torch.optim.SGD(expected.parameters(), **settings)
    losses, values = [], []
    for step, rows in enumerate(torch.split(epoch_order(SAMPLES, 3, 0), BATCH)):
        optimizer.zero_grad()
        loss = cross_entropy(expected(x[rows]), y[rows])
        layer, near = expected[0], network("efcn", moved=False)[0]
        with torch.no_grad():
            for name, parameter in near.named_parameters():
                parameter.copy_(layer.keep(dict(layer.named_parameters())[name], ("shared",), name))
        term = sum((a - b.detach()).square().sum() / 2 for a, b in zip(layer.parameters(), near.parameters(), strict=True))
        (loss + (step + 1) * term).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(expected.parameters(), clip_norm)
        optimizer.step()
        losses.append(loss.item())
        values.append((step + 1) * term.item())
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    score = under_way.end_epoch()
    assert score.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5), "the loss that is told is that of the objective alone"
    assert under_way.penalised == {"pull.value": pytest.approx(sum(values) / len(values), rel=1e-5), "pull.count": 5.0}


def test_what_is_taken_up_again_comes_to_the_same_bits():
    whole = training(network(), {"pull": Pull(0.5)})
    half = training(network(), {"pull": Pull(0.5)})
    for _ in range(2):
        whole.advance(whole.iteration + STEPS_PER_EPOCH)
        whole.end_epoch()
    half.advance(STEPS_PER_EPOCH)
    half.end_epoch()
    half.advance(STEPS_PER_EPOCH + 2)
    tensors, metadata = half.state()
    resumed = training(network(moved=False), {"pull": Pull(0.5)})
    resumed.load_state({name: tensor.clone() for name, tensor in tensors.items()}, metadata)
    resumed.advance(2 * STEPS_PER_EPOCH)
    resumed.end_epoch()
    assert resumed.penalised == whole.penalised
    assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


def test_a_state_without_the_penalty_is_refused():
    tensors, metadata = training(network(), {}).state()
    with pytest.raises(CheckpointError, match="nothing of the penalty 'pull'"):
        training(network(), {"pull": Pull()}).load_state(tensors, metadata)


def test_a_network_without_relaxed_layers_is_trained_as_without_penalties():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(24, 3))
    assert not Penalties({"pull": Pull()}, plain, 10)
    under_way = training(plain, {"pull": Pull()})
    under_way.advance(STEPS_PER_EPOCH)
    under_way.end_epoch()
    assert under_way.penalised == {}
    assert not any(name.startswith("penalty") for name in under_way.state()[0])


def test_weights_that_are_not_trained_are_left_alone():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    training(model, {"pull": Pull()}).advance(2)
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("1", torch.zeros(()), {}), "expected a Term of one of the layers '0'"),
        (3, "yielded 3, expected a Term"),
        (Term("0", torch.zeros(()), {"weights": torch.zeros(1)}), "'weights' of '0', which has no such parameter"),
        (Term("0", torch.zeros(()), {"bias": torch.zeros(1)}), r"gradient \(1,\) for 'bias' of '0', which has a parameter of shape"),
    ],
)
def test_what_is_no_term_of_a_layer_is_refused(term, message):
    class Wrong(AbstractPenalty):
        def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
            yield term

    with pytest.raises(PluginError, match=message):
        Penalties({"wrong": Wrong(None)}, network(), 10).add_gradients(0)


def test_what_a_penalty_raises_is_told_as_its_own():
    class Wrong(AbstractPenalty):
        def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
            yield Term("0", layers["0"].nothing, {})

    with pytest.raises(PluginError, match=r"Wrong: AttributeError: .*nothing"):
        Penalties({"wrong": Wrong(None)}, network(), 10).add_gradients(0)


class Factors(ReparametrisedLayer):
    """Parameters that are not weights."""

    relaxation = "factors"

    def __init__(self, layer: LatticeLayer) -> None:
        super().__init__(layer.geometry)
        self.inner = layer

    def lattice(self) -> LatticeLayer:
        return self.inner

    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    def reset_parameters(self) -> None:
        raise NotImplementedError

    def linear_map(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_layer_whose_parameters_are_no_weights_is_refused_by_name():
    with pytest.raises(PenaltyError, match=r"of features\.0: the parameters of factors are not weights"):
        PartSquare.of(Factors(network()[0]), ("off-local",), "features.0")


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_parts_that_a_layer_cannot_hold_alone_are_refused_alone_and_right_together(padding):
    layer = network("shared", dtype=torch.float64, padding=padding)[0]
    drift = layer.drift()
    assert drift.unshared > 0.01, "what lies in the receptive fields is not all shared, and off-local weights reach into them"
    for alone in ("unshared", "off-local"):
        with pytest.raises(PenaltyError, match=r"off-local part of features\.0 alone: .* padding lets some of them meet .* hold both"):
            PartSquare.of(layer, (alone,), "features.0")
    both = PartSquare.of(layer, ("unshared", "off-local"))
    assert both.drifting.item() == pytest.approx(drift.unshared + drift.off_local)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled"])
def test_other_layers_tell_parts_apart_whatever_the_padding(relaxation):
    layer = network(relaxation, dtype=torch.float64, padding="reflect")[0]
    drift = layer.drift()
    assert PartSquare.of(layer, ("unshared",)).drifting.item() == pytest.approx(drift.unshared)
    assert PartSquare.of(layer, ("off-local",)).drifting.item() == pytest.approx(drift.off_local)


def test_a_layer_that_says_it_has_no_parts_is_refused_by_name(monkeypatch):
    def keep(*arguments: object) -> None:
        raise SurgeryError("the nearest is not known")

    layer = network()[0]
    monkeypatch.setattr(type(layer), "keep", keep)
    with pytest.raises(PenaltyError, match=r"no penalty on parts of features\.0: the nearest is not known; leave the penalty out"):
        PartSquare.of(layer, ("off-local",), "features.0")


def test_a_ramp_goes_from_its_start_to_its_end():
    def at(iteration: int, kind: str, **more: str) -> float:
        return Progress(iteration=iteration, iterations=41, iterations_per_epoch=10).ramp(kind, 1.0, 3.0, **more)

    assert [at(i, "linear") for i in (0, 10, 20, 40, 50)] == [1.0, 1.5, 2.0, 3.0, 3.0]
    assert [at(i, "cosine") for i in (0, 20, 40)] == pytest.approx([1.0, 2.0, 3.0])
    assert at(10, "cosine") == pytest.approx(1 + 2 * (1 - 0.5**0.5) / 2)
    assert [at(i, "constant") for i in (0, 40)] == [3.0, 3.0]
    assert [at(i, "constant", begins="2ep") for i in (0, 19, 20, 40)] == [1.0, 1.0, 3.0, 3.0]
    assert [at(i, "linear", begins="1ep", ends="30it") for i in (0, 10, 20, 30, 40)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert [at(i, "linear", begins="3ep", ends="1ep") for i in (0, 29, 30)] == [1.0, 1.0, 3.0], "a ramp of no length is a step"
    assert Progress(iteration=0, iterations=1).ramp("linear", 1.0, 3.0) == 3.0
    with pytest.raises(ConfigError, match="soon"):
        at(0, "linear", begins="soon")


def test_the_term_is_taken_in_full_precision_whatever_the_products_are():
    found = []

    class Looking(Pull):
        def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
            found.append((torch.backends.cuda.matmul.allow_tf32, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            yield from super().terms(layers, progress)

    under_way = training(network(), {"looking": Looking()}, precision="bfloat16")
    with matmul_precision("tf32"):
        under_way.advance(1)
    assert found == [(False, False, False)]
