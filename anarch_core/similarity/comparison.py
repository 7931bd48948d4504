"""Debiased linear CKA between the layers of networks, on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import attrs
import torch
from torch import nn

from anarch_core.data.order import permutation
from anarch_core.data.stored import Inputs, batches
from anarch_core.display import Displayed, Overview, Table
from anarch_core.relaxation.trace import Manner
from anarch_core.similarity.hsic import require_samples, varies
from anarch_core.similarity.representations import OUTPUT, Grams, grams_of, layer_paths, relaxed_paths

BATCH = 250
"""Samples of a minibatch, where nothing else is said."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Similarity(Displayed):
    """CKA between the layers of one network and those of another.

    Attributes:
        rows: layers of the first network by path, in its order, and its output, :data:`OUTPUT`.
        columns: those of the second.
        matrix: CKA of every layer of the first with every one of the second, [rows, columns], float64, on the CPU; nan where undefined.
        undefined: layer -> why it has no similarity, of the first network or else of the second; also layers that are in neither rows nor
            columns, as they gave no features.
        samples: on which it was measured.
        minibatches: over which HSIC was averaged; 1 for the estimator of all samples at once.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: torch.Tensor
    undefined: Mapping[str, str]
    samples: int
    minibatches: int

    @property
    def layers(self) -> dict[str, float | None]:
        """CKA of the layers that both networks have by the same name, and of their outputs; None where undefined."""
        found = {name: float(self.matrix[row, self.columns.index(name)]) for row, name in enumerate(self.rows) if name in self.columns}
        return {name: None if value != value else value for name, value in found.items()}

    def overview(self) -> Overview:
        """The layers of one name; shown by ``print`` and by notebooks."""
        rows = [[name, "–" if value is None else f"{value:.4f}", self.undefined.get(name, "")] for name, value in self.layers.items()]
        return Overview(
            title="Debiased linear CKA",
            facts=[("samples", f"{self.samples} in {self.minibatches} minibatch{'es' * (self.minibatches > 1)}")],
            tables=[Table(headings=["layer", "CKA", ""], rows=rows)] if rows else [],
        )


def cka(a: nn.Module, b: nn.Module, inputs: Inputs, *, samples: int | None = None, batch_size: int = BATCH, seed: int = 0) -> Similarity:
    """How alike the representations of two networks are, layer by layer: debiased linear CKA.

    Linear CKA (Kornblith et al. 2019) with the unbiased estimator of HSIC (Song et al. 2012), averaged over minibatches before the ratio is
    taken (Nguyen, Raghu and Kornblith 2021, equations 2 and 3). Where features are many and samples few, the biased one is near 1 for
    any two networks (Murphy et al. 2024). 1 where features are equal up to rotation, reflection, translation and one scale; 0 on average
    where they are independent; it may be a little negative. Both networks run in evaluation mode.

    Layers are relaxed layers, as wholes, and modules that hold weights themselves, as far as they are called; last comes the output of the
    network. A layer's features are all numbers in its output for a sample, those of all its calls together.

    Args:
        a: one network; left as it was.
        b: the other, of any architecture; left as it was.
        inputs: [n, ...], the same for both.
        samples: how many of the inputs are taken, at most; all if None.
        batch_size: samples of a minibatch at most, which are run and compared at once; n for the estimator of all samples at once. HSIC
            takes ``batch_size²`` doubles for each layer of both networks, and features are held for one layer at a time.
        seed: draws which samples are taken, and which of them are in a minibatch together.

    Raises:
        ProbeError: there are fewer than 4 samples in a minibatch.
    """
    return compared(a, {"b": b}, inputs, samples=samples, batch_size=batch_size, seed=seed)["b"]


def compared(
    model: nn.Module,
    others: Mapping[str, nn.Module],
    inputs: Inputs,
    *,
    samples: int | None = None,
    batch_size: int = BATCH,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Similarity]:
    """:func:`cka` of one network with several others, which it runs for once.

    Args:
        model: the network whose layers are the rows.
        others: networks by any names.
        inputs: as for :func:`cka`, like what follows.
        samples: likewise.
        batch_size: likewise.
        seed: likewise.
        progress: called with (done, total) minibatches.

    Returns:
        by the names of the others.

    Raises:
        ProbeError: as for :func:`cka`.
    """
    require_samples(batch_size)
    n = len(inputs) if samples is None else min(samples, len(inputs))
    count = max(1, -(-n // batch_size))
    require_samples(n // count)
    drawn = permutation(len(inputs), f"minibatches:{seed}")[:n]
    parts = torch.tensor_split(drawn.to(inputs.device), count)
    relaxed = relaxed_paths([model, *others.values()])
    own = _Sums(model, relaxed, inputs.device)
    theirs = {name: _Sums(other, relaxed, inputs.device) for name, other in others.items()}
    products: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        for network in (model, *others.values()):
            stack.enter_context(Manner(training=False).apply(network))
        for done, x in enumerate(batches(inputs, parts), start=1):
            grams = own.add(x)
            for name, sums in theirs.items():
                product = grams.flat @ sums.add(x).flat.T
                products[name] = products[name] + product if name in products else product
            progress(done, count)
    return {name: _similarity(own, sums, products[name], samples=n, minibatches=count) for name, sums in theirs.items()}


class _Sums:
    """What is added up over minibatches of one network.

    Attributes:
        names: of its layers, and of its output.
        absent: layer -> why it gave no features in a minibatch.
        idle: layers that are not called, which have no representation.
    """

    def __init__(self, model: nn.Module, relaxed: set[str], device: torch.device) -> None:
        self._model, self._device = model, device
        self._layers = layer_paths(model, relaxed)
        self.names = [*self._layers, OUTPUT]
        self._totals = torch.zeros(3, len(self.names), dtype=torch.float64, device=device)
        self.absent: dict[str, str] = {}
        self.idle = set(self.names)

    def add(self, x: torch.Tensor) -> Grams:
        """Run the network on a minibatch; its Gram matrices, which are not kept."""
        grams = grams_of(self._model, self._layers, x, self._device)
        self._totals = self._totals + torch.stack([torch.linalg.vector_norm(grams.flat, dim=1), grams.norms, grams.rounding]).square()
        self.absent |= dict.fromkeys(grams.uncalled, "it is not called for every minibatch") | grams.absent
        self.idle &= grams.uncalled
        return grams

    def places(self) -> list[int]:
        """Of the layers that gave features."""
        return [index for index, name in enumerate(self.names) if name not in self.absent]

    @property
    def hsic(self) -> torch.Tensor:
        """Of every layer with itself, [names]; nan where it has no similarity."""
        own, before, rounding = self._totals
        return torch.where(varies(own.sqrt(), before.sqrt(), rounding.sqrt()), own, torch.nan)

    def undefined(self) -> dict[str, str]:
        """Layer -> why it has no similarity."""
        finite, defined = self._totals.isfinite().all(0).tolist(), (~self.hsic.isnan()).tolist()
        why = dict.fromkeys(self.names, "its output is the same for all samples, but for one at most")
        why |= {name: "its output is not finite" for name, known in zip(self.names, finite, strict=True) if not known}
        told = {name: why[name] for name, known in zip(self.names, defined, strict=True) if not known} | self.absent
        return {name: reason for name, reason in told.items() if name not in self.idle}


def _similarity(first: _Sums, second: _Sums, product: torch.Tensor, *, samples: int, minibatches: int) -> Similarity:
    matrix = product / (first.hsic.sqrt()[:, None] * second.hsic.sqrt()[None, :])
    rows, columns = first.places(), second.places()
    return Similarity(
        rows=tuple(first.names[index] for index in rows),
        columns=tuple(second.names[index] for index in columns),
        matrix=matrix.clamp(-1, 1).cpu()[rows][:, columns],
        undefined={**{name: f"{why} in the other network" for name, why in second.undefined().items()}, **first.undefined()},
        samples=samples,
        minibatches=minibatches,
    )
