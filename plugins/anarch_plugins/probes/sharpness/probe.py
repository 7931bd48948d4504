"""The probe ``sharpness``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch

from anarch_core.curvature import (
    HessianOperator,
    Neighbourhood,
    Risk,
    average_sharpness,
    extreme_eigenvalues,
    sam_sharpness,
    worst_sharpness,
)
from anarch_core.errors import ProbeError
from anarch_core.objective import AbstractObjective
from anarch_core.probe import AbstractProbe, Measurement, ParameterParts, ProbeContext, ProbeRehearsal, neighbourhood
from anarch_plugins.probes.sharpness.options import SharpnessOptions
from anarch_plugins.probes.sharpness.wording import Number, definitions, numbers


class SharpnessProbe(AbstractProbe):
    """How much the training loss rises near the network, over a fixed part of the training set, in evaluation mode.

    Scalars are named after the definition and the radius, ``average_0.01``, ``worst_0.05``, ``sam_0.05`` and ``quadratic_0.05``, with
    ``adaptive_`` or ``filter_`` before it for radii relative to weights or filters, and ``_shared`` after it for the shared directions
    alone. The details say what each word means, and how well each number is known.
    """

    needs = frozenset({"data"})

    options: SharpnessOptions

    def headlines(self, objective: AbstractObjective) -> list[str]:
        """One: the worst, plain, within the largest radius, along the shared directions; or what comes nearest of what is measured."""
        wanted = ("quadratic", "sam", "average", "worst")
        asked = [number for number in numbers(self.options) if number.lengths == self.options.lengths[0]]
        best = max(asked, key=lambda number: (number.directions, wanted.index(number.definition), number.radius))
        return [best.name]

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of a measurement that gives up early, at one radius and another: later steps take what the first ones do."""
        options = self.options
        few = attrs.evolve(
            options,
            pairs=2,
            steps=1,
            radii=tuple(sorted(options.radii)[:2]),
            noise=options.noise[:1],
            filter_radii=tuple(sorted(options.filter_radii)[:2]),
            starts=min(options.starts, 2),
        )
        return rehearsal.peak(lambda: SharpnessProbe(few)._measure(rehearsal.context, products=2))

    def measure(self, context: ProbeContext) -> Measurement:
        """Measure what the options ask for.

        Raises:
            ProbeError: there are no data, or the parameters are of half precision or frozen.
        """
        return self._measure(context, products=100)

    def _measure(self, context: ProbeContext, products: int) -> Measurement:
        return _Session(self.options, context, products).measure()


class _Session:
    """One measurement: the loss, and what was found so far."""

    def __init__(self, options: SharpnessOptions, context: ProbeContext, products: int) -> None:
        self.options = options
        self.context = context
        self.products = products
        self.risk = Risk.of_training_set(context.model, context.required_data, options.samples, batch_size=options.batch_size)
        self.asked = list(numbers(options))
        self.scalars: dict[str, float | None] = {}
        self.details: dict[str, Any] = {
            "definitions": definitions(options),
            "samples": self.risk.samples,
            "training_samples": len(context.required_data.y_train),
            "parameters": self.risk.size,
            "dtype": str(self.risk.dtype).removeprefix("torch."),
            "seed": context.seed,
            "mode": "evaluation",
            "starts": options.starts,
            "steps": options.steps,
        }

    def measure(self) -> Measurement:
        loss = self.risk.value()
        self.scalars["loss"] = loss if math.isfinite(loss) else None
        parts: ParameterParts | str = "not asked for"
        if self.options.shared and math.isfinite(loss):
            parts = self._parts()
        for (directions, lengths), group in itertools.groupby(self.asked, key=lambda number: (number.directions, number.lengths)):
            together = list(group)
            if not math.isfinite(loss):
                self._not_measured(together, f"the loss is {loss}")
            elif directions and isinstance(parts, str):
                self._not_measured(together, parts)
            else:
                self._near(lengths, parts if directions and not isinstance(parts, str) else None, together)
        units = dict.fromkeys(self.scalars, self.context.objective.loss_unit)
        return Measurement(scalars=self.scalars, units=units, details=self.details)

    def _parts(self) -> ParameterParts | str:
        """Of the network, or why they cannot be told."""
        try:
            parts = ParameterParts.of(self.context.model, self.risk.inputs[:1])
        except ProbeError as error:
            return str(error)
        if parts.incomparable:
            self.details["incomparable"] = parts.incomparable
        return parts

    def _near(self, lengths: Any, parts: ParameterParts | None, asked: Sequence[Number]) -> None:
        """All numbers of one neighbourhood."""
        try:
            near = neighbourhood(self.risk, lengths, shared=parts)
        except ProbeError as error:
            self._not_measured(asked, str(error))
            return
        largest: float | None = None
        smaller: torch.Tensor | None = None
        for number in asked:
            self.context.progress(len(self.scalars) - 1, len(self.asked), f"sharpness: {number.name}")
            try:
                if number.definition == "quadratic":
                    if largest is None:
                        largest = self._largest_eigenvalue(near, f"lambda_max{number.directions}")
                    self.scalars[number.name] = number.radius**2 * largest / 2
                elif number.definition == "worst":
                    smaller = self._worst(near, number, smaller)
                elif number.definition == "average":
                    found = average_sharpness(near, number.radius, generator=self._generator(), pairs=self.options.pairs)
                    self._found(number, attrs.asdict(found))
                else:
                    self._found(number, {"value": sam_sharpness(near, number.radius)})
            except ProbeError as error:
                self._not_measured([number], str(error))

    def _worst(self, near: Neighbourhood, number: Number, smaller: torch.Tensor | None) -> torch.Tensor:
        options = self.options
        found = worst_sharpness(
            near, number.radius, generator=self._generator(), starts=options.starts, steps=options.steps, smaller=smaller
        )
        self._found(number, {"value": found.value, "ascents": [attrs.asdict(ascent) for ascent in found.ascents]})
        return found.perturbation

    def _largest_eigenvalue(self, near: Neighbourhood, name: str) -> float:
        operator = near.curvature(HessianOperator(self.risk))
        found = extreme_eigenvalues(operator, generator=self._generator(), max_products=self.products, ends=("largest",))["largest"]
        self.details[name] = attrs.asdict(found)
        return found.value

    def _found(self, number: Number, details: dict[str, Any]) -> None:
        self.scalars[number.name] = details["value"]
        self.details[number.name] = details

    def _not_measured(self, asked: Sequence[Number], reason: str) -> None:
        for number in asked:
            self.scalars[number.name] = None
            self.details[number.name] = {"not_measured": reason}

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.risk.device).manual_seed(self.context.seed)
