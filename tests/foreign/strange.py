"""Layers that take and give anything, and relaxations of them by their constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.constraint import Constraint, Incidence
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site
from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case


class Hashed(nn.Module):
    """An embedding of more words than rows, and a gate: [time, batch] whole numbers -> {"words": [time, batch, width], "gates": (two)}."""

    def __init__(self, words: int, rows: int, width: int, dtype: torch.dtype | None = None, device: str | None = None) -> None:
        super().__init__()
        self.words, self.rows = words, rows
        self.weight = nn.Parameter(torch.empty(rows, width, dtype=dtype, device=device))
        self.gate = nn.Linear(width, 2, dtype=dtype, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)

    def forward(self, words: torch.Tensor, *, scale: torch.Tensor, gated: bool = True) -> dict[str, Any]:
        looked_up = self.weight[words % self.rows] * scale
        return {"words": looked_up, "gates": tuple(self.gate(looked_up).tanh().unbind(-1)) if gated else ()}


class FreeWords(AbstractConstraintRelaxation):
    """A row for each word."""

    name = "wrong"
    targets = (Hashed,)

    def idle(self, site: Site) -> str | None:
        return "each of its words has a row of its own" if site.module.rows == site.module.words else None

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        weight = module.weight
        free = Hashed(module.words, module.words, weight.shape[1], dtype=weight.dtype, device=str(weight.device))
        free.gate.load_state_dict(module.gate.state_dict())
        rows = Incidence.of(np.arange(module.words) % module.rows, module.rows)
        constraint = Constraint(free.weight.shape, weight.shape, [rows, Incidence.identity(weight.shape[1])])
        return Loosened(free=free, links=[Link(parent="weight", constraint=constraint, variance=1.0)])


class HashedConformance(RelaxationConformance):
    name = "wrong"

    def cases(self) -> st.SearchStrategy[Case]:
        @st.composite
        def hashed(draw: st.DrawFn) -> Case:
            rows = draw(st.integers(1, 3))
            torch.manual_seed(draw(st.integers(0, 9)))
            layer = Hashed(rows + draw(st.integers(0, 3)), rows, draw(st.integers(1, 3)), dtype=torch.float64)
            words = torch.arange(layer.words * 2).reshape(layer.words, 2) % layer.words
            given = {"scale": torch.randn(layer.weight.shape[1], dtype=torch.float64), "gated": draw(st.booleans())}
            return Case(layer, words, given if given["gated"] else {"scale": given["scale"]})

        return hashed()


class Cell(nn.Module):
    """A recurrent cell: state and input -> (state, output), to be called at each step."""

    def __init__(self, width: int, dtype: torch.dtype | None = None, device: str | None = None) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width, dtype=dtype, device=device)

    def forward(self, state: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = torch.tanh(self.inner(state) + x)
        return new, new * x


class Steps(nn.Module):
    """A cell for each step."""

    def __init__(self, cells: nn.ModuleList) -> None:
        super().__init__()
        self.cells, self.step = cells, 0

    def forward(self, state: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cell = self.cells[self.step % len(self.cells)]
        self.step += 1
        return cell(state, x)


class StepsLayer(ConstrainedLayer):
    """The cells, the first of which is called where a pass begins."""

    def begin_pass(self) -> None:
        self.free.step = 0


class Untied(AbstractConstraintRelaxation):
    """A copy of the cell for each step."""

    name = "wrong"
    targets = (Cell,)

    def idle(self, site: Site) -> str | None:
        return "it is called once in a pass" if site.calls == 1 else None

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        weight = module.inner.weight
        cells = nn.ModuleList(Cell(len(weight), dtype=weight.dtype, device=str(weight.device)) for _ in range(site.calls))
        links = []
        for name, parameter in module.named_parameters():
            constraint = Constraint(
                (site.calls, *parameter.shape),
                parameter.shape,
                [Incidence.of(np.zeros(site.calls, dtype=np.int64), 1), Incidence.identity(parameter.numel())],
            )
            links.append(Link(parent=name, free=tuple(f"cells.{step}.{name}" for step in range(site.calls)), constraint=constraint))
        return Loosened(free=Steps(cells), links=links, layer_class=StepsLayer)


class CellConformance(RelaxationConformance):
    name = "wrong"

    def cases(self) -> st.SearchStrategy[Case]:
        @st.composite
        def cells(draw: st.DrawFn) -> Case:
            width = draw(st.integers(1, 3))
            torch.manual_seed(draw(st.integers(0, 9)))
            layer = Cell(width, dtype=torch.float64)
            state, x = torch.randn(2, draw(st.integers(1, 3)), width, dtype=torch.float64)
            return Case(layer, (state, x), calls=draw(st.integers(1, 3)))

        return cells()
