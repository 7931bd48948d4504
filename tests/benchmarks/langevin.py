"""The local learning coefficient by Langevin dynamics: the chains, and what is known of some of their answers.

``λ(w*) = n β E[L(w) − L(w*)]`` over ``exp(−n β L(w) − γ/2 |w − w*|²)``, β = 1/log n (Lau, Furman, Wang, Murfet, Wei 2023,
arXiv 2308.12108).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import torch

Potential = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Positions relative to w*, [chains, P] -> the loss L, [chains], and its gradient, [chains, P]; float64."""


@attrs.frozen(kw_only=True)
class Sampling:
    """How chains are run.

    Attributes:
        strength: n β, which multiplies the loss.
        localisation: γ.
        step: ε; of a corrected chain the first one, which is fitted to the acceptance while it burns in.
        burn_in: steps that are left out.
        steps: those that count.
        chains: all from w*.
        acceptance: that the step of corrected chains is fitted to.
        corrected: accept or reject every step by Metropolis' rule (MALA), so that no step size has a bias; otherwise Langevin dynamics as
            it is (SGLD where gradients are those of batches).
        seed: of the noise.
    """

    strength: float
    localisation: float
    step: float
    burn_in: int
    steps: int
    chains: int = 4
    acceptance: float = 0.6
    corrected: bool = True
    seed: int = 0


@attrs.frozen(kw_only=True)
class Found:
    """What chains say.

    Attributes:
        trace: n β (L − L*), [chains, steps].
        acceptance: mean probability, None of chains that were not corrected.
        step: ε at the end.
    """

    trace: np.ndarray
    acceptance: float | None
    step: float

    @property
    def value(self) -> float:
        return float(self.trace.mean())

    @property
    def error(self) -> float:
        """Standard error, of as many independent samples as the trace is worth."""
        return float(self.trace.std() / math.sqrt(effective_samples(self.trace)))

    @property
    def r_hat(self) -> float:
        """Gelman and Rubin's, of halves of chains, which a trend gives away too."""
        half = self.trace.shape[1] // 2
        halves = np.concatenate([self.trace[:, :half], self.trace[:, -half:]])
        within, between = halves.var(1, ddof=1).mean(), halves.mean(1).var(ddof=1)
        return math.sqrt((half - 1) / half + between / within)


def effective_samples(trace: np.ndarray) -> float:
    """Of all chains together, by Geyer's initial positive sequence about the mean of all."""
    chains, steps = trace.shape
    centred = trace - trace.mean()
    spectrum = np.fft.rfft(centred, 2 * steps, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * steps, axis=1)[:, :steps].mean(0)
    time = -1.0
    for first, second in zip(covariance[::2], covariance[1::2], strict=False):
        if first + second <= 0:
            break
        time += 2 * float(first + second) / float(covariance[0])
    return chains * steps / max(time, 1.0)


def sample(potential: Potential, size: int, how: Sampling, moved: torch.Tensor | None = None) -> Found:
    """Run chains.

    Args:
        potential: the loss.
        size: number of parameters P.
        how: as said.
        moved: 1 for parameters that take part, 0 for others, [P]; all of them if None.
    """
    generator = torch.Generator().manual_seed(how.seed)
    mask = torch.ones(size, dtype=torch.float64) if moved is None else moved.double()
    place = torch.zeros(how.chains, size, dtype=torch.float64)
    loss, slope = potential(place)
    start, step = loss.clone(), how.step
    trace, accepted = [], []
    for number in range(how.burn_in + how.steps):
        drift = how.strength * slope + how.localisation * place
        noise = torch.randn(place.shape, generator=generator, dtype=torch.float64) * mask
        there = place - step / 2 * drift + math.sqrt(step) * noise
        loss_there, slope_there = potential(there)
        if how.corrected:
            back = place - there + step / 2 * (how.strength * slope_there + how.localisation * there)
            gain = (
                how.strength * (loss - loss_there)
                + how.localisation / 2 * (place.square().sum(1) - there.square().sum(1))
                + noise.square().sum(1) / 2
                - back.square().sum(1) / (2 * step)
            )
            chance = gain.nan_to_num(-math.inf).clamp(max=0).exp()
            taken = torch.rand(how.chains, generator=generator, dtype=torch.float64) < chance
            place = torch.where(taken[:, None], there, place)
            slope = torch.where(taken[:, None], slope_there, slope)
            loss = torch.where(taken, loss_there, loss)
            accepted.append(float(chance.mean()))
            if number < how.burn_in:
                step *= math.exp((accepted[-1] - how.acceptance) * min(0.5, 5 / (number + 1)))
        else:
            place, loss, slope = there, loss_there, slope_there
        trace.append((how.strength * (loss - start)).numpy())
    acceptance = float(np.mean(accepted[how.burn_in :])) if how.corrected else None
    return Found(trace=np.stack(trace[how.burn_in :], 1), acceptance=acceptance, step=step)


