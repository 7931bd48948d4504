"""Curvature of small networks of every kind beside the dense float64 matrices, worked out another way."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import torch
from campaign import Campaign, Try
from torch import nn
from torch.func import functional_call, grad, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from anarch_core.data import TensorData
from anarch_core.probe import Measurement, ProbeContext
from anarch_plugins.probes.hessian.options import HessianOptions
from anarch_plugins.probes.hessian.probe import HessianProbe

LOST = 1e-5
"""What float32 may lose of the norm of a matrix on the way from weights to curvature, beyond any bound."""
CONVERGED = 0.1
"""Relative error bound of what is called converged by default, and so the error that it may have."""


@attrs.frozen(kw_only=True)
class Problem:
    """A network, its samples and how they are measured."""

    network: str
    act: str
    seed: int
    dtype: torch.dtype
    samples: int
    classes: int
    scale: float
    steps: int
    damage: str
    top_k: int
    batches: int

    def __str__(self) -> str:
        """All that it takes to make it again."""
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.network} {self.act} {self.damage}, {dtype}, seed {self.seed}, {self.samples} samples of {self.classes} classes times "
            f"{self.scale:g} in {self.batches} batches, {self.steps} steps, top {self.top_k}"
        )


class Attending(nn.Module):
    """A sequence read by a transformer's layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 12] -> [n, classes]."""
        return self.head(self.layer(x.unflatten(1, (3, 4))).mean(1))


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid, "leaky": nn.LeakyReLU, "softplus": nn.Softplus,
}  # fmt: skip
NETWORKS: Mapping[str, Callable[[Callable[[], nn.Module], int], nn.Module]] = {
    "perceptron": lambda act, classes: nn.Sequential(nn.Linear(12, 8), act(), nn.Linear(8, classes)),
    "deep": lambda act, classes: nn.Sequential(
        nn.Linear(12, 7), act(), nn.Linear(7, 7), act(), nn.Linear(7, 7), act(), nn.Linear(7, classes)
    ),
    "linear": lambda act, classes: nn.Linear(12, classes),
    "conv1d": lambda act, classes: nn.Sequential(
        nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 4, 3, padding=1), act(), nn.Conv1d(4, 3, 3, stride=2), act(), nn.Flatten(),
        nn.Linear(15, classes),
    ),
    "conv2d": lambda act, classes: nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 5, 2), act(), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(10, classes)
    ),
    "norm": lambda act, classes: nn.Sequential(
        nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), act(), nn.Flatten(), nn.Linear(40, classes)
    ),
    "attention": lambda act, classes: Attending(classes),
}  # fmt: skip


def problems(random: Random) -> Iterator[Problem]:
    """Without end; every network is met in turn."""
    for network in itertools.cycle(NETWORKS):
        yield Problem(
            network=network,
            act=random.choice(list(ACTIVATIONS)),
            seed=random.randrange(10**6),
            dtype=random.choice([torch.float32, torch.float64]),
            samples=random.choice([5, 20, 60]),
            classes=random.choice([2, 3, 5]),
            scale=random.choice([0.1, 1.0, 1.0, 10.0]),
            steps=random.choice([0, 20, 150]),
            damage=random.choice(["", "", "dead", "twins", "near twins", "zero"]),
            top_k=random.choice([1, 3, 6]),
            batches=random.choice([1, 1, 3]),
        )


def network_and_samples(problem: Problem) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Both in float64, with weights that float32 has."""
    torch.manual_seed(problem.seed)
    model = NETWORKS[problem.network](ACTIVATIONS[problem.act], problem.classes)
    x, y = problem.scale * torch.randn(problem.samples, 12), torch.randint(problem.classes, (problem.samples,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 / max(1.0, problem.scale))
    for _ in range(problem.steps):
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.bias is not None:
                harm(layer, problem.damage)
    return model.eval().double(), x.double(), y


def harm(layer: nn.Linear | nn.Conv1d | nn.Conv2d, damage: str) -> None:
    """Make degenerate what a layer computes."""
    if layer.bias is None or len(layer.bias) < 3:
        return
    if damage == "dead":
        layer.bias[: len(layer.bias) // 2] -= 100
    elif damage == "zero":
        layer.weight.zero_()
    elif damage in {"twins", "near twins"}:
        apart = 1e-3 if damage == "near twins" else 0.0
        layer.weight[1] = layer.weight[0] * (1 + apart)
        layer.bias[1] = layer.bias[0] * (1 + apart)


def dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Hessian and the generalised Gauss-Newton matrix of the mean cross-entropy, by torch.func."""
    names, sizes, shapes = zip(*((name, p.numel(), p.shape) for name, p in model.named_parameters()), strict=True)
    buffers = dict(model.named_buffers())

    def outputs(flat: torch.Tensor) -> torch.Tensor:
        parts = {name: part.view(shape) for name, part, shape in zip(names, flat.split(sizes), shapes, strict=True)}
        found: torch.Tensor = functional_call(model, {**parts, **buffers}, (x,))
        return found

    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            hessian = jacrev(grad(lambda flat: nn.functional.cross_entropy(outputs(flat), y)))(flat).detach()
            jacobian, p = jacrev(outputs)(flat).detach(), outputs(flat).detach().softmax(1)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gauss_newton = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(x)
    return (hessian + hessian.T) / 2, (gauss_newton + gauss_newton.T) / 2


