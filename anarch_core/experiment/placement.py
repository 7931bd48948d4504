"""Where segments are trained: on this machine, or by workers on others."""

from __future__ import annotations

from anarch_core.cards import resolve_device
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import WorkersInfo
from anarch_core.plugin.registry import Registry


def trained_elsewhere(config: RunConfig, registry: Registry) -> bool:
    """Whether the workers of a run are on other machines, of which nothing can be known here."""
    info = registry.find("workers", parse_spec(config.workers)[0])
    return isinstance(info, WorkersInfo) and info.remote


def looked_into_on(config: RunConfig, registry: Registry) -> str:
    """The device on which this process looks into what is to be trained: the run's, or the processor where it is trained elsewhere.

    Raises:
        ConfigError: the device is not there; or it is a card by its number, where workers elsewhere see to that.
    """
    if not trained_elsewhere(config, registry):
        return resolve_device(config.device)
    if ":" in config.device:
        msg = f"workers {config.workers!r} see to it which card of which machine trains what, got device {config.device!r}; use cuda"
        raise ConfigError(msg)
    return "cpu"
