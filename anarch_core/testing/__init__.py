"""For authors of plugins: what the interfaces promise, as tests to subclass. Needs the extra ``anarch[test]``.

A test file of a plugin::

    from anarch_core.testing import RelaxationConformance

    class TestConformance(RelaxationConformance):
        name = "gpsa"
"""

from __future__ import annotations

from anarch_core.errors import MissingDependencyError

try:
    import hypothesis  # noqa: F401
    import pytest
except ModuleNotFoundError as error:
    msg = f"the conformance kit needs {error.name}; pip install 'anarch[test]'"
    raise MissingDependencyError(msg) from error

# Before they are imported, so that a failing check shows the values it compared.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "augmentation",
            "bench",
            "component",
            "dataset",
            "family",
            "figure",
            "lift",
            "marked",
            "model",
            "objective",
            "observer",
            "optimizer",
            "matrices",
            "patience",
            "penalty",
            "probe",
            "relaxation",
            "schedule",
            "shift",
            "stories",
            "subject",
            "tools",
            "workers",
        )
    )
)

from anarch_core.testing.augmentation import AugmentationConformance  # noqa: E402
from anarch_core.testing.dataset import DatasetConformance  # noqa: E402
from anarch_core.testing.figure import FigureConformance  # noqa: E402
from anarch_core.testing.model import ModelConformance  # noqa: E402
from anarch_core.testing.objective import ObjectiveConformance  # noqa: E402
from anarch_core.testing.observer import ObserverConformance  # noqa: E402
from anarch_core.testing.optimizer import OptimizerConformance  # noqa: E402
from anarch_core.testing.penalty import PenaltyConformance  # noqa: E402
from anarch_core.testing.probe import ProbeConformance  # noqa: E402
from anarch_core.testing.relaxation import RelaxationConformance  # noqa: E402
from anarch_core.testing.schedule import ScheduleConformance  # noqa: E402
from anarch_core.testing.workers import WorkersConformance  # noqa: E402

__all__ = [
    "AugmentationConformance",
    "DatasetConformance",
    "FigureConformance",
    "ModelConformance",
    "ObjectiveConformance",
    "ObserverConformance",
    "OptimizerConformance",
    "PenaltyConformance",
    "ProbeConformance",
    "RelaxationConformance",
    "ScheduleConformance",
    "WorkersConformance",
]
