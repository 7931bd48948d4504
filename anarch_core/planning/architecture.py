"""The networks of a run, found by following relaxations and projections layer by layer; nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
from torch import nn

from anarch_core.config.stages import CONSTRAINED
from anarch_core.errors import SurgeryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment, Transition
from anarch_core.layers.base import RelaxedLayer
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.rooted import RootedLayer
from anarch_core.planning.rehearsal import Rehearsal
from anarch_core.plugin.blame import answering
from anarch_core.relaxation.base import Site
from anarch_core.relaxation.copying import replace
from anarch_core.relaxation.report import RelaxationReport, idle_of, listed
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.surgery import candidates, owner, select

LISTED = 4
"""Layers that the name of a network lists at most."""


@attrs.frozen(kw_only=True)
class Architecture:
    """The constrained network, or what relaxations and projections make of it.

    Attributes:
        name: the relaxation with its options, ``"constrained"`` without one; with its layers where these are not all that it could replace.
        steps: that make it of the constrained network.
        parts: the layers of each relaxation, as they would be replaced in the constrained network; no layer is in two of them.
        report: all of them together; None for the constrained network.
        segments: identities of those that train it.
    """

    name: str
    steps: tuple[Transition, ...] = ()
    parts: tuple[Selection, ...] = ()
    report: RelaxationReport | None = None
    segments: frozenset[str] = frozenset()


def architectures(context: RunContext, model: nn.Module, segments: Sequence[Segment]) -> tuple[Architecture, ...]:
    """The constrained network, and every other one that segments train, each once.

    Args:
        context: of the run.
        model: the constrained network.
        segments: of the run.

    Raises:
        SurgeryError: the patterns of a transition match no layer, or a stage of a path changes nothing.
    """
    find, walks = _Finder(context, model), {"[]": _Walk()}
    found, users = {walks["[]"].key: Architecture(name="constrained")}, dict[object, set[str]]()
    for segment in segments:
        way = repr([_plain(step) for step in segment.steps])
        if way not in walks:
            walks[way] = _Walk.along(segment.steps, find)
        key = walks[way].key
        if key not in found:
            found[key] = walks[way].architecture(find)
        users.setdefault(key, set()).add(segment.id)
    return tuple(attrs.evolve(made, segments=frozenset(users.get(key, ()))) for key, made in found.items())


def network_name(transition: Transition) -> str:
    """A relaxation with its options, in words."""
    options = ", ".join(f"{name}={value}" for name, value in transition.options.items())
    name = transition.relaxation or CONSTRAINED
    return f"{name} ({options})" if options else name


def _plain(step: Transition) -> Transition:
    """What a step does to the layers."""
    action: Literal["project", "relax"] = "project" if step.action == "project" else "relax"
    return attrs.evolve(step, action=action, optimizer_state="reset", then=())


class _Finder:
    """Finds the layers of the constrained network that a relaxation replaces, once for each way to ask."""

    def __init__(self, context: RunContext, model: nn.Module) -> None:
        self.context, self.model = context, model
        self._found: dict[str, Selection] = {}

    def __call__(self, step: Transition) -> Selection:
        key = repr(_plain(step))
        if key not in self._found:
            example, registry = self.context.data.inputs("train")[:2], self.context.registry
            self._found[key] = Selection.of(self.model, step.relaxation or "", example, step.layers, step.options, registry)
        return self._found[key]


@attrs.define
class _Walk:
    """A network on its way.

    Attributes:
        steps: taken so far.
        made: by path, what was done to the layers that are replaced now: by which step, and how the layer stood before it. More than one
            step where a later one builds on what an earlier one made, and does not take its place.
        refused: path -> reason.
        idle: path -> reason why the last relaxation has nothing to do there.
    """

    steps: tuple[Transition, ...] = ()
    made: dict[str, list[tuple[int, Site]]] = attrs.field(factory=dict)
    refused: dict[str, str] = attrs.field(factory=dict)
    idle: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def along(cls, steps: tuple[Transition, ...], find: _Finder) -> _Walk:
        """Take all steps.

        Raises:
            SurgeryError: the patterns of one match no layer, or one of several changes nothing.
        """
        walk, hollow = cls(steps), Rehearsal(find.model)
        for index, step in enumerate(steps):
            try:
                changed = walk._project(step, find, hollow) if step.action == "project" else walk._relax(index, find, hollow)
            except SurgeryError as error:
                msg = f"{network_name(step)} of {','.join(step.layers)}: {error}"
                raise SurgeryError(msg, paths=error.paths) from error
            if not changed and len(steps) > 1:
                family, layers = network_name(step), ",".join(step.layers)
                why = ("" if step.action == "project" else walk._why_unchanged(find(step))) or f": all of these layers are {family} by then"
                msg = f"{family} of {layers} changes nothing{why}; name others, or leave the stage out"
                raise SurgeryError(msg)
        return walk

    def _relax(self, index: int, find: _Finder, hollow: Rehearsal) -> bool:
        step = self.steps[index]
        found, new = find(step), []
        others = candidates(hollow.model, found.relaxation.targets)
        again = [path for path in (*found.refused, *found.idle) if path in self.made and path in others]  # it is another layer by now
        self.refused |= {path: why for path, why in found.refused.items() if path not in self.made and owner(path, self.made) is None}
        self.idle = {path: why for path, why in found.idle.items() if path not in again and owner(path, self.made) is None}
        for site in (*found.sites, *(self.made[path][-1][1] for path in again)):
            if owner(site.path, self.made.keys() - {site.path}) is not None:
                continue  # it is a part of a layer that was replaced
            before = self.made.get(site.path, [])
            if before:
                if network_name(self.steps[before[-1][0]]) == network_name(step):
                    continue  # it stays
                now = attrs.evolve(site, module=hollow.model.get_submodule(site.path))
                nothing = answering(found.relaxation.idle, str, type(None))(now)
                if nothing is not None:
                    self.idle[site.path] = nothing
                    continue
                refusal = answering(found.relaxation.refusal, str, type(None))(now)
                if refusal is not None:
                    self.refused[site.path] = refusal
                    continue
                if isinstance(now.module, ConstrainedLayer):
                    site = now
                elif isinstance(now.module, RootedLayer):  # a layer of the lattice takes the place of one before it
                    *before, (_, site) = before
                else:
                    before = []
            new.append(site)
            self.made[site.path] = [*before, (index, site)]
        hollow.relax(attrs.evolve(found, sites=new))
        return bool(new or self.refused)

    def _why_unchanged(self, found: Selection) -> str:
        """Why a relaxation replaced nothing, at the end of a sentence; empty where it made these layers before."""
        if self.idle:
            return f": {idle_of(self.idle)}"
        if not found.sites:
            return found.report().why_none
        inside = [site.path for site in found.sites if site.path not in self.made]
        return f": what is inside of a relaxed layer goes with it ({listed(inside)})" if inside else ""

    def _project(self, step: Transition, find: _Finder, hollow: Rehearsal) -> bool:
        paths, constrained = candidates(hollow.model, (RelaxedLayer,)), Rehearsal(find.model).model
        chosen = select(paths, step.layers)
        for path in chosen:
            hollow.model = replace(hollow.model, paths[path], constrained.get_submodule(path))
            del self.made[path]
        for path in [path for path in self.made if owner(path, chosen) is not None]:
            del self.made[path]  # it was relaxed before what it is a part of
        return bool(chosen)

    @property
    def key(self) -> object:
        """Equal for networks of the same layers."""
        made = sorted((path, self._name(chain)) for path, chain in self.made.items())
        return (*made, *self.refused, *([network_name(self.steps[-1])] if self._idle else []))

    @property
    def _idle(self) -> bool:
        """Whether a relaxation was asked for, and nothing is relaxed."""
        return bool(self.steps) and not self.made and self.steps[-1].action != "project"

    def architecture(self, find: _Finder) -> Architecture:
        """The network as it stands."""
        parts = self._parts(find, [entry for chain in self.made.values() for entry in chain])
        last = self._parts(find, [chain[-1] for chain in self.made.values()])
        layers: dict[str, list[str]] = {}
        if self._idle:
            layers[network_name(self.steps[-1])] = []
        for path, chain in self.made.items():
            layers.setdefault(self._name(chain), []).append(path)
        everywhere = find(attrs.evolve(self.steps[max(last)], layers=find.context.config.layers)).sites
        names = [f"{name}[{_listed(paths)}]" for name, paths in layers.items()]
        if len(layers) == 1 and {site.path for site in everywhere} == self.made.keys():
            names = list(layers)
        reports = [part.report() for part in last.values()]
        return Architecture(
            name=" + ".join(names),
            steps=self.steps,
            parts=tuple(parts.values()),
            report=attrs.evolve(
                reports[-1],
                relaxation=reports[0].relaxation if len(reports) == 1 else " + ".join(names),
                layers=[layer for report in reports for layer in report.layers],
                refused=self.refused,
                idle=self.idle,
            ),
        )

    def _parts(self, find: _Finder, entries: Sequence[tuple[int, Site]]) -> dict[int, Selection]:
        """By step, the layers that it replaces; one without any where a relaxation was asked for and there is nothing to relax."""
        indices = sorted({index for index, _ in entries}) or ([len(self.steps) - 1] if self._idle else [])
        return {
            index: attrs.evolve(find(self.steps[index]), sites=[site for by, site in entries if by == index], refused={}, idle={})
            for index in indices
        }

    def _name(self, chain: Sequence[tuple[int, Site]]) -> str:
        """What became of a layer: the relaxation, or several, each of which builds on the one before."""
        return " → ".join(network_name(self.steps[index]) for index, _ in chain)


def _listed(paths: Sequence[str]) -> str:
    return ",".join(paths) if len(paths) <= LISTED else f"{','.join(paths[:LISTED])} and {len(paths) - LISTED} more"
