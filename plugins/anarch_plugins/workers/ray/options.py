"""The options of the workers in Ray."""

from __future__ import annotations

import re
from typing import Any

import attrs

from anarch_core.plugin import between, opt

HOST_PORT = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


def _address(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or (value not in ("local", "auto") and not HOST_PORT.fullmatch(value)):
        msg = f"{attribute.name!r} must be local, auto or HOST:PORT: {value!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class RayOptions:
    """Options of the workers in Ray."""

    address: str = attrs.field(
        default="local",
        validator=_address,
        metadata=opt("Cluster: local, a Ray of the run's own; auto, that of which this machine is a node; or HOST:PORT of its head."),
    )
    gpus: float | None = attrs.field(
        default=None,
        validator=between(0, 1),
        metadata=opt("GPUs of a worker, a fraction to share one; 1 if not given, 0 on the CPU and where the cluster has none."),
    )
