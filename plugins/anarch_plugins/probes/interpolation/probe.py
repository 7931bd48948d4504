"""The probe ``interpolation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.paths import LAYER_BARRIERS, LayerPaths, interpolate, layer_by_layer
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal
from anarch_core.relaxation import applied_relaxations, project
from anarch_plugins.probes.interpolation.options import InterpolationOptions


class InterpolationProbe(AbstractProbe):
    """Evaluates paths that end at the network and begin at a network it is compared with.

    Scalars, per method: the barrier in training loss as excess over the higher end (``<method>_barrier``) and over the chord
    (``<method>_chord_barrier``), None where a loss on the path is not finite, as the details explain; and the best test score on the
    path (``<method>_best_<score>``, as ``linear_best_accuracy``). Tensors hold the profiles.

    With ``layer_wise`` also the largest over the layers of two numbers: the training loss with a layer averaged less the mean loss of the
    two networks (``layers_averaged``), and the barrier over the chord on the path of that layer alone (``layers_chord_barrier``). The
    details have them by layer, and the tensor ``layers`` holds the profiles.
    """

    needs = frozenset({"data", "relaxed"})

    options: InterpolationOptions

    def __init__(self, options: InterpolationOptions) -> None:
        super().__init__(options)
        if options.origin == "control":
            self.needs = self.needs | {"control"}

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of two steps along each path; the points of a string or band are held all at once, those of other paths are not."""
        held = {"string", "band"} & {*self.options.methods}
        few = attrs.evolve(self.options, steps=2, curve_steps=2, points=self.options.points if held else 3)
        return rehearsal.peak(lambda: InterpolationProbe(few).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Evaluate every path.

        Raises:
            ProbeError: there are no data, or no network to begin at.
        """
        origin, data = self._origin(context), context.required_data
        options, metric = self.options, context.objective.metric
        moving: dict[str, Any] = {"rest": "first" if options.rest == "origin" else "second"}
        scalars: dict[str, float | None] = {}
        details: dict[str, Any] = {"origin": options.origin, "samples": min(options.samples, len(data.y_train)), "methods": {}}
        tensors: dict[str, torch.Tensor] = {}
        for method in dict.fromkeys(options.methods):
            profile = interpolate(
                origin,
                context.model,
                data,
                method=method,
                layers=options.layers or None,
                **moving,
                points=options.points,
                samples=options.samples,
                steps=options.steps,
                lr=options.lr,
                stiffness=options.stiffness,
                curve_steps=options.curve_steps,
                curve_lr=options.curve_lr,
                batch_size=options.batch_size,
                seed=context.seed,
                progress=lambda done, total, method=method: context.progress(done, total, f"interpolation: {method}"),  # type: ignore[misc]
            )
            scalars[f"{method}_barrier"] = profile.train_barrier.excess
            scalars[f"{method}_chord_barrier"] = profile.train_barrier.chord
            found = [score.metrics[metric.name] for score in profile.test]
            scalars[f"{method}_best_{metric.name}"] = max(found) if metric.higher_is_better else min(found)
            details["methods"][method] = profile.details()
            tensors[method] = profile.tensor(metric.name)
        if options.layers:
            details |= {"layers": list(options.layers), "rest": options.rest}
        if options.layer_wise:
            found_by_layer = layer_by_layer(
                origin,
                context.model,
                data,
                layers=options.layers or "*",
                **moving,
                points=options.points,
                samples=options.samples,
                progress=lambda done, total: context.progress(done, total, "interpolation: layers"),
            )
            paths = found_by_layer.layers.values()
            scalars["layers_averaged"] = _largest([path.train for path in paths])
            scalars["layers_chord_barrier"] = _largest([path.profile.train_barrier.chord for path in paths])
            details["layer_wise"] = {"rest": options.rest, "definition": LAYER_BARRIERS, "layers": _by_layer(found_by_layer)}
            tensors["layers"] = torch.stack([path.profile.tensor(metric.name) for path in paths])
        units = {name: metric.unit if name.endswith(f"best_{metric.name}") else context.objective.loss_unit for name in scalars}
        return Measurement(scalars=scalars, units=units, details=details, tensors=tensors)

    def _origin(self, context: ProbeContext) -> nn.Module:
        if self.options.origin == "projection":
            if not applied_relaxations(context.model):
                msg = f"the probe interpolation needs a relaxed network, and this {type(context.model).__name__} is none; relax it first"
                raise ProbeError(msg)
            return project(context.model)
        if self.options.origin not in context.others:
            msg = f"there is no {self.options.origin} to begin the path at; use origin 'projection'"
            raise ProbeError(msg)
        return context.others[self.options.origin]


def _largest(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _by_layer(found: LayerPaths) -> list[dict[str, Any]]:
    """In the order of the network."""
    return [
        {
            "layer": path,
            "size": layer.size,
            "averaged": {"train": layer.train, "test": layer.test},
            "swapped": layer.swapped,
            **layer.profile.details(),
        }
        for path, layer in found.layers.items()
    ]
