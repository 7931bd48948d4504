"""The network ``ista``."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from anarch_plugins.models.ista.options import IstaOptions


class Dictionary(nn.Module):
    """What reads a dictionary.

    Attributes:
        dictionary: [atoms, size], an atom a row.
    """

    def __init__(self, dictionary: nn.Parameter) -> None:
        super().__init__()
        self.dictionary = dictionary

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random atoms; the spectral norm of all is about 1, so that ISTA with steps of size 1 converges."""
        atoms, size = self.dictionary.shape
        self.dictionary.normal_(std=1 / (math.sqrt(size) + math.sqrt(atoms)))


class Synthesis(Dictionary):
    """The signal that a code stands for."""

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """[batch, atoms] to [batch, size]."""
        return code @ self.dictionary


class Analysis(Dictionary):
    """How much of each atom a signal has in it."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """[batch, size] to [batch, atoms]."""
        return signal @ self.dictionary.t()


class Step(nn.Module):
    """One step down the distance of D z from the signal, and a shrinkage of the code by a threshold that is learned.

    Attributes:
        synthesis: code to signal.
        analysis: signal to code, with the same dictionary.
        threshold: [atoms].
    """

    def __init__(self, size: int, atoms: int) -> None:
        super().__init__()
        dictionary = nn.Parameter(torch.empty(atoms, size))
        self.synthesis = Synthesis(dictionary)
        self.analysis = Analysis(dictionary)
        self.threshold = nn.Parameter(torch.empty(atoms))
        self.reset_parameters()
        self.synthesis.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The thresholds; the dictionary is reset where it is read."""
        self.threshold.fill_(0.05)

    def forward(self, code: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """The next code, [batch, atoms]."""
        code = code + self.analysis(signal - self.synthesis(code))
        return functional.relu(code - self.threshold) - functional.relu(-code - self.threshold)


class Ista(nn.Module):
    """Steps from the zero code, and a linear head on the code.

    Attributes:
        step: called ``steps`` times.
        head: [batch, atoms] to [batch, classes].
        steps: how often.
    """

    def __init__(self, size: int, atoms: int, steps: int, classes: int) -> None:
        super().__init__()
        self.step = Step(size, atoms)
        self.head = nn.Linear(atoms, classes)
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, *input_shape] to [batch, classes]."""
        signal = x.flatten(1)
        code = signal.new_zeros(len(signal), self.head.in_features)
        for _ in range(self.steps):
            code = self.step(code, signal)
        logits: torch.Tensor = self.head(code)
        return logits


def build(input_shape: tuple[int, ...], classes: int, options: IstaOptions) -> Ista:
    """The network for inputs of any shape, which are flattened.

    Args:
        input_shape: any.
        classes: number of outputs.
        options: atoms and steps.
    """
    return Ista(math.prod(input_shape), options.atoms, options.steps, classes)
