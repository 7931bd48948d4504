"""MLflow for anarch."""

from __future__ import annotations

from anarch_core.plugin import ObserverInfo, hookimpl
from anarch_mlflow.options import MlflowOptions

anarch_api = (1, 1)


@hookimpl
def anarch_observers() -> list[ObserverInfo]:
    """The observer ``mlflow``."""
    return [
        ObserverInfo(
            name="mlflow",
            summary="Logs to MLflow: a run of anarch is a run, its segments are nested in it as the tree is.",
            target="anarch_mlflow.observer:MlflowObserver",
            options=MlflowOptions,
            references=("https://mlflow.org",),
        )
    ]
