"""What a network is measured by: the interface of probes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import ProbeError
from anarch_core.objective.base import AbstractObjective

if TYPE_CHECKING:
    import torch

    from anarch_core.data.tensor_data import TensorData


COMPANIONS = ("twin", "control", "sibling")
"""Networks of other segments that one may be compared with, as far trained as it is; see :class:`ProbeContext`."""

NEEDS = frozenset({"data", "relaxed", "reference", "parent", *COMPANIONS})
"""What a probe may need."""


@attrs.frozen(kw_only=True)
class ProbeContext:
    """What a probe may look at. It must leave all of it as it was: parameters, buffers, gradients, modes, random state.

    Attributes:
        model: the network to measure.
        data: train, validation and test tensors on the model's device; None for probes that need no data.
        reference: the network at the start of its segment, same architecture as ``model``; None when ``model`` is that start, or unknown.
        parent: the constrained network the segment was lifted from; None for a network that was never relaxed.
        twin: the network of the segment that starts from the same one and meets the batches in another order.
        control: the constrained network that was trained on from the same moment without being relaxed.
        sibling: the network of the same segment with the run's first seed. Twin, control and sibling are as far trained as ``model``, are
            there for probes that need them alone, and None at the start of a segment and where the run has no such segment.
        trajectory: gives (epochs since the segment's start, network) wherever the network was kept on its way, oldest first.
        seed: for any randomness of the probe.
        moment: ``"start"`` or ``"end"`` of the segment, between them as ``"5ep"`` or ``"30it"`` after its start, ``"average"`` for the
            average of its weights, or ``"checkpoint"``.
        progress: called with (done, total, what) during long measurements.
    """

    model: torch.nn.Module
    data: TensorData | None = None
    reference: torch.nn.Module | None = None
    parent: torch.nn.Module | None = None
    twin: torch.nn.Module | None = None
    control: torch.nn.Module | None = None
    sibling: torch.nn.Module | None = None
    trajectory: Callable[[], Iterable[tuple[float, torch.nn.Module]]] = lambda: ()
    seed: int = 0
    moment: str = "checkpoint"
    progress: Callable[[int, int, str], None] = lambda done, total, what: None

    @property
    def others(self) -> Mapping[str, torch.nn.Module]:
        """The networks beside the measured one that are there, by their names."""
        named = {name: getattr(self, name) for name in ("reference", "parent", *COMPANIONS)}
        return {name: network for name, network in named.items() if network is not None}

    def beside(self, others: Mapping[str, torch.nn.Module | None]) -> ProbeContext:
        """The same with other networks beside the measured one, by their names."""
        changes: dict[str, Any] = dict(others)
        return attrs.evolve(self, **changes)

    @property
    def required_data(self) -> TensorData:
        """The data, for a probe that needs them.

        Raises:
            ProbeError: there are none.
        """
        if self.data is None:
            msg = "the measurement needs data, and there are none; pass ProbeContext(data=...), or name a data set with --data"
            raise ProbeError(msg)
        return self.data

    @property
    def objective(self) -> AbstractObjective:
        """What the network is trained for: the loss to differentiate, the scores to tell.

        Raises:
            ProbeError: there are no data.
        """
        return self.required_data.objective


@attrs.frozen(kw_only=True)
class ProbeRehearsal:
    """A measurement that is to come, on networks whose tensors have shapes, layouts and dtypes but hold no numbers.

    What is computed of them holds none either; a number that is asked for is 1 and a comparison true.

    Attributes:
        context: what would be measured. The data are real.
        peak: calls a function without arguments and gives the bytes that it held at its fullest moment, beyond the networks and the data.
            Raises what the function raises, and RuntimeError where what it does depends on numbers, or takes too many steps.
    """

    context: ProbeContext
    peak: Callable[[Callable[[], object]], int]


@attrs.frozen(kw_only=True, repr=False)
class Measurement(Displayed):
    """What a probe found.

    Attributes:
        scalars: named numbers; they go to ``results.json`` as they are, so every value is a finite float or None (not measurable).
        units: unit of a scalar (``"%"``, ``"1"``, ``"nats"``), for labels; scalars that are absent are dimensionless.
        details: JSON-ready structure (per layer, certificates, settings, sample counts).
        tensors: arrays for figures, stored beside the results as safetensors.
        omitted: what the network has nothing of that could be measured, as the end of the sentence "filters measured in part: ..."; a run
            says it once, however often it measures. Empty where all was measured.
    """

    scalars: Mapping[str, float | None]
    units: Mapping[str, str] = attrs.field(factory=dict)
    details: Mapping[str, Any] = attrs.field(factory=dict)
    tensors: Mapping[str, torch.Tensor] = attrs.field(factory=dict)
    omitted: str = ""

    @property
    def note(self) -> str:
        """What is missing, to follow the name of the probe; empty where nothing is."""
        if not self.omitted:
            return ""
        something = self.tensors or any(value is not None for value in self.scalars.values())
        return f"measured {'in part' if something else 'nothing'}: {self.omitted}"

    def overview(self) -> Overview:
        """The scalars, and what else there is; shown by ``print`` and by notebooks."""
        rows = [[name, "–" if value is None else f"{value:.6g}", self.units.get(name, "")] for name, value in self.scalars.items()]
        beside = (("details", self.details), ("tensors", self.tensors))
        return Overview(
            title="Measurement",
            facts=[*((name, ", ".join(held)) for name, held in beside if held), *([("omitted", self.omitted)] if self.omitted else [])],
            tables=[Table(headings=["scalar", "value", "unit"], rows=rows)] if rows else [],
        )


class AbstractProbe(ABC):
    """Measures a network and leaves it as found.

    A probe is built with an instance of its option class (or None). Probes run at the start and at the end of every segment, on the average
    of its weights where one is taken, and on single checkpoints.

    Attributes:
        needs: what the context must hold: any of ``"data"``, ``"reference"``, ``"parent"``, ``"twin"``, ``"control"``, ``"sibling"`` and
            ``"relaxed"`` (the model has relaxed layers). Where it depends on the options, an instance has its own. Where something is
            missing the probe is skipped in a run, and refused with a clear sentence when it was asked for by hand. A segment is measured
            when the segments of its twin, its control and its sibling have ended, if a probe needs them.
        headline: names of the scalars worth a column in the summary table; ``{metric}`` in one stands for the score that the run is judged
            by, as in ``"{metric}_local"``.
        sharded: whether it measures networks of which each process holds a part. Such a probe runs in all of them in step, sees in the
            parameters of relaxed layers this process's part alone (:func:`anarch_core.sharding.cuts_of`), and gives the same on all:
            what one process finds that holds the whole. Others are refused. Where it depends on the options, an instance has its own. New
            in 1.3.
    """

    needs: Set[str] = frozenset()
    sharded: bool = False
    headline: ClassVar[Sequence[str]] = ()

    def __init__(self, options: Any) -> None:
        self.options = options

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Bytes that measuring takes at its fullest moment, beyond the networks and the data of the context.

        ``anarch plan`` states them, and a run that would not fit is refused before it starts. As it stands, :meth:`measure` is rehearsed as
        a whole. Override it where that depends on the numbers that are found, or takes thousands of steps: rehearse the part of it that
        takes most, or count.

        Args:
            rehearsal: the context that would be measured, with networks that hold no numbers.

        Raises:
            Exception: whatever the rehearsal raises; then a bound is assumed that is far above what most measurements take.
        """
        return rehearsal.peak(lambda: self.measure(rehearsal.context))

    def headlines(self, objective: AbstractObjective) -> list[str]:
        """The scalars worth a column, by the names that they have in a run of this objective."""
        return [name.replace("{metric}", objective.metric.name) for name in self.headline]

    @abstractmethod
    def measure(self, context: ProbeContext) -> Measurement:
        """Measure the network of ``context``.

        Raises:
            AnarchError: the network or the data does not allow the measurement; the message says why.
        """
