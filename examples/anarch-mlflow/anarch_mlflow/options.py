"""Options of ``mlflow``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class MlflowOptions:
    """Where the runs go; ``--observe mlflow:my-experiment`` sets the first option."""

    experiment: str = attrs.field(default="anarch", metadata=opt("Experiment of the runs."))
    uri: str | None = attrs.field(
        default=None, metadata=opt("Tracking server or database, as in MLFLOW_TRACKING_URI; mlflow.db in the run directory if none.")
    )
