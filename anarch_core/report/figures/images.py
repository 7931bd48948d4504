"""Pictures of weights: their logarithms, and the limits and titles that panels of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]

LOG_WEIGHT = r"$\ln|w|$"
"""Label of a scale of weights, their logarithms."""


def log_weights(weights: Array) -> Array:
    """Logarithm of the absolute value; weights that are exactly zero are left blank."""
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.abs(weights.astype(np.float64)))
    return np.where(np.isfinite(logarithms), logarithms, np.nan)


def image_limits(images: Sequence[Array]) -> dict[str, Any]:
    """Arguments of ``imshow`` that give all images one scale of colours, without outliers."""
    known = np.concatenate([image[np.isfinite(image)] for image in images])
    low, high = (-1.0, 0.0) if not len(known) else np.percentile(known, [1, 99.8])
    return {"vmin": float(low), "vmax": float(max(high, low + 1e-6)), "cmap": mpl.colormaps["viridis"], "interpolation": "nearest"}


def panel_title(axes: Axes, name: str, series: str | None) -> None:
    """A panel's title, under that of its row in the first panel; the latter may reach over the panels beside it."""
    axes.set_title(name if series is None else f"{series}\n{name}", loc="left")
