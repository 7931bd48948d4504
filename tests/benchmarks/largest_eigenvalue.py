"""Hessian-vector products, time and memory until the largest eigenvalue is right to 1e-3, by several methods side by side.

Of the training loss of cnn1d on MNIST-1D, as initialised and trained, and of its eFCN. "Right" is meant against a converged float64
value. scipy's ARPACK is run on the same products; PyHessian and curvlinops are run as their users run them, where they are installed.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from measure import Step, Table, peak
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from anarch_core import relax
from anarch_core.curvature.lanczos import extreme_eigenvalues, tridiagonal_matrix, tridiagonalise
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.data import TensorData, load_data
from anarch_core.data.order import epoch_order
from anarch_core.models import build_model

EPOCHS, SAMPLES, SEEDS = 150, 500, 10
WIDTH = 3072  # of the network on which memory is measured: 9.5 million parameters

Result = tuple[float, int]
"""Eigenvalue, products."""
Method = Callable[[Risk, int, float | None], Result]
"""Of the risk, a seed, and the true eigenvalue for those that are told."""


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


def lanczos(risk: Risk, seed: int, exact: float | None) -> Result:
    """Two vectors, stopped by the residual and the error bound."""
    operator = HessianOperator(risk)
    found = extreme_eigenvalues(operator, generator=torch.Generator().manual_seed(seed), ends=("largest",))["largest"]
    return found.value, operator.products


def fewest(risk: Risk, seed: int, exact: float | None) -> Result:
    """As many products as it takes until the best Rayleigh quotient that can be made of them is right: no stopping rule can be earlier."""
    operator = HessianOperator(risk)
    start = operator.random_unit(torch.Generator().manual_seed(seed))
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for alpha, beta in tridiagonalise(operator, start):
        diagonal.append(alpha)
        value = float(torch.linalg.eigvalsh(tridiagonal_matrix(diagonal, off_diagonal))[-1])
        off_diagonal.append(beta)
        if len(diagonal) == 50 or (exact is not None and abs(value - exact) < 1e-3 * exact):
            break
    return value, operator.products


def power(risk: Risk, seed: int, exact: float | None) -> Result:
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
    return value, operator.products


def power_untold(risk: Risk, seed: int, exact: float | None) -> Result:
    return power(risk, seed, None)


def arpack(risk: Risk, seed: int, exact: float | None, *, basis: int) -> Result:
    """scipy's eigsh on the same products."""
    operator = HessianOperator(risk)

    def multiply(vector: np.ndarray) -> np.ndarray:
        return (operator @ torch.from_numpy(vector.astype(np.float32).ravel())).double().numpy()

    start = np.random.default_rng(seed).standard_normal(operator.size)
    linear = LinearOperator((operator.size, operator.size), matvec=multiply, dtype=np.float64)
    (value,) = eigsh(linear, k=1, which="LA", tol=1e-2, ncv=basis, v0=start, return_eigenvectors=False)
    return float(value), operator.products


def pyhessian(risk: Risk, seed: int, exact: float | None) -> Result:
    """PyHessian's own power iteration; what it leaves behind in the network is taken away."""
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
        values, _ = package.hessian(risk.model, nn.functional.cross_entropy, data=(risk.inputs, risk.targets), cuda=False).eigenvalues()
    finally:
        package.hessian_vector_product = original
        risk.model.zero_grad()
    return float(values[0]), calls


def curvlinops(risk: Risk, seed: int, exact: float | None) -> Result:
    """curvlinops' operator in scipy's eigsh."""
    import curvlinops

    operator = curvlinops.HessianLinearOperator(
        risk.model, nn.CrossEntropyLoss(), list(risk.parameters), [(risk.inputs, risk.targets)], check_deterministic=False
    )
    linear = operator.to_scipy()
    calls = 0

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return linear @ vector.astype(np.float32).ravel()

    start = np.random.default_rng(seed).standard_normal(risk.size)
    counted = LinearOperator(linear.shape, matvec=multiply, dtype=np.float64)
    (value,) = eigsh(counted, k=1, which="LA", tol=1e-2, v0=start, return_eigenvectors=False)
    return float(value), calls


def methods() -> dict[str, Method]:
    """What is compared."""
    found: dict[str, Method] = {
        "anarch: Lanczos": lanczos,
        "the same, answer known": fewest,
        "power iteration, answer known": power,
        "power iteration, own stop": power_untold,
        "scipy eigsh, 20 vectors": functools.partial(arpack, basis=20),
        "scipy eigsh, 8 vectors": functools.partial(arpack, basis=8),
    }
    if importlib.util.find_spec("pyhessian"):
        found["PyHessian"] = pyhessian
    if importlib.util.find_spec("curvlinops"):
        found["curvlinops + scipy eigsh"] = curvlinops
    return found


def compared(title: str, risk: Risk, vectors: dict[str, str], seeds: int) -> Table:
    """Every method from the same seeds, taking turns."""
    twin = Risk(copy.deepcopy(risk.model).double(), risk.inputs.double(), risk.targets)
    generator = torch.Generator().manual_seed(0)
    exact = extreme_eigenvalues(HessianOperator(twin), generator=generator, rtol=1e-7, ends=("largest",))["largest"].value
    results: dict[str, list[tuple[float, int, float]]] = {name: [] for name in methods()}
    for seed in range(seeds):
        for name, method in methods().items():
            begun = time.perf_counter()
            value, products = method(risk, seed, exact)
            results[name].append((abs(value - exact) / exact, products, time.perf_counter() - begun))
    rows = []
    for name, found in results.items():
        errors, counts, seconds = zip(*found, strict=True)
        spread = f"{statistics.median(counts):g} ({min(counts)} to {max(counts)})"
        rows.append((name, spread, f"{max(errors):.1e}", f"{1e3 * min(seconds):,.1f} ms", f"{1e3 * statistics.median(seconds):,.1f} ms"))
    heading = f"largest eigenvalue, {title}: {risk.size:,} parameters, {risk.samples} samples, {exact:.4g}"
    return Table(heading, ("", "products", "worst error", "best", "median", "vectors"), [(*row, vectors[row[0]]) for row in rows])


def on_network(width: int, method: Method) -> Step:
    """A step on two dense layers and few samples, so that memory is that of vectors as large as the network where it is wide."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return functools.partial(method, Risk(model, torch.randn(20, width), torch.arange(20) % 10), 0, None)


def held(method: Method) -> str:
    """Peak memory in units of the parameters, less the network itself and what a tiny one takes."""
    wide, tiny = (peak(functools.partial(on_network, width, method)) for width in (WIDTH, 10))
    return "" if wide is None or tiny is None else f"{(wide - tiny) / (4 * (WIDTH + 1) * (WIDTH + 10)) - 1:.1f}"


def tables(epochs: int = EPOCHS, seeds: int = SEEDS) -> Iterator[Table]:
    """As initialised and after ``epochs``, the CNN and its eFCN."""
    data = load_data("mnist1d")
    vectors = {name: held(method) for name, method in methods().items()}
    for moment, model in (("initialisation", trained(data, 0)), (f"{epochs} epochs", trained(data, epochs))):
        relaxed = relax(model, "efcn", example_input=data.x_train[:1]).model.eval()
        yield compared(f"cnn1d, {moment}", Risk.of_training_set(model, data, SAMPLES), vectors, seeds)
        yield compared(f"its eFCN, {moment}", Risk.of_training_set(relaxed, data, SAMPLES), vectors, seeds)
