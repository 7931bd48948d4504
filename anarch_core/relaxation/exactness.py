"""Which layers a relaxation replaces, and whether the result equals its parent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.errors import InexactRelaxationWarning
from anarch_core.layers.base import RelaxedLayer
from anarch_core.network import undisturbed
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.surgery import outputs_of


def checked(
    report: RelaxationReport, found: Selection, lifted: Mapping[str, RelaxedLayer], new: nn.Module, example_input: Any
) -> RelaxationReport:
    """The report with errors measured, and a warning where they exceed the tolerance."""
    layers = []
    with undisturbed(new), torch.no_grad():
        for layer in report.layers:
            calls = found.trace.calls[layer.path]
            errors = [_deviation(lifted[layer.path](call.input), call.output) for call in calls]
            layers.append(attrs.evolve(layer, error=max(errors)))
        outputs = outputs_of(new, example_input)
    error = max((_deviation(a, b) for a, b in zip(outputs, found.trace.outputs, strict=True)), default=0.0)
    result = attrs.evolve(report, layers=layers, error=error)
    if not result.exact:
        worst = max(result.layers, key=lambda layer: layer.error or 0.0)
        message = (
            f"{report.relaxation} differs from its parent by {error:.1e} end to end ({worst.error:.1e} at {worst.path}), "
            f"more than {report.tolerance:.0e}"
        )
        warnings.warn(message, InexactRelaxationWarning, stacklevel=3)
    return result


def _deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.is_floating_point() or expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float(((actual - expected).abs().max() / scale).double())
