"""Whether a run directory holds the experiment that is asked for, so that it can be gone on with."""

from __future__ import annotations

import attrs

from anarch_core.config.resolution import recorded
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import RunError
from anarch_core.experiment.store import RunStore
from anarch_core.files.leftovers import only_leftovers


def same_experiment(config: RunConfig, store: RunStore) -> RunConfig:
    """``config``, sharing the machine as the run in the directory did, because that decides the rounding.

    Raises:
        RunError: the directory holds another experiment.
    """
    if not store.config_file.exists():
        if store.path.exists() and not only_leftovers(store.path):
            msg = f"{store.path} is neither empty nor a run directory; choose another --out"
            raise RunError(msg)
        return config
    before = recorded(store.config_file)
    differing = [
        f"{name} ({getattr(before, name)!r} there, {getattr(config, name)!r} here)"
        for name in RunConfig.identity_fields
        if name != "options" and getattr(before, name) != getattr(config, name)
    ]
    options = before.identity_options, config.identity_options
    differing += [f"options of {name}" for name in sorted({*options[0], *options[1]}) if options[0].get(name) != options[1].get(name)]
    if differing:
        msg = f"{store.path} holds another experiment, which differs in {', '.join(differing)}; choose another --out"
        raise RunError(msg)
    return attrs.evolve(config, jobs=config.jobs or before.jobs, threads=config.threads or before.threads)
