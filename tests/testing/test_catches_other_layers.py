"""The kit for relaxations of layers that are no convolutions: right ones pass, and what is wrong in one is said."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.lattice import Drift
from anarch_core.layers import Cost, RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation, Site
from anarch_core.testing import RelaxationConformance
from anarch_core.testing.cases import Case

Kit = Callable[..., Any]
OF_RECORDS = ("test_checkpoint_in_a_fresh_process", "test_import_is_light", "test_cuda_device_is_kept", "test_flags_are_free")
CHECKS = [name for name in dir(RelaxationConformance) if name.startswith("test_") and name not in OF_RECORDS]


def run(passes: Kit, conformance: type, check: str, folder: Any) -> None:
    passes(conformance, check, *([folder] if check.startswith("test_checkpoint") else []), examples=8)


@pytest.mark.parametrize("check", CHECKS)
def test_a_layer_written_by_hand(passes: Kit, plugin: Kit, circulant: ModuleType, tmp_path: Any, check: str) -> None:
    plugin("relaxation", circulant.CirculantRelaxation)
    run(passes, circulant.CirculantConformance, check, tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_a_layer_of_words_without_a_batch_that_gives_a_dictionary(
    passes: Kit, plugin: Kit, strange: ModuleType, tmp_path: Any, check: str
) -> None:
    plugin("relaxation", strange.FreeWords)
    run(passes, strange.HashedConformance, check, tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_a_cell_that_is_called_several_times(passes: Kit, plugin: Kit, strange: ModuleType, tmp_path: Any, check: str) -> None:
    plugin("relaxation", strange.Untied)
    run(passes, strange.CellConformance, check, tmp_path)


def broken(base: type, **methods: Any) -> type:
    """A class with other methods."""
    return type("Wrong", (base,), methods)


def relaxing_to(circulant: ModuleType, **methods: Any) -> type:
    """The relaxation of circulant layers with some methods of its layer replaced."""
    layer = broken(circulant.DenseLayer, **methods)
    return broken(circulant.CirculantRelaxation, lift=lambda self, site: layer(site.module))


def _first_of_each_diagonal(self: Any, tensor: torch.Tensor, name: str = "matrix") -> Any:
    """Parts that add up, by an oblique projection."""
    shared, unshared, off_local = _parts(self, tensor, name)
    if name == "shift":
        return shared, unshared, off_local
    first = type(self).__mro__[1]._matrix_of(self, tensor[:, 0][: self.diagonals])
    return first, tensor - off_local - first, off_local


def _right_drift(self: Any, reference: Any = None) -> Drift:
    right = type(self).__mro__[1]
    twin = copy.copy(self)
    twin.__class__ = right
    return right.drift(twin, reference)


def _parts(self: Any, tensor: torch.Tensor, name: str) -> Any:
    return type(self).__mro__[1].split(self, tensor, name)


def _all_local_is_shared(self: Any, tensor: torch.Tensor, name: str = "matrix") -> Any:
    shared, unshared, off_local = _parts(self, tensor, name)
    return shared + unshared, torch.zeros_like(tensor), off_local


def _nothing_is_shared(self: Any, tensor: torch.Tensor, name: str = "matrix") -> Any:
    shared, unshared, off_local = _parts(self, tensor, name)
    return torch.zeros_like(tensor), shared + unshared, off_local


def _half(self: Any, tensor: torch.Tensor, name: str = "matrix") -> Any:
    return tensor / 2, tensor / 4, tensor / 4


@torch.no_grad()
def _first_column(self: Any) -> nn.Module:
    """A projection that undoes the lift, but takes one of the copies where it should take their mean."""
    parent = type(self).__mro__[1].project(self)
    parent.kernel.copy_(self.matrix[: self.diagonals, 0])
    return parent


def _twice_the_gradient(self: Any, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, 2 * self.matrix - self.matrix.detach(), self.shift)


def _as_a_pair(self: Any, x: torch.Tensor) -> Any:
    return nn.functional.linear(x, self.matrix, self.shift), None


def _nearest_dense_layer(self: Any) -> nn.Module:
    linear = nn.Linear(self.n, self.n, dtype=self.matrix.dtype)
    with torch.no_grad():
        linear.weight.copy_(self.matrix)
        linear.bias.copy_(self.shift)
    return linear


def _lost_name(self: Any) -> nn.Module:
    parent = type(self).__mro__[1].project(self)
    parent.other = nn.Parameter(torch.zeros(1, dtype=self.matrix.dtype))
    return parent


def _drift_with(**parts: float) -> Callable[..., Drift]:
    return lambda self, reference=None: Drift(**({"shared": 1.0, "unshared": 0.0, "off_local": 0.0} | parts))


def _copied_gradient(self: Any, site: Any, layer: Any, name: str, tensor: torch.Tensor, role: str) -> Any:
    return type(self).__mro__[1].transport(self, site, layer, name, tensor, "weight")


def _divided_weight(self: Any, site: Any, layer: Any, name: str, tensor: torch.Tensor, role: str) -> Any:
    return type(self).__mro__[1].transport(self, site, layer, name, tensor, "gradient")


def _drawing(self: Any) -> nn.Module:
    torch.rand(1)
    return type(self).__mro__[1].project(self)


def _drift_otherwise(**parts: Callable[[Any], Any]) -> Callable[..., Drift]:
    """The right drift with some of its numbers put through functions."""

    def drift(self: Any, reference: Any = None) -> Drift:
        right = _right_drift(self, reference)
        return attrs.evolve(right, **{name: change(getattr(right, name)) for name, change in parts.items()})

    return drift


def _twice(number: float | None) -> float | None:
    return None if number is None else 2 * number


def _ignoring_the_shift(self: Any, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, self.matrix, 0 * self.shift)


LAYER_FAULTS = [
    ("test_equals_its_parent", {"forward": _ignoring_the_shift}, "the relaxed layer differs from its parent by .*, more than 1e-10"),
    (
        "test_whole_network",
        {"forward": _ignoring_the_shift},
        r"differs from its parent: .* end to end \(.* at features.second.layer\), more than 1e-10",
    ),
    (
        "test_drift_parts_are_squared_norms",
        {"drift": _drift_otherwise(moved=_twice)},
        r"drift\(reference\).moved is .*, but by the projections of both layers, lifted again, it is",
    ),
    (
        "test_initial_drift_is_that_of_default_initialisation",
        {"drift": _drift_otherwise(initial=lambda initial: (9.0, 9.0, 9.0))},
        r"drift\(\).initial says 9 for the shared part, and 100 default initialisations have a mean of",
    ),
    ("test_lift_draws_no_random_numbers", {"project": _drawing}, r"project\(\) changes the random state of torch"),
    ("test_equals_its_parent", {"forward": _as_a_pair}, r"the relaxed layer gives \[.*\], None, its parent \["),
    ("test_projection_undoes_the_lift", {"project": _nearest_dense_layer}, r"project\(\) gives a Linear, but the parent was a Circulant"),
    ("test_projection_undoes_the_lift", {"project": _lost_name}, "there are other parameters: other"),
    ("test_projection_is_nearest", {"project": _first_column}, "take the mean over the entries that are equal in the parent"),
    ("test_parts_are_orthogonal_projections", {"split": _half}, "the shared part of a tensor is not the same again, by"),
    (
        "test_parts_are_orthogonal_projections",
        {"split": _first_of_each_diagonal, "drift": _right_drift},
        r"not orthogonal to the others in the norm of drift\(\)",
    ),
    ("test_drift_parts_are_squared_norms", {"split": _first_of_each_diagonal}, "has a squared norm of"),
    ("test_parts_are_orthogonal_projections", {"split": _nothing_is_shared}, "calls something of a lifted layer unshared or off-local"),
    ("test_parts_are_orthogonal_projections", {"split": _all_local_is_shared}, r"the shared part has \d+ dimensions, but lifts of all"),
    ("test_gradients_are_the_parents", {"forward": _twice_the_gradient}, "the gradient of the relaxed layer differs from its parent's by"),
    (
        "test_drift_of_a_fresh_layer_is_nothing",
        {"drift": _drift_with(off_local=-4e-5)},
        r"layer, relaxed by wrong: the part 'off_local' of its drift\(\) is -4e-05, and a squared norm is not negative",
    ),
    (
        "test_drift_of_a_fresh_layer_is_nothing",
        {"drift": _drift_with(unshared=float("nan"))},
        r"the part 'unshared' of its drift\(\) is nan, although all of its weights are finite",
    ),
]


def _lifting_with_the_parents_buffer(self: Any, site: Any) -> Any:
    layer = type(self).__mro__[1].lift(self, site)
    site.module.register_buffer("kept", torch.zeros(3, dtype=torch.float64))
    layer.register_buffer("kept", site.module.kept)
    return layer


def _squares_without_history(self: Any, site: Any, layer: Any, name: str, tensor: torch.Tensor, role: str) -> Any:
    right = type(self).__mro__[1].transport(self, site, layer, name, tensor, role)
    return {heir: 0 * state for heir, state in right.items()} if role == "square" and right else right


RELAXATION_FAULTS = [
    (
        "test_nothing_to_relax_is_said",
        {"idle": lambda self, site: None},
        r"Case\(.*\) is relaxed, and whatever its weights are then, drift\(\) finds nothing .* say in `idle` why",
    ),
    (
        "test_parent_is_untouched",
        {"lift": _lifting_with_the_parents_buffer},
        "kept of the relaxed layer shares memory with its parent; clone its tensors in lift",
    ),
    (
        "test_optimizer_state_fits",
        {"transport": _squares_without_history},
        r"gives \d+ zeros in .* where role='gradient' gives numbers, and Adam divides by the root",
    ),
    (
        "test_refusals_are_sentences",
        {"idle": lambda self, site: "no." if site.module.n == 1 else None},
        "should be a sentence that says why",
    ),
    ("test_optimizer_state_moves_as_parameters", {"transport": _copied_gradient}, "divide it among the copies"),
    ("test_optimizer_state_moves_as_parameters", {"transport": _divided_weight}, "differs from the lift of such a parent by"),
]


@pytest.mark.filterwarnings("ignore::anarch_core.errors.InexactRelaxationWarning")  # which says the same
@pytest.mark.parametrize(
    ("check", "layer", "message"), LAYER_FAULTS, ids=[f"{fault[0]}-{place}" for place, fault in enumerate(LAYER_FAULTS)]
)
def test_a_wrong_layer(fails: Kit, plugin: Kit, circulant: ModuleType, check: str, layer: Any, message: str) -> None:
    plugin("relaxation", relaxing_to(circulant, **layer))
    fails(circulant.CirculantConformance, check, message, examples=8)


@pytest.mark.parametrize(("check", "methods", "message"), RELAXATION_FAULTS)
def test_a_wrong_relaxation(fails: Kit, plugin: Kit, circulant: ModuleType, check: str, methods: Any, message: str) -> None:
    plugin("relaxation", broken(circulant.CirculantRelaxation, **methods))
    fails(circulant.CirculantConformance, check, message, examples=8)


def test_cases_that_are_all_refused(fails: Kit, plugin: Kit, circulant: ModuleType) -> None:
    plugin("relaxation", broken(circulant.CirculantRelaxation, refusal=lambda self, site: "it is not understood"))
    fails(circulant.CirculantConformance, "test_equals_its_parent", r"\(it .*it is not understood\); let `cases` give others, or accept")


def test_layers_that_draw_random_numbers(fails: Kit, plugin: Kit, circulant: ModuleType) -> None:
    """Nothing can be compared with them, and nothing in the relaxation would mend that."""

    class Dropping(circulant.Circulant):  # type: ignore[misc, name-defined]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(super().forward(x), training=self.training)

    plugin("relaxation", circulant.CirculantRelaxation)
    case = Case(Dropping(4, 2, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64))
    message = r"Case\(Dropping\(4, diagonals=2\), \[2, 4\]\) gives something else each time it is called, by .* put it into evaluation mode"
    fails(circulant.CirculantConformance, "test_equals_its_parent", message, cases=lambda self: st.just(case))


def test_a_drift_that_forgets_entries_of_a_layer_of_several_leading_dimensions(
    fails: Kit, passes: Kit, plugin: Kit, circulant: ModuleType
) -> None:
    case = Case(circulant.Circulant(4, 2, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64))
    check, settings = "test_drift_parts_are_squared_norms", {"cases": lambda self: st.just(case)}
    plugin("relaxation", circulant.CirculantRelaxation)
    passes(circulant.CirculantConformance, check, **settings)
    plugin("relaxation", relaxing_to(circulant, drift=_drift_otherwise(off_local=lambda part: 0.0)))
    fails(circulant.CirculantConformance, check, r"the parts of drift\(\) add up to .*, but the layer's matrix", **settings)


def test_parts_of_weights_that_are_a_fixed_matrix_and_something_else(fails: Kit, plugin: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance may be right, from W0 on; the parts of W are not, since W0 is in no tangent space."""
    base = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    from_zero = {name: getattr(Matrix, name) for name in ("drift", "split")}

    def from_base(name: str) -> Callable[..., Any]:
        def method(self: Matrix, *arguments: Any) -> Any:
            rest = copy.deepcopy(self)
            with torch.no_grad():
                rest.weight.sub_(base)
            return from_zero[name](rest, *arguments)

        return method

    plugin("relaxation", FullRank)
    monkeypatch.setattr(Outer, "forward", lambda self, x: nn.functional.linear(x, base + torch.outer(self.b, self.a)))
    monkeypatch.setattr(Matrix, "__init__", _from_base(base))
    for name in from_zero:
        monkeypatch.setattr(Matrix, name, from_base(name))
    message = r"split\(\) calls .* of a fresh layer's weights unshared or off-local, .* hold W0 as a buffer and let"
    fails(OuterConformance, "test_drift_of_a_fresh_layer_is_nothing", message, examples=4)


