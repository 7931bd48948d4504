"""Gradients of single outputs for single samples as rows, and the kernels that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

Split = Callable[[Mapping[str, torch.Tensor]], Mapping[str, Mapping[str, torch.Tensor]]]
"""A gradient by the parameters of one layer, by name -> its orthogonal parts, by part and name."""

Kernels = Iterator[tuple[str, dict[str, torch.Tensor]]]

WHOLE = "whole"
"""The one part there is where no others are told."""

BLOCK = 2**22
"""Numbers that are turned into float64 at once."""


class GradientRows:
    """The gradients of every output for every sample by some parameters, computed when they are needed."""

    def __init__(
        self,
        call: Callable[[torch.Tensor], torch.Tensor],
        inputs: torch.Tensor,
        outputs: int,
        parameters: Mapping[str, nn.Parameter],
        *,
        split: Split | None,
        layer_of: Callable[[str], str],
        progress: Callable[[int], None],
    ) -> None:
        """Bind a network to its samples.

        Args:
            call: the network.
            inputs: [n, ...].
            outputs: how many there are for each sample.
            parameters: to differentiate by, by name.
            split: see :data:`Split`; one part if None.
            layer_of: the layer of a parameter, by its name.
            progress: called with the number of rows that were computed.
        """
        self.call, self.inputs, self.outputs, self.parameters, self.progress = call, inputs, outputs, parameters, progress
        self.split: Split = split or (lambda row: {WHOLE: row})
        self.layers: dict[str, list[str]] = {}
        for name in parameters:
            self.layers.setdefault(layer_of(name), []).append(name)
        self._done = 0
        self._sketch = False

    def kernels(self, budget: int, *, sketch: bool = False) -> Kernels:
        """What every layer contributes, by its path and by part, [n, n], float64.

        Args:
            budget: numbers of rows that are held at once.
            sketch: one row alone, of two blocks where there are several: enough to see what memory is taken.
        """
        self._sketch = sketch
        samples = len(self.inputs)
        for paths, size in self._bundles(budget // (samples * self.outputs)):
            block = max(1, min(samples, budget // (2 * size * self.outputs))) if size * self.outputs * samples > budget else samples
            found: dict[str, dict[str, torch.Tensor]] = {path: {} for path in paths}
            starts = range(0, samples, block)[: 2 if sketch else None]
            for start in starts:
                own = self._rows(paths, start, start + block)
                for before in starts[: start // block + 1]:
                    other = own if before == start else self._rows(paths, before, before + block)
                    self._multiply(found, own, other, start, before)
            yield from found.items()

    def _bundles(self, room: int) -> Iterator[tuple[list[str], int]]:
        """Layers that go together, and how many parameters they have: at most ``room``, unless there is one alone."""
        together: list[str] = []
        held = 0
        for path, names in self.layers.items():
            size = sum(self.parameters[name].numel() for name in names)
            if together and held + size > room:
                yield together, held
                together, held = [], 0
            together.append(path)
            held += size
        yield together, held

    def _rows(self, paths: Sequence[str], start: int, stop: int) -> dict[str, dict[str, torch.Tensor]]:
        """Rows of some samples by layer and part, [samples, outputs * numbers]; parts that are nowhere told are absent."""
        names = [name for path in paths for name in self.layers[path]]
        kept: dict[str, dict[str, torch.Tensor]] = {path: {} for path in paths}
        samples = self.inputs[start:stop]
        for place, sample in enumerate(torch.split(samples, 1)):
            outputs = self.call(sample).flatten()
            for index, output in enumerate(outputs):
                last = index == self.outputs - 1
                slopes = torch.autograd.grad(
                    output, [self.parameters[name] for name in names], retain_graph=not last, allow_unused=True, materialize_grads=True
                )
                gradient = dict(zip(names, slopes, strict=True))
                for path in paths:
                    for part, row in self.split({name: gradient[name] for name in self.layers[path]}).items():
                        flat = torch.cat([tensor.reshape(-1) for tensor in row.values()])
                        if part not in kept[path]:
                            kept[path][part] = flat.new_zeros(len(samples), self.outputs, flat.numel())
                        kept[path][part][place, index] = flat
                self._done += 1
                self.progress(self._done)
                if self._sketch:
                    return _flat(kept)
        return _flat(kept)

    def _multiply(
        self,
        found: dict[str, dict[str, torch.Tensor]],
        own: Mapping[str, Mapping[str, torch.Tensor]],
        other: Mapping[str, Mapping[str, torch.Tensor]],
        start: int,
        before: int,
    ) -> None:
        samples = len(self.inputs)
        for path, parts in own.items():
            for part in parts.keys() & other[path].keys():
                rows, columns = parts[part], other[path][part]
                if part not in found[path]:
                    found[path][part] = torch.zeros(samples, samples, dtype=torch.float64, device=rows.device)
                product = products(rows, columns)
                found[path][part][start : start + len(rows), before : before + len(columns)] = product
                found[path][part][before : before + len(columns), start : start + len(rows)] = product.mT


def _flat(kept: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, dict[str, torch.Tensor]]:
    return {path: {part: rows.flatten(1) for part, rows in parts.items()} for path, parts in kept.items()}


def products(rows: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
    """Inner products of rows, in float64 and without a copy of them all.

    Args:
        rows: [n, k], floating point.
        columns: [m, k]; the rows themselves if None.

    Returns:
        [n, m], float64.
    """
    columns = rows if columns is None else columns
    total = torch.zeros(len(rows), len(columns), dtype=torch.float64, device=rows.device)
    width = max(1, BLOCK // max(len(rows), 1))
    for left, right in zip(torch.split(rows, width, 1), torch.split(columns, width, 1), strict=True):
        own = left.double()
        total.addmm_(own, (own if columns is rows else right.double()).mT)
    return total
