"""The one loop that trains, penalties beside its loss, and the evaluation of a network."""

from anarch_core.training.evaluation import Score, evaluate
from anarch_core.training.penalty import AbstractPenalty, PartSquare, Penalties, Progress, Ramp, Term

__all__ = ["AbstractPenalty", "PartSquare", "Penalties", "Progress", "Ramp", "Score", "Term", "evaluate"]
