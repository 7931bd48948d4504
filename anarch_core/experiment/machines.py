"""Which machines worked on a segment: those of one kind come to the same bytes, others need not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from anarch_core.experiment.record import Record

if TYPE_CHECKING:
    import torch

TRAINED, COMPLETED = "trained", "completed"
"""What a machine did for a segment."""

Kind = tuple[tuple[str, Any], ...]
"""What rounding depends on, by the name of the field of :class:`Machine`."""


@attrs.frozen(kw_only=True)
class Machine(Record):
    """A machine that worked on a segment, as the process saw it.

    Attributes:
        host: its name in the network.
        cpu: model of its processor.
        capability: instructions that PyTorch's own kernels are chosen by, ``"AVX2"``; less than the processor has where
            ``ATEN_CPU_CAPABILITY`` says so.
        gpu: on which networks were, None where they were in the host's memory.
        torch: version of PyTorch, with what it is built for.
        threads: that PyTorch shares a sum among, which decides its rounding as well.
        shards: processes that trained the segment together: which sums its products are made of.
        captured: whether training steps were captured ones, some or all, see :class:`~anarch_core.training.captured.Captured`.
        did: ``"trained"``; ``"completed"`` where the segment was finished, and measured or trained through again for what it lacked.
    """

    later: ClassVar[Sequence[str]] = ("shards", "captured")
    elsewhere: ClassVar[Sequence[str]] = ("host", "did", "captured")
    host: str
    cpu: str
    capability: str
    gpu: str | None
    torch: str
    threads: int
    shards: int = 1
    captured: bool = False
    did: str = TRAINED

    @property
    def kind(self) -> Kind:
        """What machines have in common that round alike."""
        return tuple((name, value) for name, value in self.to_json().items() if name not in self.elsewhere)

    def __str__(self) -> str:
        """``"AMD EPYC 7763 (AVX2), 4 threads, torch 2.14.1"``; the GPU comes first."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        together = [f"{self.shards} processes together"] if self.shards > 1 else []
        captured = ["captured steps"] if self.captured else []
        parts = [*([self.gpu] if self.gpu else []), f"{self.cpu} ({self.capability})", threads, *together, *captured, f"torch {self.torch}"]
        return ", ".join(parts)


def this_machine(device: torch.device, did: str = TRAINED, shards: int = 1) -> Machine:
    """This process, which computes on a device, one of so many that train a segment together."""
    import platform

    import torch

    from anarch_core.machine import cpu_name, gpu_name

    return Machine(
        host=platform.node(),
        cpu=cpu_name(),
        capability=torch.backends.cpu.get_cpu_capability(),
        gpu=gpu_name(device),
        torch=str(torch.__version__),
        threads=torch.get_num_threads(),
        shards=shards,
        did=did,
    )


def joined_by(machines: Iterable[Machine], next_one: Machine) -> list[Machine]:
    """The machines in their order with one more, unless the last is the same."""
    known = list(machines)
    same = bool(known) and attrs.evolve(known[-1], did=next_one.did, captured=next_one.captured) == next_one
    return known if same else [*known, next_one]
