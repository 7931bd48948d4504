"""The one loop that trains, and the evaluation of a network."""

from anarch_core.training.evaluation import Score, evaluate

__all__ = ["Score", "evaluate"]
