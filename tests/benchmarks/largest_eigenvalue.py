"""Hessian-vector products until the largest eigenvalue is right to 1e-3, on a really trained network, by several methods side by side.

    python tests/benchmarks/largest_eigenvalue.py --epochs 150 --samples 500

Trains cnn1d on MNIST-1D, embeds it into its eFCN, and looks for the largest eigenvalue of the training loss's Hessian on both. Counted are
products with the Hessian; "right" is meant against a converged float64 value. scipy's ARPACK is run on the same products; PyHessian and
curvlinops are run as their users run them, where they are installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from anarch_core import relax
from anarch_core.curvature.lanczos import extreme_eigenvalues
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.data import TensorData, epoch_order, load_data
from anarch_core.models import build_model

Result = tuple[float, int, str]
"""Eigenvalue, products, certificate."""


def trained(data: TensorData, epochs: int) -> nn.Module:
    """cnn1d after some epochs with the settings of the default run."""
    model = build_model("cnn1d", input_shape=data.input_shape, classes=data.classes, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        for rows in torch.split(epoch_order(len(data.y_train), 0, epoch), 100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
            optimizer.step()
    model.zero_grad()
    return model.eval()


def lanczos(risk: Risk, seed: int, *, favoured: bool) -> Result:
    """Three vectors, stopped by the residual."""
    operator = HessianOperator(risk)
    found = extreme_eigenvalues(
        operator,
        generator=torch.Generator().manual_seed(seed),
        ends=("largest",),
        favoured=risk.gradient() if favoured else None,
    )["largest"]
    return found.value, operator.products, f"residual {found.residual:.1e}"


def power(risk: Risk, seed: int, *, exact: float | None) -> Result:
    """Power iteration, stopped by the known answer, or where two values in a row agree to 1e-3."""
    operator = HessianOperator(risk)
    vector = operator.random_unit(torch.Generator().manual_seed(seed))
    value = 0.0
    for _ in range(200):
        image = operator @ vector
        previous, value = value, float(image @ vector)
        if abs(value - (previous if exact is None else exact)) < 1e-3 * abs(value):
            break
        vector = image / image.norm()
    return value, operator.products, "none"


def arpack(risk: Risk, seed: int, *, basis: int) -> Result:
    """scipy's eigsh on the same products."""
    operator = HessianOperator(risk)

    def multiply(vector: np.ndarray) -> np.ndarray:
        return (operator @ torch.from_numpy(vector.astype(np.float32).ravel())).double().numpy()

    start = np.random.default_rng(seed).standard_normal(operator.size)
    linear = LinearOperator((operator.size, operator.size), matvec=multiply, dtype=np.float64)
    (value,) = eigsh(linear, k=1, which="LA", tol=1e-2, ncv=basis, v0=start, return_eigenvectors=False)
    return float(value), operator.products, "tolerance 1e-2"


def pyhessian(risk: Risk, seed: int) -> Result:
    """PyHessian's own power iteration, on a copy: it leaves gradients and modes changed."""
    package = importlib.import_module("pyhessian.hessian")  # the attribute of that name is a class
    torch.manual_seed(seed)
    calls = 0
    original = package.hessian_vector_product

    def counted(*args: object) -> object:
        nonlocal calls
        calls += 1
        return original(*args)

    package.hessian_vector_product = counted
    try:
        model = copy.deepcopy(risk.model)
        values, _ = package.hessian(model, nn.functional.cross_entropy, data=(risk.inputs, risk.targets), cuda=False).eigenvalues()
    finally:
        package.hessian_vector_product = original
    return float(values[0]), calls, "none"


def curvlinops(risk: Risk, seed: int) -> Result:
    """curvlinops' operator in scipy's eigsh; the products of its own check for determinism are not counted."""
    import curvlinops

    model = copy.deepcopy(risk.model)
    operator = curvlinops.HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        [p for p in model.parameters() if p.requires_grad],
        [(risk.inputs, risk.targets)],
    )
    linear = operator.to_scipy()
    calls = 0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return linear @ vector.astype(np.float32).ravel()

    start = np.random.default_rng(seed).standard_normal(risk.size)
    (value,) = eigsh(
        LinearOperator(linear.shape, matvec=multiply, dtype=np.float64), k=1, which="LA", tol=1e-2, v0=start, return_eigenvectors=False
    )
    return float(value), calls, "tolerance 1e-2"


def methods(exact: float) -> Iterator[tuple[str, Callable[[Risk, int], Result]]]:
    """What is compared."""
    yield "Lanczos, half along the gradient", lambda risk, seed: lanczos(risk, seed, favoured=True)
    yield "Lanczos, random start", lambda risk, seed: lanczos(risk, seed, favoured=False)
    yield "power iteration, answer known", lambda risk, seed: power(risk, seed, exact=exact)
    yield "power iteration, own stop", lambda risk, seed: power(risk, seed, exact=None)
    yield "scipy eigsh, 20 vectors", lambda risk, seed: arpack(risk, seed, basis=20)
    yield "scipy eigsh, 8 vectors", lambda risk, seed: arpack(risk, seed, basis=8)
    if importlib.util.find_spec("pyhessian"):
        yield "PyHessian", pyhessian
    if importlib.util.find_spec("curvlinops"):
        yield "curvlinops + scipy eigsh", curvlinops


def main() -> None:
    """Train, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    data = load_data("mnist1d")
    cnn = trained(data, arguments.epochs)
    for name, model in (("cnn1d", cnn), ("its eFCN", relax(cnn, "efcn", example_input=data.x_train[:1]).model.eval())):
        risk = Risk.of_training_set(model, data, arguments.samples)
        twin = Risk.of_training_set(copy.deepcopy(model).double(), data, arguments.samples)
        generator = torch.Generator().manual_seed(0)
        exact = extreme_eigenvalues(HessianOperator(twin), generator=generator, rtol=1e-7, ends=("largest",))["largest"].value
        print(f"\n{name}, {risk.size} parameters, {arguments.epochs} epochs, {risk.samples} samples: largest eigenvalue {exact:.6g}")
        print(f"{'method':34}{'products':>16}{'worst error':>13}{'seconds':>9}  certificate (last)")
        for method, measure in methods(exact):
            begun = time.perf_counter()
            results = [measure(risk, seed) for seed in range(arguments.seeds)]
            seconds = (time.perf_counter() - begun) / arguments.seeds
            counts = [products for _, products, _ in results]
            worst = max(abs(value - exact) / exact for value, _, _ in results)
            spread = f"{statistics.median(counts):g} ({min(counts)}-{max(counts)})"
            print(f"{method:34}{spread:>16}{worst:13.1e}{seconds:9.2f}  {results[-1][2]}")


if __name__ == "__main__":
    main()