def _from_base(base: torch.Tensor) -> Callable[..., None]:
    def init(self: Matrix, parent: Outer) -> None:
        RelaxedLayer.__init__(self)
        self.weight = nn.Parameter((base + torch.outer(parent.b, parent.a)).detach())

    return init


def test_parts_and_drift_that_differ_where_the_constrained_layers_are_no_linear_space(
    fails: Kit, passes: Kit, plugin: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least squares over lifts says nothing of matrices of rank one; their tangents and the drift have to agree."""
    plugin("relaxation", FullRank)
    passes(OuterConformance, "test_parts_are_orthogonal_projections", examples=4)
    monkeypatch.setattr(Matrix, "split", lambda self, tensor, name="weight": (tensor, torch.zeros_like(tensor), torch.zeros_like(tensor)))
    fails(OuterConformance, "test_parts_are_orthogonal_projections", r"split\(\) and drift\(\) differ", examples=4)


class Outer(nn.Module):
    """A linear layer of rank one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4).double()), nn.Parameter(torch.randn(3).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, torch.outer(self.b, self.a))


class Matrix(RelaxedLayer):
    relaxation = "wrong"

    def __init__(self, parent: Outer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.outer(parent.b, parent.a).detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)

    def project(self) -> nn.Module:
        return Outer()

    def drift(self, reference: nn.Module | None = None) -> Drift:
        first, *others = torch.linalg.svdvals(self.weight.detach()).square().tolist()
        return Drift(shared=first, unshared=sum(others), off_local=0.0)

    def split(self, tensor: torch.Tensor, name: str = "weight") -> Any:
        u, _, vh = torch.linalg.svd(self.weight.detach())
        across = (torch.eye(3).double() - torch.outer(u[:, 0], u[:, 0])) @ tensor @ (torch.eye(4).double() - torch.outer(vh[0], vh[0]))
        return tensor - across, across, torch.zeros_like(tensor)


class FullRank(AbstractRelaxation):
    targets = (Outer,)

    def refusal(self, site: Site) -> str | None:
        return None

    def cost(self, site: Site) -> Cost:
        return Cost(parameters=12, flops=24, itemsize=8)

    def lift(self, site: Site) -> RelaxedLayer:
        return Matrix(site.module)

    def transport(self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: str) -> None:
        return None


class OuterConformance(RelaxationConformance):
    name = "wrong"

    def cases(self) -> st.SearchStrategy[Case]:
        return st.builds(lambda: Case(Outer(), torch.ones(2, 4).double()))
