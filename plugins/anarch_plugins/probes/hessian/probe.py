"""The probe ``hessian``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from anarch_core.curvature import (
    AbstractOperator,
    Eigenpairs,
    Eigenvalue,
    GaussNewtonOperator,
    HessianOperator,
    ProjectedOperator,
    Risk,
    ScaledOperator,
    SpectralDensity,
    TraceEstimate,
    eigenpairs,
    extreme_eigenvalues,
    spectral_density,
    trace,
)
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.lattice import Part
from anarch_core.probe import AbstractProbe, Measurement, ParameterParts, ProbeContext, ProbeRehearsal
from anarch_core.sharding import shards_of
from anarch_plugins.probes.hessian.options import HessianOptions


class HessianProbe(AbstractProbe):
    """Curvature of the training loss at the network's weights.

    The Hessian is that of the mean cross-entropy over a fixed part of the training set, in evaluation mode, by all trainable parameters.
    ReLU and max-pooling count as the linear piece they are on; their kinks carry curvature that no Hessian sees.
    """

    needs = frozenset({"data"})
    headline = ("lambda_max_shared",)

    options: HessianOptions

    def __init__(self, options: HessianOptions) -> None:
        super().__init__(options)
        self.sharded = not (options.top_k and options.eigenvectors)

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of a measurement that gives up early: later products take what the first ones do."""
        few = attrs.evolve(self.options, max_products=2, trace=min(self.options.trace, 1), density=min(self.options.density, 1))
        return rehearsal.peak(lambda: HessianProbe(few).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Measure what the options ask for.

        Raises:
            ProbeError: the parameters are of half precision or frozen, or several processes hold the network together and eigenvectors are
                to be kept, of which each would have a part.
        """
        if not self.sharded and (shards := shards_of(context.model)) is not None:
            msg = (
                f"{shards.size} processes hold the network together, and each would have a part of its eigenvectors; leave the option "
                "'eigenvectors' out, or measure a checkpoint in one process"
            )
            raise ProbeError(msg)
        return _Session(self.options, context, context.required_data).measure()


class _Session:
    """One measurement: the loss, its random numbers and what was found so far."""

    def __init__(self, options: HessianOptions, context: ProbeContext, data: TensorData) -> None:
        self.options = options
        self.context = context
        self.data = data
        self.risk = self._risk()
        self.scalars: dict[str, float | None] = {}
        self.details: dict[str, Any] = {
            "samples": self.risk.samples,
            "training_samples": len(data.y_train),
            "parameters": self.risk.size,
            "dtype": str(self.risk.dtype).removeprefix("torch."),
            "seed": context.seed,
            "mode": "evaluation",
            "rtol": options.rtol,
        }
        self.tensors: dict[str, torch.Tensor] = {}
        self.products = 0

    def measure(self) -> Measurement:
        options = self.options
        loss = self.risk.value()
        self.scalars["loss"] = loss if math.isfinite(loss) else None
        if not math.isfinite(loss):
            # A network that diverged has no curvature; the run that made it goes on.
            for name in ("lambda_max", *self._subspace_names().values()):
                self._not_measured(name, f"the loss is {loss}")
            return self._measurement()
        parts = self._parts()  # calls the network, so that graphs made before would be of no use
        hessian = HessianOperator(self.risk)
        self._extremes("lambda_max", hessian, smallest=options.smallest)
        leading = self._leading(hessian)
        if options.trace:
            self._trace(hessian, leading)
        if options.density:
            self._density(hessian)
        if parts is not None:
            self._subspaces(hessian, parts)
        self._count(hessian)
        del hessian  # holds a graph
        if options.gauss_newton:
            operator = GaussNewtonOperator(self.risk)
            self._extremes("lambda_max_gauss_newton", operator)
            self._count(operator)
        if options.layers:
            self._layers()
        if options.subsets:
            self._subsets()
        self.scalars["products"] = float(self.products)
        return self._measurement()

    def _extremes(self, name: str, operator: AbstractOperator, *, smallest: bool = False) -> None:
        found = extreme_eigenvalues(
            operator,
            generator=self._generator(),
            rtol=self.options.rtol,
            max_products=self.options.max_products,
            ends=("largest", "smallest") if smallest else ("largest",),
        )
        self._eigenvalue(name, found["largest"])
        if smallest:
            self._eigenvalue("lambda_min", found["smallest"])
        self.context.progress(operator.products, operator.products, f"hessian: {name}")

    def _leading(self, hessian: AbstractOperator) -> Eigenpairs | None:
        if not self.options.top_k:
            return None
        pairs = eigenpairs(
            hessian,
            min(self.options.top_k, hessian.size),
            generator=self._generator(),
            rtol=self.options.rtol,
            max_products=self.options.max_products * self.options.top_k,
        )
        self.details["top_k"] = [attrs.asdict(eigenvalue) for eigenvalue in pairs.eigenvalues]
        self.tensors["eigenvalues"] = torch.tensor([eigenvalue.value for eigenvalue in pairs.eigenvalues], dtype=torch.float64)
        if self.options.eigenvectors:
            self.tensors["eigenvectors"] = pairs.vectors
        return pairs

    def _trace(self, hessian: AbstractOperator, leading: Eigenpairs | None) -> None:
        estimate: TraceEstimate = trace(
            hessian, samples=self.options.trace, generator=self._generator(), leading=leading, progress=self._progress("trace")
        )
        self.scalars["trace"] = estimate.value
        self.scalars["trace_standard_error"] = estimate.standard_error if math.isfinite(estimate.standard_error) else None
        self.details["trace"] = attrs.asdict(estimate) | {"standard_error": self.scalars["trace_standard_error"]}

    def _density(self, hessian: AbstractOperator) -> None:
        density: SpectralDensity = spectral_density(
            hessian,
            probes=self.options.density,
            steps=self.options.density_steps,
            generator=self._generator(),
            progress=self._progress("density"),
        )
        self.tensors["density_nodes"] = density.nodes
        self.tensors["density_weights"] = density.weights
        self.details["density"] = {"probes": self.options.density, "steps": density.nodes.shape[1], "products": density.products}

    def _parts(self) -> ParameterParts | None:
        if not self.options.subspaces:
            return None
        try:
            return ParameterParts.of(self.context.model, self.risk.inputs[:1])
        except ProbeError as error:
            for name in self._subspace_names().values():
                self._not_measured(name, str(error))
            return None

    def _subspaces(self, hessian: AbstractOperator, parts: ParameterParts) -> None:
        if parts.incomparable:
            self.details["incomparable"] = parts.incomparable
        scaled = hessian
        if parts.scale:
            ones = {name: torch.ones_like(tensor) for name, tensor in zip(self.risk.names, self.risk.parameters, strict=True)}
            scaled = ScaledOperator(hessian, self._flat(parts.covariant(ones)))
        for part, name in self._subspace_names().items():
            if part != "shared" and not parts.owners:
                self._not_measured(name, "no layer is relaxed, so every direction is shared")
                continue
            operator = ProjectedOperator(scaled, self._projection(parts, part))
            try:
                self._extremes(name, operator)
            except ProbeError as error:
                self._not_measured(name, str(error))

    def _subspace_names(self) -> dict[Part, str]:
        return {part: f"lambda_max_{part.replace('-', '_')}" for part in self.options.subspaces}

    def _projection(self, parts: ParameterParts, part: Part) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda vector: self._flat(parts.project(self.risk.named_views(vector), part))

    def _layers(self) -> None:
        layers: dict[str, list[str]] = {}
        for name in self.risk.names:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        self.details["layers"] = {path: attrs.asdict(self._largest(self._risk(names))) for path, names in layers.items()}

    def _subsets(self) -> None:
        """The mean over the parts is never below the value of the whole: the largest eigenvalue is convex in the matrix."""
        inputs, targets, count = self.risk.inputs, self.risk.targets, min(self.options.subsets, self.risk.samples)
        parts = [
            Risk(self.context.model, inputs[start::count], targets[start::count], loss=self.risk.loss, batch_size=self.options.batch_size)
            for start in range(count)
        ]
        self.details["subsets"] = [{"samples": part.samples, **attrs.asdict(self._largest(part))} for part in parts]

    def _largest(self, risk: Risk) -> Eigenvalue:
        operator = HessianOperator(risk)
        found = extreme_eigenvalues(
            operator,
            generator=self._generator(),
            rtol=self.options.rtol,
            max_products=self.options.max_products,
            ends=("largest",),
        )
        self._count(operator)
        return found["largest"]

    def _risk(self, parameters: Sequence[str] | None = None) -> Risk:
        options = self.options
        return Risk.of_training_set(self.context.model, self.data, options.samples, parameters=parameters, batch_size=options.batch_size)

    def _eigenvalue(self, name: str, eigenvalue: Eigenvalue) -> None:
        self.scalars[name] = eigenvalue.value
        self.scalars[f"{name}_residual"] = eigenvalue.residual
        self.details[name] = attrs.asdict(eigenvalue)

    def _not_measured(self, name: str, reason: str) -> None:
        self.scalars |= {name: None, f"{name}_residual": None}
        self.details[name] = {"not_measured": reason}

    def _count(self, operator: AbstractOperator) -> None:
        self.products += operator.products

    def _flat(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        # Scales are float64, whatever the parameters are.
        return torch.cat([tensors[name].reshape(-1).to(self.risk.dtype) for name in self.risk.names])

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.risk.device).manual_seed(self.context.seed)

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.context.progress(done, total, f"hessian: {what}")

    def _measurement(self) -> Measurement:
        return Measurement(scalars=self.scalars, units={"loss": self.data.objective.loss_unit}, details=self.details, tensors=self.tensors)
