"""The components that come with anarch."""

from __future__ import annotations

from anarch_core.plugin.registry import get_registry


def built_in(kind: str) -> set[str]:
    """Names of those of a kind."""
    return {info.name for info in get_registry().infos(kind) if str(info.target).startswith("anarch_plugins.")}
