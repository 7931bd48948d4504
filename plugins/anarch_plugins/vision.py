"""The one door to torchvision, which may be missing, broken, or without the name that was asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from anarch_core.errors import MissingDependencyError


def torchvision(part: str) -> ModuleType:
    """A submodule of torchvision, ``"datasets"`` or ``"models"``.

    Raises:
        MissingDependencyError: torchvision cannot be imported; the message is one line and says what to install.
    """
    try:
        return importlib.import_module(f"torchvision.{part}")
    except ModuleNotFoundError as error:
        msg = f"torchvision is needed here and is not installed ({error}); run: pip install torchvision"
        raise MissingDependencyError(msg) from error
    except Exception as error:
        # A torchvision built for another torch fails as it registers its operators, with a RuntimeError or an OSError.
        reason = str(error).strip().partition("\n")[0]
        msg = (
            f"torchvision is needed here and is built for another torch than {torch.__version__} ({reason}); install both together, from "
            "one index: pip install --force-reinstall torch torchvision, with the --index-url that pytorch.org gives for this build"
        )
        raise MissingDependencyError(msg) from error
