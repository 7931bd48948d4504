"""Whether the schedule of a run finds in the trunk's history what it looks at."""

from __future__ import annotations

from anarch_core.config.run_config import GRADIENT_NORM
from anarch_core.config.watching import needed, watched_probe
from anarch_core.errors import ConfigError, close_matches, did_you_mean
from anarch_core.experiment.context import RunContext
from anarch_core.probe.base import COMPANIONS
from anarch_core.probe.measuring import missing_needs

_MISSING = {
    "relaxed": "relaxed layers",
    "parent": "the network before it was relaxed",
    "reference": "the network at an earlier moment",
    **dict.fromkeys(COMPANIONS, "a network of another segment"),
}


def require_columns(context: RunContext) -> None:
    """Refuse a schedule that looks at what the trunk's history will not have, and probes that cannot be watched on it.

    Raises:
        ConfigError: with the columns that there are.
    """
    config, data = context.config, context.data
    model = context.build(config.seeds[0])
    for name, probe in context.watched.items():
        missing = missing_needs(probe, model, data=data)
        if missing:
            wanted = ", ".join(_MISSING.get(need, need) for need in missing)
            msg = f"probe {name} cannot be watched: it needs {wanted}, and the trunk is the constrained network alone"
            raise ConfigError(msg)
    columns = needed(context.schedule)
    if not columns:
        return
    scores = ["loss", *(metric.name for metric in data.objective.metrics)]
    known = ["epoch", *(f"train_{score}" for score in scores), "learning_rate", GRADIENT_NORM]
    held_out = [f"validation_{score}" for score in scores]
    if data.y_validation is not None:
        known += held_out
    for column in columns:
        if column in known or watched_probe(column, context.watched) is not None:
            continue
        part, _, score = column.partition("_")
        if part == "test":
            why = f"is of the test set, which decides nothing; hold out a part (--validation) and take 'validation_{score}'"
        elif column in held_out:
            why = "needs a part of the training set that is held out; add one, as in --validation 0.1"
        else:
            close = did_you_mean(close_matches(column, [*known, *held_out]))
            why = f"is no column of the history{close}; there are {', '.join(known)}, and PROBE.SCALAR, as in hessian.lambda_max"
        msg = f"switch {config.switch!r} looks at {column!r}, which {why}"
        raise ConfigError(msg)
