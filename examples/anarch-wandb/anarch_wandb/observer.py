"""Each segment is a run of Weights & Biases, on the clock of its network; all of a tree are a group."""

from __future__ import annotations

from typing import Any

from anarch_core.errors import MissingDependencyError
from anarch_core.observer import (
    AbstractObserver,
    EpochDone,
    Event,
    Measured,
    RunBegun,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentStarted,
)


class WandbObserver(AbstractObserver):
    """Logs rows and measurements at the optimizer steps of the network, so that a branch's curves begin where it left its parent."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        try:
            import wandb
        except ImportError as error:
            msg = f"observer 'wandb' needs the package wandb ({error}); pip install wandb"
            raise MissingDependencyError(msg) from error
        self._wandb, self._runs = wandb, dict[str, Any]()

    def observe(self, event: Event) -> None:
        match event:
            case RunBegun():
                self._begun = event
            case SegmentStarted(segment=segment):
                self._start(segment)
            case EpochDone():
                self._log(event, event.scalars)
            case Measured():
                self._log(event, {key.replace(".", "/"): value for key, value in event.scalars.items()})
            case SegmentFinished(segment=segment, result=result):
                self._runs[segment.id].summary.update({f"final/{key}": value for key, value in result["final"].items()})
                self._runs.pop(segment.id).finish()
            case SegmentFailed(segment=segment) if segment.id in self._runs:
                self._runs.pop(segment.id).finish(exit_code=1)

    def close(self) -> None:
        for run in self._runs.values():  # stopped; they go on under the same identity
            run.finish()

    def _start(self, segment: SegmentNode) -> None:
        if segment.id in self._runs:  # its process died, and it goes on from its last saved state
            return
        forked = self.options.fork and segment.parent is not None
        self._runs[segment.id] = self._wandb.init(
            project=self.options.project,
            group=self._begun.run,
            job_type=segment.kind,
            name=segment.title,
            id=self._id(segment.id),
            config={**segment.to_json(), "run": self._begun.to_json()},
            dir=self._begun.path,
            reinit="create_new",  # several segments are trained at once
            settings=self._wandb.Settings(mode=self.options.mode, console="off", silent=True, disable_git=True, save_code=False),
            **({"fork_from": f"{self._id(segment.parent)}?_step={segment.first_step}"} if forked else self._resume()),
        )

    def _resume(self) -> dict[str, str]:
        return {"resume": "allow"} if self.options.mode == "online" else {}

    def _id(self, segment: str | None) -> str:
        return f"{self._begun.run}-{segment}"

    def _log(self, event: EpochDone | Measured, values: dict[str, float]) -> None:
        """Log at a step, unless the run is past it: what an earlier process sent is told again, and a fork has its parent's step."""
        run, segment = self._runs[event.segment.id], event.segment
        inherited = self.options.fork and segment.parent is not None and event.step <= segment.first_step
        if event.step >= run.step and not inherited:
            run.log(values, step=event.step)
