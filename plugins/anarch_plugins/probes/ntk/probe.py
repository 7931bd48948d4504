"""The probe ``ntk``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anarch_core.curvature import Risk, TangentKernel, centred, centred_alignment, effective_rank, kernel_distance
from anarch_core.errors import ProbeError
from anarch_core.lattice import PARTS
from anarch_core.objective import AbstractClassification, AbstractObjective, outputs_of
from anarch_core.probe import AbstractProbe, Measurement, ParameterParts, ProbeContext, ProbeRehearsal, finite, tangent_kernel_in_parts
from anarch_plugins.probes.ntk.options import NtkOptions

DEFINITION = (
    "K(x, x') = sum over outputs c of grad f_c(x) . grad f_c(x') by the parameters in orthonormal coordinates; "
    "alignment: <HKH, HLH> / (|HKH| |HLH|), H = 1 - 11'/n, L = YY' of the targets"
)
SCALARS = (
    *("alignment", "alignment_shared", "alignment_unshared", "alignment_off_local", "alignment_parent"),
    *("trace", "trace_shared", "trace_unshared", "trace_off_local"),
    *("effective_rank", "distance_from_parent", "distance_from_start"),
)


class NtkProbe(AbstractProbe):
    """The empirical neural tangent kernel ``K = J J'`` on training samples, in evaluation mode, with the trace over outputs.

    In the orthonormal coordinates of :mod:`anarch_core.probe.coordinates` it is the sum of a shared, an unshared and an off-local kernel,
    and at the switch the shared one is the kernel of the constrained network.

    * ``alignment`` of the whole kernel and of each part with the label kernel, both centred; ``alignment_parent`` that of the constrained
      network. Each is between 0 and 1, and no scale changes it. None where a kernel is zero;
    * ``trace`` is the mean of ``K(x, x)``; ``trace_shared`` and its like are shares of it, with a sum of 1;
    * ``effective_rank`` of the centred kernel: exp of the entropy of its eigenvalues (Roy and Vetterli 2007);
    * ``distance_from_parent``, ``distance_from_start``: ``1 - <K, L> / (|K| |L|)`` (Fort et al. 2020), not centred. None where there is no
      such network, and for a parent whose coordinates do not compare (``incomparable`` in the details).
    """

    needs = frozenset({"data"})
    headline = ("alignment",)

    options: NtkOptions
    _sketch = False

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of the first output and the first row; later ones take the room of those before them."""
        probe = NtkProbe(self.options)
        probe._sketch = True
        return rehearsal.peak(lambda: probe.measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Measure the kernel, and those of the parent and of the segment's start where they are given.

        Raises:
            ProbeError: there are no data, targets are no numbers, or the network cannot be differentiated.
        """
        # A Risk for what it checks: parameters of one dtype, and samples that do not mix.
        risk = Risk.of_training_set(context.model, context.required_data, self.options.samples, batch_size=self.options.samples)
        label_kernel, labels = _label_kernel(context.objective, risk.targets)
        details: dict[str, Any] = {
            "definition": DEFINITION,
            "samples": risk.samples,
            "training_samples": len(context.required_data.y_train),
            "parameters": risk.size,
            "labels": labels,
            "mode": "evaluation",
        }
        scalars: dict[str, float | None] = dict.fromkeys(SCALARS)
        if not math.isfinite(loss := risk.value()):
            return Measurement(scalars=scalars, details=details | {"not_measured": f"the loss is {loss}"})
        try:
            incomparable = ParameterParts.of(context.model, risk.inputs[:1]).incomparable
            found = self._kernel(context, context.model, risk)
        except ProbeError as error:
            return Measurement(scalars=scalars, details=details | {"not_measured": str(error)})
        if incomparable:
            details["incomparable"] = incomparable
        whole = found.whole
        trace = float(whole.trace())
        scalars["alignment"] = centred_alignment(whole, label_kernel)
        scalars["trace"] = finite(trace / risk.samples)
        for part in PARTS:
            kernel = found.parts[part]
            scalars[_named("alignment", part)] = centred_alignment(kernel, label_kernel)
            scalars[_named("trace", part)] = _share(float(kernel.trace()), trace)
        details |= {"outputs": found.outputs, "by_rows": list(found.by_rows), "layers": _layers(found, trace)}
        tensors = {"kernel": whole, **{_named("kernel", part): kernel for part, kernel in found.parts.items() if bool(kernel.any())}}
        if bool(whole.isfinite().all()):
            tensors["eigenvalues"] = torch.linalg.eigvalsh(centred(whole)).flip(0)
            scalars["effective_rank"] = effective_rank(tensors["eigenvalues"])
        if context.reference is not None:
            scalars["distance_from_start"] = kernel_distance(whole, self._kernel(context, context.reference, risk).whole)
        if context.parent is not None and not incomparable:
            try:
                parent = self._kernel(context, context.parent, risk).whole
            except ProbeError as error:
                details["parent_not_measured"] = str(error)
            else:
                scalars["distance_from_parent"] = kernel_distance(whole, parent)
                scalars["alignment_parent"] = centred_alignment(parent, label_kernel)
                tensors["kernel_parent"] = parent
        return Measurement(scalars=scalars, details=details, tensors=tensors)

    def _kernel(self, context: ProbeContext, model: nn.Module, risk: Risk) -> TangentKernel:
        def network(inputs: torch.Tensor) -> torch.Tensor:
            return outputs_of(model, inputs, risk.targets[: len(inputs)], context.objective)

        return tangent_kernel_in_parts(
            model, risk.inputs, network=network, sketch=self._sketch, progress=lambda done, total: context.progress(done, total, "ntk")
        )


def _label_kernel(objective: AbstractObjective, targets: torch.Tensor) -> tuple[torch.Tensor, str]:
    """``Y Y'``, [n, n], float64, and what Y is."""
    if isinstance(objective, AbstractClassification):
        return (targets[:, None] == targets).double(), "one-hot classes"
    if math.prod(objective.output_shape(targets, 0)) == targets[0].numel():
        rows = targets.reshape(len(targets), -1).double()
        return rows @ rows.mT, "targets as they are"
    msg = (
        f"alignment with the labels needs a class for each sample, or a number for each output, and the targets are {objective.takes}; "
        "measure such a network by other probes"
    )
    raise ProbeError(msg)


def _layers(found: TangentKernel, trace: float) -> dict[str, Mapping[str, float | None]]:
    """What each layer has of the trace, by part."""
    return {path: {_named("trace", part): _share(value, trace) for part, value in parts.items()} for path, parts in found.layers.items()}


def _share(value: float, whole: float) -> float | None:
    return finite(value / whole) if whole > 0 else None


def _named(name: str, part: str) -> str:
    return f"{name}_{part.replace('-', '_')}"
