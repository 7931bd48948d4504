"""What a probe is given and what it runs in, looked at before it and after it: put back what can be, say what cannot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import torch

from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import AnarchError
from anarch_core.network_state import NetworkState, Numbers
from anarch_core.probe.base import ProbeContext
from anarch_core.surroundings import Surroundings, others_at_work

NAMED = 4
"""Things that a sentence lists; it counts the others."""


@attrs.frozen
class Damage:
    """What was not as it had been.

    Attributes:
        restored: what was put back, in words.
        lost: what could not be.
    """

    restored: Sequence[str]
    lost: Sequence[str]


@attrs.frozen(eq=False)
class Watch:
    """All that a probe must leave as it was. Networks and data are read once and not copied.

    Attributes:
        context: what the probe is given.
        surroundings: settings of the process.
        conditions: of the networks, by role.
        numbers: of the networks and the data.
        threads: that run.
        reread: gives the data again, for one that changed them; None where they cannot be had.
    """

    context: ProbeContext
    surroundings: Surroundings
    conditions: dict[str, NetworkState]
    numbers: Numbers
    threads: frozenset[threading.Thread]
    reread: Callable[[], TensorData] | None

    @classmethod
    def of(cls, context: ProbeContext, reread: Callable[[], TensorData] | None = None) -> Watch:
        """Look at what there is."""
        given = {"the network": context.model, **{f"the {name}": network for name, network in context.others.items()}}
        tensors = {f"{name} of {role}": tensor for role, network in given.items() for name, tensor in _tensors(network).items()}
        if context.data is not None:
            tensors |= {f"{name} of the data": tensor for name, tensor in context.data.tensors().items()}
        numbers = Numbers.of(tensors)
        conditions = {role: NetworkState.of(network) for role, network in given.items()}
        return cls(context, Surroundings.now(), conditions, numbers, frozenset(threading.enumerate()), reread)

    def end(self) -> Damage:
        """Look again, and put back what can be."""
        # First of all the settings: what follows computes.
        restored, lost = self.surroundings.restore()
        for role, condition in self.conditions.items():
            restored += [what if role == "the network" else f"{what} in {role}" for what in condition.restore()]
        restored += self.numbers.restore()
        changed = self.numbers.changed()
        spoiled = [name for name in changed if name.endswith(" of the data")]
        if spoiled and self._read_again(spoiled):
            restored += spoiled
            changed = [name for name in changed if name not in spoiled]
        lost += changed
        if not others_at_work():
            restored += [f"a thread that goes on ({thread.name})" for thread in threading.enumerate() if thread not in self.threads]
        return Damage(restored, lost)

    def _read_again(self, names: Sequence[str]) -> bool:
        if self.reread is None:
            return False
        with suppress(AnarchError), torch.no_grad():
            fresh = self.reread().tensors()
            for name in names:
                self.numbers.tensors[name].data.copy_(fresh[name.removesuffix(" of the data")])
        return not set(names) & set(self.numbers.changed())


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, of many the first."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _tensors(network: Any) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
