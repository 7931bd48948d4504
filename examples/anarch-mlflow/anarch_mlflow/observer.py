"""A run of anarch is a run of MLflow; its segments are runs nested in it, each under the segment that it started from."""

from __future__ import annotations

from typing import Any

from anarch_core.errors import MissingDependencyError
from anarch_core.observer import (
    AbstractObserver,
    EpochDone,
    Event,
    Measured,
    RunBegun,
    RunFinished,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentStarted,
    flattened,
)

ENDS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "broken": "FAILED"}
LONGEST = 500
"""Characters of a parameter that every server takes."""


class MlflowObserver(AbstractObserver):
    """Logs rows and measurements at the optimizer steps of the network.

    Runs are found again by tags, so that a run that is gone on with goes on in MLflow too; a value that is there is not logged again.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            msg = f"observer 'mlflow' needs the package mlflow ({error}); pip install mlflow"
            raise MissingDependencyError(msg) from error
        self._new_client, self._runs, self._logged = MlflowClient, dict[str, str](), dict[tuple[str, str], set[int]]()

    def observe(self, event: Event) -> None:
        match event:
            case RunBegun():
                self._begin(event)
            case SegmentStarted(segment=segment):
                self._start(segment)
            case EpochDone() | Measured():
                for key, value in event.scalars.items():
                    self._log(self._runs[event.segment.id], key, value, event)
            case SegmentFinished(segment=segment, result=result):
                self._client.set_tag(self._runs[segment.id], "anarch.parameters", result["parameters"])
                self._client.set_terminated(self._runs[segment.id], "FINISHED")
            case SegmentFailed(segment=segment, error=error) if segment.id in self._runs:
                self._client.set_tag(self._runs[segment.id], "anarch.error", error)
                self._client.set_terminated(self._runs[segment.id], "FAILED")
            case RunFinished(status=status):
                self._client.set_terminated(self._root, ENDS[status])

    def _begin(self, begun: RunBegun) -> None:
        self._client = self._new_client(self.options.uri or f"sqlite:///{begun.path}/mlflow.db")
        found = self._client.get_experiment_by_name(self.options.experiment)
        self._experiment = self._client.create_experiment(self.options.experiment) if found is None else found.experiment_id
        self._tags = {"anarch.run": begun.run, "anarch.path": begun.path}
        self._root = self._run({**self._tags, "anarch.segment": "all"}, begun.path.rpartition("/")[2], begun.config)

    def _start(self, segment: SegmentNode) -> None:
        parent = self._runs.get(segment.parent or "", self._root)
        tags = {**self._tags, "anarch.segment": segment.id, "anarch.kind": segment.kind, "mlflow.parentRunId": parent}
        settings = {**segment.settings, "seed": segment.seed, "relaxation": segment.relaxation, "switch_epoch": segment.switch_epoch}
        self._runs[segment.id] = self._run(tags, segment.title, settings)

    def _run(self, tags: dict[str, str], name: str, parameters: Any) -> str:
        """The run with these tags, made if there is none."""
        same = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in ("anarch.run", "anarch.segment"))
        if found := self._client.search_runs([self._experiment], same, max_results=1):
            identity: str = found[0].info.run_id
            self._client.update_run(identity, "RUNNING")
            return identity
        from mlflow.entities import Param

        identity = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        given = [Param(key, str(value)[:LONGEST]) for key, value in flattened(parameters).items() if value is not None]
        self._client.log_batch(identity, params=given)
        return identity

    def _log(self, run: str, key: str, value: float, event: EpochDone | Measured) -> None:
        if (run, key) not in self._logged:
            self._logged[run, key] = {metric.step for metric in self._client.get_metric_history(run, key)}
        if event.step not in self._logged[run, key]:
            self._logged[run, key].add(event.step)
            self._client.log_metric(run, key, value, timestamp=int(event.time * 1000), step=event.step)
