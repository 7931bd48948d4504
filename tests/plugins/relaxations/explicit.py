"""References for relaxations of linear constraints: W = Aθ with A written out as a dense matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import hypothesis
import numpy as np
import torch
from hypothesis.strategies import SearchStrategy
from torch import nn

from anarch_core.layers import ConstrainedLayer
from anarch_core.relaxation import AbstractRelaxation, Site
from anarch_core.testing.cases import Case

ROUNDING = 1e-10


def matrix(map_: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """A linear map of arrays of a shape, column by column."""
    columns = []
    for place in range(int(np.prod(shape))):
        unit = np.zeros(shape)
        unit.flat[place] = 1
        columns.append(map_(unit).ravel())
    return np.stack(columns, axis=1)


def site_of(case: Case) -> Site:
    """The place of a layer that is called once, with one tensor."""
    return Site(path="layer", module=case.module, input_shape=tuple(case.x.shape[1:]), output_shape=tuple(case.outputs()[0].shape[1:]))


def check_generated(
    cases: SearchStrategy[Case], relaxation: AbstractRelaxation, reference: Callable[[nn.Module], np.ndarray | Mapping[str, np.ndarray]]
) -> None:
    """Lift, projection and parts of the weights of generated layers against least squares.

    Args:
        cases: layers; those with nothing to relax, and those that are refused, do not count as examples.
        relaxation: under test.
        reference: A of a layer's weight, [numbers of the relaxed weight, numbers of the constrained one]; or by name, where there
            are several that drift counts, or one of another name.

    Raises:
        hypothesis.errors.Unsatisfiable: no layer could be relaxed.
    """

    @hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much])
    @hypothesis.given(case=cases)
    def generated(case: Case) -> None:
        hypothesis.assume(relaxation.idle(site_of(case)) is None and relaxation.refusal(site_of(case)) is None)
        found = reference(case.module)
        check_layer(case, relaxation, {"weight": found} if isinstance(found, np.ndarray) else found)

    generated()


@torch.no_grad()
def check_layer(case: Case, relaxation: AbstractRelaxation, references: Mapping[str, np.ndarray]) -> None:
    """One layer: equal to its parent, and after random changes projected and taken apart as least squares does."""
    layer = relaxation.lift(site_of(case))
    assert isinstance(layer, ConstrainedLayer)
    expected = case.module(case.x)
    assert (layer(case.x) - expected).abs().max() <= ROUNDING * max(float(expected.abs().max()), 1.0)
    variances = {link.parent: link.variance for link in layer.links}
    squares, initial = np.zeros(3), np.zeros(3)
    for name, a in references.items():
        weight = layer.free.get_parameter(name)
        assert np.allclose(a @ case.module.get_parameter(name).numpy().ravel(), weight.numpy().ravel(), rtol=0, atol=ROUNDING)

        weight.copy_(torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(len(name))))
        flat = weight.numpy().ravel()
        nearest = np.linalg.lstsq(a, flat, rcond=None)[0]
        back = layer.project()
        assert type(back) is type(case.module)
        assert np.allclose(back.get_parameter(name).numpy().ravel(), nearest, rtol=0, atol=ROUNDING)
        local = np.where(np.abs(a).sum(1) > 0, flat, 0)
        parts = [a @ nearest, local - a @ nearest, flat - local]
        for found, part in zip(layer.split(weight, f"free.{name}"), parts, strict=True):
            assert np.allclose(found.numpy().ravel(), part, rtol=0, atol=ROUNDING)
        squares += [part @ part for part in parts]
        rank, entries = np.linalg.matrix_rank(a), int((np.abs(a).sum(1) > 0).sum())
        initial += np.array([rank, entries - rank, len(flat) - entries]) / (3 * weight[0].numel())
    drift = layer.drift()
    assert np.allclose([drift.shared, drift.unshared, drift.off_local], squares, rtol=1e-10, atol=ROUNDING)
    known = all(variances[name] is not None for name in references)
    assert np.allclose(drift.initial, initial) if known else drift.initial is None
