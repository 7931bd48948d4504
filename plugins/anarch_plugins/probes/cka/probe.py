"""The probe ``cka``."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.objective import AbstractObjective
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal, chosen_data
from anarch_core.similarity import OUTPUT, Similarity, compared
from anarch_plugins.probes.cka.options import CkaOptions

DEFINITION = (
    "debiased linear CKA, HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), with the unbiased estimator of Song et al. 2012, averaged over "
    "minibatches before the ratio is taken (Nguyen et al. 2021); features are all numbers in a layer's output for a sample"
)


class CkaProbe(AbstractProbe):
    """Compares what the layers of a network make of the same inputs with what those of other networks make of them.

    Scalars, for each of the other networks: CKA of layers of the same name, its mean and its least value over all layers where it is
    defined (``cka_<network>_mean``, ``cka_<network>_min``), and that of the outputs of the networks (``cka_<network>_output``). Details
    hold it by layer, with the reason where there is none. Tensors hold it likewise (``<network>_layers``), and of every layer and the
    output with every other one (``<network>``, rows and columns as in the details).
    """

    options: CkaOptions

    def __init__(self, options: CkaOptions) -> None:
        super().__init__(options)
        self.needs = frozenset({"data", *options.against})

    def headlines(self, objective: AbstractObjective) -> list[str]:
        """The means."""
        return [f"cka_{name}_mean" for name in dict.fromkeys(self.options.against)]

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of one minibatch; further ones take the room of the first."""
        few = attrs.evolve(self.options, samples=min(self.options.samples, self.options.batch_size))
        return rehearsal.peak(lambda: CkaProbe(few).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Compare with every one of the other networks.

        Raises:
            ProbeError: one of them is not there, or there are no data of the chosen part, or too few.
        """
        inputs, _ = chosen_data(context.required_data, self.options.part, "cka")
        others: dict[str, nn.Module] = {name: _other(context, name) for name in dict.fromkeys(self.options.against)}
        found = compared(
            context.model,
            others,
            inputs,
            samples=self.options.samples,
            batch_size=self.options.batch_size,
            progress=lambda done, total: context.progress(done, total, "cka"),
        )
        scalars: dict[str, float | None] = {}
        details: dict[str, Any] = {"definition": DEFINITION, "data": self.options.part, "against": {}}
        tensors: dict[str, torch.Tensor] = {}
        for name, similarity in found.items():
            layers = similarity.layers
            output = layers.pop(OUTPUT, None)
            known = [value for value in layers.values() if value is not None]
            scalars[f"cka_{name}_mean"] = sum(known) / len(known) if known else None
            scalars[f"cka_{name}_min"] = min(known, default=None)
            scalars[f"cka_{name}_output"] = output
            details |= {"samples": similarity.samples, "minibatches": similarity.minibatches}
            details["against"][name] = {
                "layers": layers,
                "output": output,
                "undefined": dict(similarity.undefined),
                "rows": list(similarity.rows),
                "columns": list(similarity.columns),
            }
            tensors[name] = similarity.matrix
            tensors[f"{name}_layers"] = torch.tensor(
                [torch.nan if value is None else value for value in layers.values()], dtype=torch.float64
            )
        return Measurement(scalars=scalars, units=dict.fromkeys(scalars, "1"), details=details, tensors=tensors, omitted=_omitted(found))


def _other(context: ProbeContext, name: str) -> nn.Module:
    other: nn.Module | None = getattr(context, name)
    if other is None:
        msg = f"there is no {name} to compare the network with; leave {name} out of the option against, or give one"
        raise ProbeError(msg)
    return other


def _omitted(found: dict[str, Similarity]) -> str:
    """Layers of both networks that have no similarity."""
    layers = {layer: each.undefined[layer] for each in found.values() for layer, value in each.layers.items() if value is None}
    told = [f"{layer} ({why})" for layer, why in layers.items()]
    more = f" and {len(told) - 3} more" if told[3:] else ""
    return f"no similarity of {', '.join(told[:3])}{more}" if told else ""
