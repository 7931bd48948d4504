"""Options of the model ``torchvision``."""

from __future__ import annotations

from pathlib import Path

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class TorchvisionModelOptions:
    """Which model, and the weights it starts from."""

    model: str = attrs.field(metadata=opt("Name of the model, as torchvision has it, e.g. resnet18."))
    weights: Path | None = attrs.field(
        default=None,
        metadata=opt("File of weights to start from (.safetensors, or .pth as torchvision publishes them); random if not given."),
    )
