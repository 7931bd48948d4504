"""The probe ``filters``."""

from __future__ import annotations

import torch

from anarch_core.layers import relaxed_layers
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, chosen_layer, spatial_layers
from anarch_plugins.probes.filters.options import FiltersOptions


class FiltersProbe(AbstractProbe):
    """Keeps the rows of a layer's matrix that belong to one output position, each as an image over the whole input of the layer.

    ``filters`` is [channels, in_channels / groups, *input size]; where there is no weight it is zero. ``inside`` is 1 on the receptive
    field and 0 outside, [*input size]. The scalars are the root mean square weight inside and outside of it.
    """

    needs = frozenset({"data"})

    options: FiltersOptions

    def measure(self, context: ProbeContext) -> Measurement:
        """Take the filters.

        Raises:
            ProbeError: there are no data to size the layers by, or no such layer.
        """
        spatial = spatial_layers(context.model, context.required_data.inputs("test")[:1])
        relaxed = not spatial or any(layer.relaxed for layer in spatial.values()) or not relaxed_layers(context.model)
        if self.options.layer is None and not (spatial and relaxed):
            omitted = f"no {'relaxed layer' if spatial else 'layer'} is or was a convolution, so there are no filters"
            return Measurement(scalars=dict.fromkeys(("rms_inside", "rms_outside")), details={"layer": None}, omitted=omitted)
        layer = chosen_layer(spatial, self.options.layer)
        sizes = layer.geometry.output_size
        position = tuple(0 if self.options.position == "first" else size // 2 for size in sizes)
        filters = layer.filters(position)[: self.options.channels].clone()
        inside = layer.inside(position)
        scalars = {"rms_inside": _rms(filters[..., inside > 0]), "rms_outside": _rms(filters[..., inside == 0])}
        details = {"layer": layer.path, "position": list(position), "channels": len(filters), "relaxed": layer.relaxed}
        return Measurement(scalars=scalars, details=details, tensors={"filters": filters, "inside": inside})


def _rms(weights: torch.Tensor) -> float | None:
    value = float(weights.double().square().mean().sqrt()) if weights.numel() else None
    return value if value is None or value < float("inf") else None
