"""A relaxation of a layer that is no convolution, written by hand on the bare interface: circulant linear layer -> dense one.

``W[i, j] = w[(i - j) mod n]``. It may keep some of the diagonals only, so that what lies on the others is off-local.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.lattice import Drift
from anarch_core.layers import Cost, RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation
from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case


class Circulant(nn.Module):
    """A linear layer whose matrix is circulant, with weights on the first diagonals."""

    def __init__(self, n: int, diagonals: int, dtype: torch.dtype | None = None, device: str | None = None) -> None:
        super().__init__()
        self.n, self.diagonals = n, diagonals
        self.kernel = nn.Parameter(torch.empty(diagonals, dtype=dtype, device=device))
        self.shift = nn.Parameter(torch.empty(n, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.kernel, -1, 1)
        nn.init.zeros_(self.shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, dense(self.kernel, self.n), self.shift)

    def extra_repr(self) -> str:
        return f"{self.n}, diagonals={self.diagonals}"


def which(n: int, device: torch.device) -> torch.Tensor:
    """The diagonal of each entry, int64, [n, n]."""
    rows = torch.arange(n, device=device)
    return (rows[:, None] - rows) % n


def dense(kernel: torch.Tensor, n: int) -> torch.Tensor:
    """The matrix of some diagonals, [n, n]."""
    return nn.functional.pad(kernel, (0, n - len(kernel)))[which(n, kernel.device)]


class DenseLayer(RelaxedLayer):
    """What a circulant layer becomes."""

    relaxation = "wrong"

    def __init__(self, parent: Circulant) -> None:
        super().__init__()
        self.n, self.diagonals = parent.n, parent.diagonals
        self.matrix = nn.Parameter(dense(parent.kernel.detach(), parent.n).clone())
        self.shift = nn.Parameter(parent.shift.detach().clone())
        self.train(parent.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.matrix, self.shift)

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.matrix, -(self.n**-0.5), self.n**-0.5)
        nn.init.uniform_(self.shift, -(self.n**-0.5), self.n**-0.5)

    def _kernel(self, matrix: torch.Tensor) -> torch.Tensor:
        sums = matrix.new_zeros(self.n).index_add(0, which(self.n, matrix.device).flatten(), matrix.flatten())
        return sums[: self.diagonals] / self.n

    def _matrix_of(self, kernel: torch.Tensor) -> torch.Tensor:
        return dense(kernel, self.n)

    @torch.no_grad()
    def project(self) -> nn.Module:
        like = {"dtype": self.matrix.dtype, "device": str(self.matrix.device)}
        parent: Circulant = nn.utils.skip_init(Circulant, self.n, self.diagonals, **like)
        parent.kernel.copy_(self._kernel(self.matrix))
        parent.shift.copy_(self.shift)
        return parent.train(self.training)

    def split(self, tensor: torch.Tensor, name: str = "matrix") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if name == "shift":
            return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)
        local = torch.where(which(self.n, tensor.device) < self.diagonals, tensor, 0)
        shared = self._matrix_of(self._kernel(tensor))
        return shared, local - shared, tensor - local

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        shared, unshared, off_local = (float(part.double().square().sum()) for part in self.split(self.matrix))
        if reference is None:
            return Drift(shared=shared, unshared=unshared, off_local=off_local)
        start: Any = reference
        (now, *_), (before, *_) = self.split(self.matrix), self.split(start.matrix)
        moved = float((now - before).double().square().sum())
        return Drift(shared=shared, unshared=unshared, off_local=off_local, moved=moved, reference=float(before.double().square().sum()))


class CirculantRelaxation(AbstractRelaxation):
    """Circulant to dense."""

    targets = (Circulant,)

    def refusal(self, site: Any) -> str | None:
        return None if isinstance(site.module, Circulant) else f"it is a {type(site.module).__name__}, and no circulant layer"

    def idle(self, site: Any) -> str | None:
        return "it has one entry" if isinstance(site.module, Circulant) and site.module.n == 1 else None

    def cost(self, site: Any) -> Cost:
        n = site.module.n
        return Cost(parameters=n * n + n, flops=2 * n * n, itemsize=site.module.kernel.element_size())

    def lift(self, site: Any) -> RelaxedLayer:
        return DenseLayer(site.module)

    def transport(self, site: Any, layer: Any, name: str, tensor: torch.Tensor, role: str) -> dict[str, torch.Tensor] | None:
        if name == "shift":
            return {"shift": tensor.clone()}
        scale = {"weight": 1.0, "gradient": 1 / layer.n, "square": 1 / layer.n**2}[role]
        return {"matrix": dense(tensor * scale, layer.n)}


class CirculantConformance(RelaxationConformance):
    """What its author writes."""

    name = "wrong"  # of the one component that a test registers

    def cases(self) -> st.SearchStrategy[Case]:
        @st.composite
        def circulant(draw: st.DrawFn) -> Case:
            n = draw(st.integers(1, 5))
            torch.manual_seed(draw(st.integers(0, 9)))
            layer = Circulant(n, draw(st.integers(1, n)), dtype=torch.float64)
            return Case(layer, torch.randn(*draw(st.sampled_from([(3,), (3, 2), (2, 1, 2)])), n, dtype=torch.float64))

        return circulant()

    def large(self) -> Case:
        return Case(Circulant(1 << 17, 3, device="meta"), torch.empty(1, 1 << 17, device="meta"))


def network(classes: int = 3, n: int = 16) -> nn.Module:
    """Two circulant layers that are to be trained on signals [1, n]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), Circulant(n, 4), nn.ReLU(), Circulant(n, n), nn.ReLU(), nn.Linear(n, classes))
