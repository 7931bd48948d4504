"""Staged relaxations: ``lcn@10,efcn@40,conv@80``, and layer by layer ``lcn[features.0]@10,lcn@40``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import AnarchError, ConfigError
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry
from anarch_core.schedule import Moment

CONSTRAINED = "conv"
"""Name of the stage of a path that projects back to the constrained network."""

_LABEL = re.compile(r"(?P<family>[^\[\]]+)(\[(?P<layers>.*)\])?")


@attrs.frozen
class Stage:
    """One step of a staged path: at ``moment`` of the trunk's clock layers of the network become members of ``family``.

    Attributes:
        family: a relaxation, or ``"conv"`` for the projection back to the constrained network.
        moment: text of a moment, counted from the start of the trunk: ``"10"``, ``"10ep"``, ``"500it"``.
        layers: patterns of the layers, as for ``--layers``; None for all that the run relaxes. Layers that are of the family already stay
            as they are.
    """

    family: str
    moment: str
    layers: tuple[str, ...] | None = None

    @property
    def constrained(self) -> bool:
        """Whether this stage projects back."""
        return self.family == CONSTRAINED

    @property
    def label(self) -> str:
        """The family and the layers, without the moment: ``"lcn[features.0]"``."""
        return self.family if self.layers is None else f"{self.family}[{','.join(self.layers)}]"

    @classmethod
    def parse_path(cls, text: str) -> tuple[Stage, ...]:
        """Read ``"lcn@10,efcn@40,conv@80"`` or ``"lcn[features.0]@10,lcn@40"``.

        Raises:
            ConfigError: not of that form, or stages that change nothing, or moments of one unit that do not ascend.
        """
        stages = [cls._parse(part, text) for part in _split(text)]
        if stages[0].constrained:
            msg = f"path {shown(text)} starts with {CONSTRAINED!r}, which the trunk already is; start with a relaxation"
            raise ConfigError(msg)
        for before, after in itertools.pairwise(stages):
            if before.family == after.family and before.layers in (None, after.layers):
                msg = f"path {shown(text)} names {shown(after.label)} after {shown(before.label)}, which changes nothing"
                raise ConfigError(msg)
            same_unit = before.moment.endswith("it") == after.moment.endswith("it")
            if same_unit and Moment.parse(before.moment, 1) >= Moment.parse(after.moment, 1):
                msg = f"the moments of path {shown(text)} must ascend: {after.moment} does not come after {before.moment}"
                raise ConfigError(msg)
        return tuple(stages)

    @classmethod
    def _parse(cls, part: str, path: str) -> Stage:
        label, at, moment = part.strip().rpartition("@")
        match = _LABEL.fullmatch(label)
        if not at or match is None:
            msg = (
                f"stage {shown(part)} of path {shown(path)} is not of the form relaxation@moment or relaxation[layers]@moment, as in "
                f"'NAME@10', 'NAME[features.0,features.3]@10' or '{CONSTRAINED}@80'"
            )
            raise ConfigError(msg)
        Moment.parse(moment, 1)
        layers = None if match["layers"] is None else tuple(pattern.strip() for pattern in _split(match["layers"]))
        if layers is not None and not all(pattern.removeprefix("!") for pattern in layers):
            msg = f"stage {shown(part)} of path {shown(path)} has brackets with an empty pattern; name layers, or leave the brackets out"
            raise ConfigError(msg)
        return cls(match["family"], moment, layers)


def essential(stages: Iterable[Stage], registry: Registry) -> tuple[Stage, ...]:
    """The stages that make the network at the end of a path of the constrained one; those that later ones cover are left out.

    Stages in the lattice of convolutions cover those before them: ``lcn@10,efcn@40`` ends in the network that ``efcn`` alone makes,
    ``lcn[features.0]@10,efcn[features.3]@40`` needs both. Of other relaxations nothing is left out but by the projection of all layers:
    ``ungroup@5,lcn@10`` ends in locally connected layers without groups.

    Args:
        stages: of the path.
        registry: tells which relaxations are of the lattice.
    """
    kept: list[Stage] = []
    open_from = 0  # before it nothing is covered but by the projection of all layers
    for stage in stages:
        if stage.constrained and stage.layers is None:
            kept, open_from = [], 0
        elif stage.constrained:
            kept += [stage] if kept else []
        elif _of_lattice(stage, registry):
            # What others relaxed of these layers may be left for a projection to undo.
            left = [] if stage.layers is None else [earlier for earlier in kept[open_from:] if earlier.layers != stage.layers]
            kept[open_from:] = [*left, stage]
        else:
            kept.append(stage)
            open_from = len(kept)
    return tuple(kept)


def last_network(label: str, registry: Registry) -> str:
    """Of the label of a path, ``"lcn>efcn"``, that of the network at its end, ``"efcn"``; see :func:`essential`."""
    stages = [Stage._parse(f"{part}@0", label) for part in label.split(">")]
    return ">".join(stage.label for stage in essential(stages, registry))


def _of_lattice(stage: Stage, registry: Registry) -> bool:
    try:
        info = registry.find("relaxation", parse_spec(stage.family)[0])
    except AnarchError:  # of a run whose plugin is not here
        return False
    return isinstance(info, RelaxationInfo) and info.lattice


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