def measured(problem: Problem, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Measurement:
    """What the probe says."""
    data = TensorData(name="made", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], classes=problem.classes).to(dtype=problem.dtype)
    options = HessianOptions(
        samples=len(x), batch_size=-(-len(x) // problem.batches), smallest=True, top_k=problem.top_k, trace=30, density=2, density_steps=20,
        gauss_newton=True, layers=True,
    )  # fmt: skip
    twin = copy.deepcopy(model).to(problem.dtype)
    return HessianProbe(options).measure(ProbeContext(model=twin, data=data, seed=problem.seed))


def broken(problem: Problem) -> list[str]:
    """In words, what was said of a problem and is not so."""
    model, x, y = network_and_samples(problem)
    hessian, gauss_newton = dense(model, x, y)
    exact, norm = torch.linalg.eigvalsh(hessian), float(hessian.norm())
    found = measured(problem, model, x, y)
    lost = (LOST if problem.dtype is torch.float32 else 1e-12) * norm
    said = [
        ("lambda_max", found.details["lambda_max"], float(exact[-1])),
        ("lambda_min", found.details["lambda_min"], float(exact[0])),
        ("gauss_newton", found.details["lambda_max_gauss_newton"], float(torch.linalg.eigvalsh(gauss_newton)[-1])),
        *((f"top {rank}", pair, float(exact[-rank])) for rank, pair in enumerate(found.details["top_k"], 1)),
        *((f"layer {path}", pair, true) for path, pair, true in layers(model, hessian, found.details["layers"])),
    ]
    wrong = list(itertools.chain.from_iterable(contradicted(name, pair, true, lost) for name, pair, true in said))
    trace, error = found.details["trace"]["value"], found.details["trace"]["standard_error"]
    if abs(trace - float(hessian.trace())) > 6 * error + lost * math.sqrt(len(hessian)):
        wrong.append(f"trace {trace:.6g} +- {error:.1g} is {float(hessian.trace()):.6g}")
    nodes, weights = found.tensors["density_nodes"], found.tensors["density_weights"]
    if float(nodes.max()) > float(exact[-1]) + lost or float(nodes.min()) < float(exact[0]) - lost:
        wrong.append(f"the density reaches from {float(nodes.min()):.6g} to {float(nodes.max()):.6g}")
    if float((weights.sum(1) - 1).abs().max()) > 1e-9:
        wrong.append(f"the density has the mass {weights.sum(1).tolist()}")
    return wrong


def layers(model: nn.Module, hessian: torch.Tensor, details: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """What is said of the block of every layer, and the truth."""
    owners = [name.rpartition(".")[0] for name, parameter in model.named_parameters() for _ in range(parameter.numel())]
    for path, pair in details.items():
        rows = torch.tensor([owner == path for owner in owners])
        yield path, pair, float(torch.linalg.eigvalsh(hessian[rows][:, rows])[-1])


def contradicted(name: str, pair: Mapping[str, Any], true: float, lost: float) -> Sequence[str]:
    """Of an eigenvalue: whether it is farther off than its bound, or than is called converged."""
    wrong, error = [], abs(pair["value"] - true)
    shown = f"{name}: {pair['value']:.6g} is {true:.6g}, {error / max(abs(true), 1e-300):.1e} off"
    if error > pair["error_bound"] + lost:
        wrong.append(f"{shown}, bound {pair['error_bound']:.1e}" + (", converged" if pair["converged"] else ""))
    elif pair["converged"] and error > CONVERGED * abs(true) + lost:
        wrong.append(f"{shown}, converged")
    return wrong


def tries(random: Random) -> Iterator[Try]:
    """One for each problem."""
    for problem in problems(random):
        yield Try(str(problem), holding(problem))


def holding(problem: Problem) -> Callable[[Path], None]:
    """The try of a problem."""

    def held(folder: Path) -> None:
        if wrong := broken(problem):
            raise AssertionError("; ".join(wrong))

    return held


CAMPAIGN = Campaign(
    "every eigenvalue lies within its bound, the leading k are the k, and what is called converged is right", tries, count=360, in_suite=4
)
