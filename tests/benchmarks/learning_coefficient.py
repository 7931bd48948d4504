"""Whether the local learning coefficient can be told of networks of this size: known answers, then cnn1d and its eFCNs on MNIST-1D.

Everything by the orthonormal coordinates ``n^(1/2) w``, in which a CNN and its eFCN compare.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import langevin
import torch
from langevin import Found, Potential, Sampling, deep_linear, linear_network, sample, truth
from largest_eigenvalue import trained
from measure import Table
from torch import nn

from anarch_core import relax
from anarch_core.curvature import HessianOperator, Risk, ScaledOperator, spectral_density
from anarch_core.curvature.lanczos import tridiagonal_matrix, tridiagonalise
from anarch_core.data import TensorData, load_data
from anarch_core.data.order import epoch_order
from anarch_core.probe import ParameterParts

LINEAR = [((5, 5, 5), 0), ((5, 5, 5), 2), ((8, 4, 6), 2), ((10, 6, 10), 3), ((5, 5, 5, 5), 2)]
LOCALISATIONS = (10.0, 100.0, 1000.0)
BATCH = 500
STEEP = 1e6 / math.log(1e6)


@attrs.frozen
class Choice:
    """Of chains that are not corrected: γ, ε, how long they burn in and count, and the size of batches, None for all samples."""

    localisation: float
    step: float
    burn_in: int
    steps: int
    batch: int | None = None


OF_STEPS_AND_BATCHES = (
    Choice(100, 1e-4, 100, 200), Choice(100, 4e-4, 100, 200), Choice(100, 1.6e-3, 100, 200), Choice(100, 1e-4, 100, 200, 500),
    Choice(100, 1e-4, 100, 200, 100),
)  # fmt: skip
HALVED = (Choice(1000, 2e-4, 60, 80), Choice(1000, 1e-4, 80, 80), Choice(100, 4e-4, 150, 100), Choice(100, 2e-4, 250, 100))


class Landscape:
    """The training loss around a network, by orthonormal coordinates.

    Attributes:
        risk: all of it.
        strength: n β = n / log n.
        scale: what a coordinate is multiplied by to be a weight, [P]; 0 for weights that nothing depends on.
        gradients: how many were taken.
    """

    def __init__(self, model: nn.Module, data: TensorData, samples: int | None = None) -> None:
        self.risk = Risk.of_training_set(model, data, samples)
        self.strength = self.risk.samples / math.log(self.risk.samples)
        parts = ParameterParts.of(model, self.risk.inputs[:1])
        named = zip(self.risk.names, self.risk.parameters, strict=True)
        self.scale = torch.cat([parts.scale.get(name, torch.ones_like(weight)).detach().flatten().to(weight) for name, weight in named])
        self.weights = torch.cat([weight.detach().flatten() for weight in self.risk.parameters])
        self.gradients = 0

    def move(self, place: torch.Tensor) -> None:
        """Set the network's weights."""
        with torch.no_grad():
            for weight, value in zip(
                self.risk.parameters, self.risk.views(self.weights + self.scale * place.to(self.weights)), strict=True
            ):
                weight.copy_(value)

    def whole(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradient over all samples."""
        return self._each(places, lambda: self._loss_and_slope(self.risk.inputs, self.risk.targets))

    def by_batches(self, size: int, seed: int = 0) -> Potential:
        """The loss over all samples beside the gradient over a few, drawn anew at every step."""
        generator = torch.Generator().manual_seed(seed)

        def batch() -> tuple[float, torch.Tensor]:
            rows = torch.randint(self.risk.samples, (size,), generator=generator)
            return self.risk.value(), self._loss_and_slope(self.risk.inputs[rows], self.risk.targets[rows])[1]

        return lambda places: self._each(places, batch)

    def _each(self, places: torch.Tensor, at: Callable[[], tuple[float, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Chains in turn; the network is left at its own weights."""
        losses, slopes = [], []
        for place in places:
            self.move(place)
            loss, slope = at()
            losses.append(loss)
            slopes.append(slope)
        self.gradients += len(places)
        self.move(torch.zeros_like(self.weights))
        return torch.tensor(losses, dtype=torch.float64), torch.stack(slopes)

    def _loss_and_slope(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, torch.Tensor]:
        total, slope = 0.0, torch.zeros_like(self.weights)
        with self.risk.measuring():
            for x, y in zip(torch.split(inputs, BATCH), torch.split(targets, BATCH), strict=True):
                loss = self.risk.loss(self.risk.model(x), y) * (len(x) / len(inputs))
                total += float(loss.detach())
                for part, term in zip(self.risk.views(slope), torch.autograd.grad(loss, self.risk.parameters), strict=True):
                    part.add_(term)
        return total, (self.scale * slope).double()

    def hessian(self) -> ScaledOperator:
        return ScaledOperator(HessianOperator(self.risk), self.scale)

    def sampled(self, how: Sampling, potential: Potential | None = None) -> Found:
        return sample(potential or self.whole, self.risk.size, how, moved=self.scale > 0)


def spectrum(landscape: Landscape, steps: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and how many there are of each, by two random vectors."""
    found = spectral_density(landscape.hessian(), generator=torch.Generator().manual_seed(0), probes=2, steps=steps)
    return found.nodes.flatten(), found.weights.flatten() / len(found.weights) * landscape.risk.size


def along_the_slope(landscape: Landscape, steps: int = 40) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Eigenvalues as the gradient at w* meets them, with its components along them, and its norm."""
    slope = landscape.whole(torch.zeros(1, landscape.risk.size, dtype=torch.float64))[1][0]
    norm = float(slope.norm())
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for alpha, beta in tridiagonalise(landscape.hessian(), (slope / norm).to(landscape.weights)):
        diagonal.append(alpha)
        if len(diagonal) == steps:
            break
        off_diagonal.append(beta)
    values, vectors = torch.linalg.eigh(tridiagonal_matrix(diagonal, off_diagonal[: len(diagonal) - 1]))
    return values, norm * vectors[0].abs(), norm


def row(name: str, known: float, found: Found) -> Sequence[str]:
    told = f"{found.value:.3f} ± {found.error:.3f}"
    acceptance = "" if found.acceptance is None else f"{found.acceptance:.2f}"
    return name, f"{known:.3f}", told, f"{found.value / known:.3f}", f"{found.r_hat:.3f}", acceptance


COLUMNS = ("", "known", "λ̂", "ratio", "R̂", "acceptance")


def known() -> Iterator[Table]:
    """Cases whose answer is known."""
    curvatures = torch.logspace(0, -4, 50, dtype=torch.float64)

    def bowl(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return place.square() @ curvatures / 2, place * curvatures

    rows = []
    how = Sampling(strength=482, localisation=100, step=1e-3, burn_in=1000, steps=5000)
    exact = langevin.quadratic(curvatures, 482, 100)
    rows.append(row("50 curvatures from 1 to 1e-4, γ = 100, corrected", exact, sample(bowl, 50, how)))
    for times in (0.5, 1.0, 2.0, 3.5):
        free = Sampling(strength=482, localisation=100, step=times / 582, burn_in=1000, steps=5000, corrected=False)
        biased = langevin.quadratic(curvatures, 482, 100, free.step) / exact
        rows.append(row(f"not corrected, ε a = {times:g}: predicted ratio {biased:.3f}", exact, sample(bowl, 50, free)))
    for name, potential, value, size in (
        ("w⁴", langevin.quartic, langevin.quartic_by_quadrature(1000, 1), 1),
        ("w₁² w₂²", langevin.crossing, langevin.crossing_by_quadrature(1000, 1), 2),
    ):
        for acceptance in (0.6, 0.9):
            singular = Sampling(strength=1000, localisation=1, step=1e-3, burn_in=1000, steps=10_000, chains=8, acceptance=acceptance)
            rows.append(row(f"{name}, fitted to acceptance {acceptance:g}", value, sample(potential, size, singular)))
    yield Table("regular and singular cases", COLUMNS, rows)
    rows = []
    for sizes, rank in LINEAR:
        factors = truth(sizes, rank, 0)
        for localisation in (1.0, 100.0):
            linear = Sampling(strength=STEEP, localisation=localisation, step=1e-5, burn_in=4000, steps=12_000, chains=8, acceptance=0.8)
            found = sample(linear_network(factors), sum(factor.numel() for factor in factors), linear)
            rows.append(row(f"{'-'.join(map(str, sizes))}, rank {rank}, γ = {localisation:g}", deep_linear(sizes, rank), found))
    yield Table("linear networks, n = 10⁶", COLUMNS, rows)


def networks(data: TensorData) -> Mapping[str, nn.Module]:
    """The CNN after 30 and 150 epochs, and eFCNs trained on for 100 epochs from the CNN as initialised and at these moments."""
    found: dict[str, nn.Module] = {}
    for epochs in (0, 30, 150):
        cnn = trained(data, epochs)
        if epochs:
            found[f"CNN, {epochs} epochs"] = cnn
        branch = relax(cnn, "efcn", example_input=data.x_train[:1]).model
        optimizer = torch.optim.SGD(branch.parameters(), lr=0.05)
        for epoch in range(100):
            for rows in torch.split(epoch_order(len(data.y_train), 0, epochs + epoch), 100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(branch(data.x_train[rows]), data.y_train[rows]).backward()
                optimizer.step()
        branch.zero_grad()
        found[f"eFCN, t_w = {epochs}"] = branch.eval()
    return found


def minima(landscapes: Mapping[str, Landscape]) -> Iterator[Table]:
    """Whether w* is a minimum, and what curvature and slope there would have λ̂ be."""
    states, scales = [], []
    for name, landscape in landscapes.items():
        values, counts = spectrum(landscape)
        along, components, norm = along_the_slope(landscape)
        lowest = min(float(values.min()), float(along.min()))
        reach = float((landscape.weights / landscape.scale.where(landscape.scale > 0, torch.inf)).norm())
        shown = (f"{landscape.risk.size:,}", f"{reach:.0f}", f"{landscape.risk.value():.2g}", f"{norm:.2g}")
        states.append((name, *shown, f"{float(values.max()):.2g}", f"{lowest:.1g}"))
        cells = []
        for localisation in LOCALISATIONS:
            if landscape.strength * lowest + localisation <= 0:
                cells.append("not bounded")
                continue
            share = landscape.strength * values / (landscape.strength * values + localisation)
            slope = langevin.sloping(along, components, landscape.strength, localisation)
            cells.append(f"{float((counts * share).sum()) / 2:.1f} − {-slope:.1f}")
        scales.append((name, *cells))
    yield Table("is w* a minimum?", ("", "parameters", "norm", "loss", "gradient", "largest curvature", "smallest"), states)
    yield Table("λ of the quadratic model, by γ: curvature, and slope", ("", *(f"γ = {each:g}" for each in LOCALISATIONS)), scales)


def corrected(name: str, landscape: Landscape, steps: int, localisations: Sequence[float] = LOCALISATIONS[1:]) -> Table:
    """What chains say of a network."""
    rows = []
    for localisation in localisations:
        begun, before = time.process_time(), landscape.gradients
        how = Sampling(
            strength=landscape.strength, localisation=localisation, step=1e-4, burn_in=steps // 2, steps=steps, chains=2, acceptance=0.7
        )
        found = landscape.sampled(how)
        spent = f"{landscape.gradients - before} in {time.process_time() - begun:.0f} s"
        rows.append((f"γ = {localisation:g}", *_told(found), f"{found.r_hat:.2f}", f"{found.step:.1e}", spent))
    return Table(f"{name}: λ̂ by corrected chains", ("", "λ̂", "second half", "R̂", "ε", "gradients, CPU"), rows)


def uncorrected(name: str, landscape: Landscape, choices: Sequence[Choice]) -> Table:
    """What chains say that take every step."""
    rows = []
    for choice in choices:
        begun = time.process_time()
        how = Sampling(
            strength=landscape.strength, localisation=choice.localisation, step=choice.step, burn_in=choice.burn_in, steps=choice.steps,
            chains=2, corrected=False,
        )  # fmt: skip
        found = landscape.sampled(how, None if choice.batch is None else landscape.by_batches(choice.batch))
        gradients = f"all {landscape.risk.samples:,} samples" if choice.batch is None else f"batches of {choice.batch}"
        spent = f"{how.chains * (how.burn_in + how.steps)} in {time.process_time() - begun:.0f} s"
        rows.append((f"γ = {choice.localisation:g}, ε = {choice.step:g}, {gradients}", *_told(found), f"{found.r_hat:.2f}", spent))
    return Table(f"{name}: λ̂ by chains that are not corrected", ("", "λ̂", "second half", "R̂", "gradients, CPU"), rows)


def _told(found: Found) -> tuple[str, str]:
    """The number with its error, and how much larger it is in the second half of all chains than in the first."""
    half = found.trace.shape[1] // 2
    return f"{found.value:.1f} ± {found.error:.1f}", f"{found.trace[:, half:].mean() - found.trace[:, :half].mean():+.1f}"


def tables() -> Iterator[Table]:
    """Known answers, then networks."""
    yield from known()
    data = load_data("mnist1d")
    landscapes = {name: Landscape(model, data) for name, model in networks(data).items()}
    yield from minima(landscapes)
    for name in ("CNN, 150 epochs", "eFCN, t_w = 150"):
        yield corrected(name, landscapes[name], 300)
    yield uncorrected("CNN, 150 epochs", landscapes["CNN, 150 epochs"], OF_STEPS_AND_BATCHES)
    for name in ("eFCN, t_w = 30", "eFCN, t_w = 150"):
        yield uncorrected(name, landscapes[name], HALVED)