def quadratic(curvatures: torch.Tensor, strength: float, localisation: float, step: float = 0.0) -> float:
    """Exact, for ``L = ½ Σ h_i w_i²``: ``½ Σ nβh_i / a_i`` with a_i = nβ h_i + γ.

    Chains of step ε that are not corrected have variances ``1 / (a_i (1 − ε a_i / 4))``, as their steps contract by ``1 − ε a_i / 2``.
    """
    stiffness = strength * curvatures + localisation
    return float((strength * curvatures / (stiffness * (1 - step * stiffness / 4))).sum() / 2)


def sloping(curvatures: torch.Tensor, slopes: torch.Tensor, strength: float, localisation: float) -> float:
    """What slopes g_i at w* add to it: ``−Σ (nβ g_i)² (1/a_i − nβ h_i / 2a_i²)``; w* is no minimum."""
    stiffness = strength * curvatures + localisation
    return -float(((strength * slopes) ** 2 * (1 / stiffness - strength * curvatures / (2 * stiffness**2))).sum())


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> float:
    """Learning coefficient of a linear network of two layers whose truth has that rank (Aoyagi and Watanabe 2005)."""
    if inputs + outputs < hidden + rank:
        return inputs * outputs / 2
    if inputs + hidden < outputs + rank:
        return (hidden * inputs - hidden * rank + outputs * rank) / 2
    if outputs + hidden < inputs + rank:
        return (hidden * outputs - hidden * rank + inputs * rank) / 2
    odd = (inputs + hidden + outputs + rank) % 2
    return (2 * (hidden + rank) * (inputs + outputs) - (inputs - outputs) ** 2 - (hidden + rank) ** 2 + odd) / 8


def deep_linear(sizes: Sequence[int], rank: int) -> float:
    """That of a linear network of any depth (Aoyagi 2024, Theorem 1), written another way.

    Args:
        sizes: of the input, of every layer, and of the output.
        rank: of the truth.
    """
    excess = sorted(size - rank for size in sizes)
    for count in range(2, len(sizes) + 1):
        taken, depth = excess[:count], count - 1
        total = sum(taken)
        if taken[-1] * depth <= total and (count == len(sizes) or excess[count] * depth >= total):
            above = total - (math.ceil(total / depth) - 1) * depth
            pairs = (total**2 - sum(size**2 for size in taken)) / 2
            regular = rank * (sizes[0] + sizes[-1] - rank) / 2
            return regular + above * (depth - above) / (4 * depth) - (depth - 1) * total**2 / (4 * depth) + pairs / 2
    msg = f"no layers of {sizes} bound those of rank {rank}"
    raise ValueError(msg)


def truth(sizes: Sequence[int], rank: int, seed: int) -> list[torch.Tensor]:
    """Factors of a linear network, each of that rank and with singular values 1: the most singular of all that make the same matrix."""
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0][:, :rank] for size in sizes]
    return [after @ before.T for before, after in itertools.pairwise(frames)]


def linear_network(factors: Sequence[torch.Tensor]) -> Potential:
    """Half the squared distance of the product of all layers from that of the factors: inputs are white, and there are all of them."""
    target = product(list(factors))
    flat = torch.cat([factor.flatten() for factor in factors])

    def potential(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = torch.split(place + flat, [factor.numel() for factor in factors], dim=1)
        layers = [part.view(-1, *factor.shape) for part, factor in zip(parts, factors, strict=True)]
        error = product(layers) - target
        slopes = []
        for index in range(len(layers)):
            back = error if index + 1 == len(layers) else product(layers[index + 1 :]).mT @ error
            slopes.append((back if index == 0 else back @ product(layers[:index]).mT).flatten(1))
        return error.square().sum((1, 2)) / 2, torch.cat(slopes, 1)

    return potential


def product(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of matrices, the first applied first."""
    made = layers[0]
    for layer in layers[1:]:
        made = layer @ made
    return made


def quartic(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``w⁴``, coefficient 1/4."""
    return place[:, 0] ** 4, 4 * place**3


def crossing(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``w₁² w₂²``, coefficient 1/2 and multiplicity 2."""
    return place.square().prod(1), 2 * place * place.flip(1) ** 2


def quartic_by_quadrature(strength: float, localisation: float) -> float:
    """The expectation over localised w⁴ itself, at this n."""
    grid = np.linspace(-12, 12, 200_001) * min(strength**-0.25, localisation**-0.5)
    energy = strength * grid**4
    weight = np.exp(-energy - localisation / 2 * grid**2)
    return float((energy * weight).sum() / weight.sum())


def crossing_by_quadrature(strength: float, localisation: float) -> float:
    """That over w₁² w₂²: Gaussian in one of them, and a sum over the logarithm of the other."""
    first = np.exp(np.linspace(-45, 5, 100_001)) / math.sqrt(localisation)
    stiffness = 2 * strength * first**2 + localisation
    weight = first * np.exp(-localisation / 2 * first**2) / np.sqrt(stiffness)
    return float((weight * (strength * first**2 / stiffness)).sum() / weight.sum())
