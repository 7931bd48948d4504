"""The one door to torchvision, which may be missing, broken, or without the name that was asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from anarch_core.errors import ConfigError


def torchvision(part: str) -> ModuleType:
    """A submodule of torchvision, ``"datasets"`` or ``"models"``.

    Raises:
        ConfigError: torchvision cannot be imported; the message is one line and says what to install.
    """
    try:
        return importlib.import_module(f"torchvision.{part}")
    except ModuleNotFoundError as error:
        msg = f"torchvision is not installed ({error}); run: pip install torchvision"
        raise ConfigError(msg) from error
    except Exception as error:
        # A torchvision built for another torch fails while it registers its operators, with a RuntimeError or an OSError.
        reason = str(error).strip().splitlines()[0]
        msg = (
            f"torchvision is installed but does not work with this torch ({reason}); install the two from one place, "
            "for example: pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        )
        raise ConfigError(msg) from error


def classification_models() -> list[str]:
    """Names of torchvision's classification models.

    Raises:
        ConfigError: torchvision cannot be imported.
    """
    models = torchvision("models")
    return list(models.list_models(module=models))
