"""``anarch probe`` from Python: a network that is at hand is measured by a probe's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from anarch_core.bounds import shown
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ConfigError, ProbeError
from anarch_core.models import input_dtype
from anarch_core.network import unwrapped
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.probe.base import Measurement, ProbeContext
from anarch_core.probe.measuring import measured, missing_needs

_MISSING = {
    "data": "data to measure on: pass data=TensorData, as anarch_core.data.load_data gives it",
    "relaxed": "a network with relaxed layers, and this one has none: anarch_core.relax makes one",
    "reference": "the network to compare with: pass reference=NETWORK, as it was when training began",
    "parent": "the network that this one was lifted from: pass parent=NETWORK",
    "twin": "the network that met the batches in another order: pass twin=NETWORK",
    "control": "the constrained network that was trained as long: pass control=NETWORK",
    "sibling": "the network of another seed: pass sibling=NETWORK",
}


def measure(
    model: nn.Module,
    probe: str,
    *,
    data: TensorData | None = None,
    reference: nn.Module | None = None,
    parent: nn.Module | None = None,
    twin: nn.Module | None = None,
    control: nn.Module | None = None,
    sibling: nn.Module | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    registry: Registry | None = None,
) -> Measurement:
    """Measure a network, which is left as it was: ``anarch probe``.

    Args:
        model: the network; a compiled or wrapped one is measured inside.
        probe: name of a probe, with its first option where it is ``name:value``.
        data: what to measure on; moved to the network's device and type.
        reference: the network at the start of its training, for probes that compare.
        parent: the constrained network it was lifted from, for probes that compare.
        twin: the network that started from the same one and met the batches in another order, likewise.
        control: the constrained network that was trained on as long without being relaxed, likewise.
        sibling: the network of another seed, likewise.
        options: of the probe, by name.
        seed: for any randomness of the probe.
        registry: where the probe is looked up, the installed plugins by default.

    Raises:
        ConfigError: the model is no network.
        UnknownComponentError: no plugin provides the probe.
        OptionError: an option is unknown or has a value that is not allowed.
        ProbeError: something that it needs was not passed, or the network does not allow the measurement.
    """
    if not isinstance(model, nn.Module):
        msg = f"expected a network, a torch.nn.Module, got {shown(model)}; anarch_core.load reads one from a file"
        raise ConfigError(msg)
    registry = registry or get_registry()
    info, given = registry.chosen("probe", probe, options)
    name = parse_spec(probe)[0]
    made = registry.call(info, registry.parse_options(info, given))
    given = {"reference": reference, "parent": parent, "twin": twin, "control": control, "sibling": sibling}
    network, others = unwrapped(model), {role: None if other is None else unwrapped(other) for role, other in given.items()}
    for need in missing_needs(made, network, data=data, **others):
        msg = f"the probe {name} needs {_MISSING[need]}"
        raise ProbeError(msg)
    if data is not None:
        device = next((parameter.device for parameter in network.parameters()), data.x_train.device)
        data = data.to(device, input_dtype(network, data.x_train))
    return measured(made, ProbeContext(model=network, data=data, seed=seed).beside(others))
