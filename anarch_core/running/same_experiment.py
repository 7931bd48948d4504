"""Whether a run directory holds the experiment that is asked for, so that it can be gone on with or grow.

A directory is a store of segments, each with an identity; the settings are a question to it. Another question is welcome: other seeds,
switch times, relaxations, controls, probes. Another way of training is another experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from anarch_core.cards import resolve_device
from anarch_core.config.files import KINDS, SETTINGS, chosen, options_key
from anarch_core.config.resolution import AFTER_A_SWITCH, recorded
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import RunError
from anarch_core.experiment.store import RunStore
from anarch_core.files.leftovers import only_leftovers
from anarch_core.plugin.registry import Registry


def asked_before(store: RunStore, registry: Registry) -> RunConfig | None:
    """What a run directory was asked last; None for one in which no run began.

    Raises:
        RunError: it holds something else than a run.
        AnarchError: its configuration cannot be read.
    """
    if store.config_file.exists():
        return recorded(store.config_file, registry)
    if store.path.exists() and not only_leftovers(store.path):
        msg = f"{store.path} is neither empty nor a run directory; choose another --out"
        raise RunError(msg)
    return None


def same_experiment(config: RunConfig, before: RunConfig | None, store: RunStore) -> RunConfig:
    """``config``, sharing the machine as the run in the directory did where nothing else is said, because threads decide the rounding.

    Jobs are settled anew where they mean something else: for other workers, and on cards after processors or the other way round.

    Args:
        config: the run, complete.
        before: what the directory was asked last.
        store: the directory, for the message.

    Raises:
        RunError: it holds another experiment: other data, another network, or segments that are trained in another way.
    """
    if before is None:
        return config
    differing = [f"{what} ({there!r} there, {here!r} here)" for what, there, here in _differences(before, config)]
    if differing:
        msg = f"{store.path} holds another experiment, which differs in {', '.join(differing)}; choose another --out"
        raise RunError(msg)
    jobs = before.jobs if config.workers == before.workers and _on_cards(config) == _on_cards(before) else None
    return attrs.evolve(config, jobs=config.jobs or jobs, threads=config.threads or before.threads)


def _on_cards(config: RunConfig) -> bool:
    """Whether networks are on cards, of which each takes that many jobs."""
    return (resolve_device("auto") if config.device == "auto" else config.device).startswith("cuda")


def asks_the_same(config: RunConfig, before: RunConfig) -> bool:
    """Whether the same segments and numbers are wanted."""
    names = ("identity_options", *(name for name in RunConfig.identity_fields if name in SETTINGS))
    return all(getattr(config, name) == getattr(before, name) for name in names)


def _differences(before: RunConfig, config: RunConfig) -> Iterator[tuple[str, Any, Any]]:
    """In what two experiments differ: a name, and the value of each."""
    idle = () if _switches(before) and _switches(config) else AFTER_A_SWITCH
    for name in RunConfig.identity_fields:
        there, here = getattr(before, name), getattr(config, name)
        if name in SETTINGS and not SETTINGS[name].metadata["grows"] and name not in idle and there != here:
            yield name, there, here
    if not {*config.watch} <= {*before.watch}:
        yield "watch", before.watch, config.watch
    elif config.watched_probes and before.watch_every != config.watch_every:
        yield "watch_every", before.watch_every, config.watch_every
    for spec in config.watched_probes:
        if spec in before.watch:
            yield from _different_options(spec, *(one.options.get(options_key(one, spec), {}) for one in (before, config)))
    for setting in (setting for setting in KINDS if not SETTINGS[setting].metadata["grows"]):
        for spec in chosen(config, setting):
            if spec in chosen(before, setting):
                options, others = (one.options.get(options_key(one, spec), {}) for one in (before, config))
                yield from _different_options(spec, options, others)


def _different_options(spec: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for option in dict.fromkeys([*there, *here]):
        if there.get(option) != here.get(option):
            yield f"{option} of {spec}", there.get(option), here.get(option)


def _switches(config: RunConfig) -> bool:
    return bool(config.relax or config.path or config.control)
