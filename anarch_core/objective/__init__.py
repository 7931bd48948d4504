"""What a network is trained for: its loss, the scores it is judged by, and the targets that it takes.

A door for authors of objectives. The interface takes no torch; what needs it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.lazy import lazy_names
from anarch_core.objective.base import AbstractObjective, Metric, Reduction, reduced

if TYPE_CHECKING:
    from anarch_core.labels import described, labels_problem
    from anarch_core.objective.classification import AbstractClassification, CrossEntropy
    from anarch_core.objective.outputs import outputs_of

__all__ = [
    "AbstractClassification",
    "AbstractObjective",
    "CrossEntropy",
    "Metric",
    "Reduction",
    "described",
    "labels_problem",
    "outputs_of",
    "reduced",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AbstractClassification": "anarch_core.objective.classification",
        "CrossEntropy": "anarch_core.objective.classification",
        "described": "anarch_core.labels",
        "labels_problem": "anarch_core.labels",
        "outputs_of": "anarch_core.objective.outputs",
    },
)
