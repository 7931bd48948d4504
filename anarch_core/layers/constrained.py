"""Any module whose parameters were under linear constraints until it was relaxed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.fx import Proxy

from anarch_core.constraint.parts import Drift, Part
from anarch_core.constraint.product import Constraint
from anarch_core.errors import PluginError, SurgeryError
from anarch_core.layers.base import RelaxedLayer, weighted_sum
from anarch_core.layers.hollow import filled, hollow_copy


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias by its name: ``bias``, ``bias_hh_l0``, ``in_proj_bias``."""
    last = name.rpartition(".")[2]
    return last == "bias" or last.startswith("bias_") or last.endswith("_bias")


@attrs.frozen(kw_only=True)
class Link:
    """How a parameter of a relaxed module came out of one of the constrained module.

    Attributes:
        parent: name of the constrained module's parameter θ.
        free: name of the relaxed module's parameter W; or of several, whose stack along a new first axis is W: copies of one. By default
            the parent's.
        constraint: W = Aθ, that held at the switch.
        variance: of an entry of W at default initialisation; None where not known.
    """

    parent: str
    free: tuple[str, ...] = attrs.field(default=attrs.Factory(lambda self: (self.parent,), takes_self=True), converter=_names)
    constraint: Constraint
    variance: float | None = None

    @property
    def is_bias(self) -> bool:
        """Whether it stands for a bias, which drift leaves out: also one that is pruned or parametrized, or of a recurrent layer."""
        return any(is_bias(name) for name in (self.parent, *self.free))

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """W, or a tensor of its shape, of what stands for each of its parameters."""
        found = [tensors[name] for name in self.free]
        return found[0] if len(found) == 1 else torch.stack(found)

    def scattered(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """What stands for each parameter: the way back from :meth:`gathered`."""
        return dict(zip(self.free, [weight] if len(self.free) == 1 else weight.unbind(), strict=True))


class ConstrainedLayer(RelaxedLayer):
    """A module whose parameters may be anything, in the place of one whose parameters are W = Aθ.

    ``free`` computes; its parameters are the layer's, under names that begin with ``free.``. Everything else that the layer does follows
    from the links. What it is asked for and does not have itself, ``free`` answers, so that code which reads the settings of the module
    that was there goes on to work. Parameters without a link are the same in both modules and count as shared.

    Attributes:
        free: the relaxed module.
        links: of its parameters to those of the constrained module.
    """

    def __init__(self, relaxation: str, free: nn.Module, links: Sequence[Link], parent: nn.Module) -> None:
        """A relaxed layer; the weights that it holds are the caller's affair.

        Args:
            relaxation: name of the relaxation.
            free: the relaxed module.
            links: see above.
            parent: the constrained module; what it is made of is kept, without its parameters.

        Raises:
            PluginError: links and modules do not fit.
        """
        super().__init__()
        self.relaxation = relaxation
        self.free = free
        self.links = tuple(links)
        self._constrained = (hollow_copy(parent),)  # in a tuple, it is no part of the layer
        self._require_fitting_links()
        for place, link in enumerate(self.links):
            like = free.get_parameter(link.free[0])
            zeros = None if link.constraint.injective else like.new_zeros(link.constraint.parent_shape, requires_grad=False)
            self.register_buffer(f"unseen{place}", zeros)

    @property
    def constrained(self) -> nn.Module:
        """The module that was relaxed first; without numbers."""
        return self._constrained[0]

    def _require_fitting_links(self) -> None:
        ours = {name: tuple(parameter.shape) for name, parameter in self.free.named_parameters()}
        theirs = {name: tuple(parameter.shape) for name, parameter in self._constrained[0].named_parameters()}
        linked = {name for link in self.links for name in link.free}
        problems = [f"{name!r} is no parameter of the free module" for name in sorted(linked - ours.keys())]
        problems += [f"{link.parent!r} is no parameter of the parent" for link in self.links if link.parent not in theirs]
        alone = sorted(ours.keys() - linked - theirs.keys())
        problems += [f"{name!r} of the free module has neither a link nor a namesake" for name in alone]
        for link in self.links if not problems else ():
            expected = link.constraint.shape if len(link.free) == 1 else link.constraint.shape[1:]
            wrong = {name: (ours[name], expected) for name in link.free if ours[name] != expected}
            if theirs[link.parent] != link.constraint.parent_shape:
                wrong[f"{link.parent} of the parent"] = theirs[link.parent], link.constraint.parent_shape
            problems += [f"{name} is {list(found)}, its constraint says {list(wanted)}" for name, (found, wanted) in wrong.items()]
        if problems:
            msg = f"the relaxation {self.relaxation} links what does not fit: {'; '.join(problems)}"
            raise PluginError(msg)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the free module."""
        return self.free(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The layer applied; one node of the graph where ``torch.fx`` traces the network around it."""
        proxy = next((given for given in (*args, *kwargs.values()) if isinstance(given, Proxy)), None)
        return nn.Module.__call__(self, *args, **kwargs) if proxy is None else self._node(proxy.tracer, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "free" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self._modules["free"], name)

    def _free_parameters(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach() for name, parameter in self.free.named_parameters()}

    def initialise(self, free: nn.Module) -> None:
        """Default initialisation of the free module: every module in it by its own ``reset_parameters``. Override it for others.

        Raises:
            SurgeryError: a parameter belongs to a module that has none.
        """
        initialised: set[int] = set()
        for module in free.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
                initialised |= {id(parameter) for parameter in module.parameters()}
        left = [name for name, parameter in free.named_parameters() if id(parameter) not in initialised]
        if left:
            msg = f"the default initialisation of {', '.join(left)} is not known: {self.relaxation} knows modules with reset_parameters()"
            raise SurgeryError(msg)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.initialise(self.free)

    @torch.no_grad()
    def project(self) -> nn.Module:
        """The constrained module nearest to this one; numbers that no weight depends on are the parent's."""
        own = self._free_parameters()
        linked = {name for link in self.links for name in link.free}
        values = {name: tensor for name, tensor in own.items() if name not in linked}
        trained = {name: parameter.requires_grad for name, parameter in self.free.named_parameters()}
        for place, link in enumerate(self.links):
            values[link.parent] = _with(link.constraint.project(link.gathered(own)), self._unseen(place))
            trained[link.parent] = trained[link.free[0]]
        return filled(self._constrained[0], values, trained, self.constrained_buffers()).train(self.training)

    def constrained_buffers(self) -> Mapping[str, torch.Tensor]:
        """Buffers of the constrained module, by name, that follow from those of the free one; the others are as they were at the switch.

        By default all that have one name and shape in both. Override it to leave out those that say what is constrained, as an index does.
        """
        return dict(self.free.named_buffers())

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """The parts of all linked weights together; biases are left out, as in the paper.

        Raises:
            SurgeryError: the reference is not such a layer.
        """
        if reference is not None and not (isinstance(reference, ConstrainedLayer) and len(reference.links) == len(self.links)):
            msg = f"expected the same {self.relaxation} layer at an earlier moment as the reference, got {type(reference).__name__}"
            raise SurgeryError(msg)
        now, then = self._free_parameters(), None if reference is None else reference._free_parameters()
        counted = [link for link in self.links if not link.is_bias] or self.links
        found = [
            link.constraint.drift(
                link.gathered(now),
                variance=link.variance,
                start=None if then is None else link.constraint.project(link.gathered(then).double()),
            )
            for link in counted
        ]
        return Drift.of_all(found)

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthogonal parts of a tensor shaped as a parameter: (shared, unshared, off-local); they add up to it.

        Raises:
            SurgeryError: the parameter is one of several copies, whose parts are those of all together; :meth:`weighted` takes them so.
        """
        link = self._link(name)
        if link is None:
            return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)
        if len(link.free) > 1:
            msg = f"{name} is one of {len(link.free)} copies of {link.parent}, which have parts together only"
            raise SurgeryError(msg)
        return link.constraint.split(tensor)

    @torch.no_grad()
    def weighted(self, tensors: Mapping[str, torch.Tensor], factors: Mapping[Part, float]) -> dict[str, torch.Tensor]:
        given = {name.removeprefix("free."): tensor for name, tensor in tensors.items()}
        found: dict[str, torch.Tensor] = {}
        for link in self.links:
            there = [name for name in link.free if name in given]
            if there:
                whole = {name: given[name] if name in given else torch.zeros_like(given[there[0]]) for name in link.free}
                found |= link.scattered(weighted_sum(link.constraint.split(link.gathered(whole)), factors))
        return {
            name: found[name.removeprefix("free.")] if name.removeprefix("free.") in found else factors.get("shared", 0.0) * tensor
            for name, tensor in tensors.items()
        }

    def drifting(self) -> tuple[str, ...]:
        """Names of the parameters whose norms :meth:`drift` adds up: those with links, biases left out."""
        counted = [link for link in self.links if not link.is_bias] or self.links
        return tuple(f"free.{name}" for link in counted for name in link.free)

    def _link(self, name: str) -> Link | None:
        return next((link for link in self.links if name.removeprefix("free.") in link.free), None)

    @torch.no_grad()
    def transport(self, name: str, tensor: torch.Tensor, role: str) -> dict[str, torch.Tensor] | None:
        """Carry state of the parent's parameter ``name``; see :meth:`anarch_core.relaxation.AbstractRelaxation.transport`.

        Averages of weights move as weights do. What sums over equal entries is divided among them, so that the sum over the copies is it
        again; entries that were held at zero have no history, and get the mean of the others where squares are kept.
        """
        links = [link for link in self.links if link.parent == name]
        if not links:
            return {f"free.{name}": tensor.clone()} if any(name == own for own, _ in self.free.named_parameters()) else None
        state: dict[str, torch.Tensor] = {}
        for link in links:
            constraint = link.constraint
            moved = constraint.lift(tensor if role == "weight" else constraint.divide(tensor)).clone()
            if role == "square":
                touched = moved > 0
                moved[~touched] = moved[touched].mean() if bool(touched.any()) else 0.0
            state |= {f"free.{own}": part.clone() for own, part in link.scattered(moved).items()}
        return state

    @torch.no_grad()
    def take(self, parent: nn.Module) -> None:
        """Make the linked weights what they are in the constrained module, and train what is trained there."""
        own = dict(self.free.named_parameters())
        for place, link in enumerate(self.links):
            theta = parent.get_parameter(link.parent)
            weight = link.constraint.lift(theta.detach())
            for name, values in link.scattered(weight).items():
                own[name].copy_(values)
                own[name].requires_grad_(theta.requires_grad)
            unseen = self._unseen(place)
            if unseen is not None:
                unseen.copy_(theta - link.constraint.project(weight))

    def _unseen(self, place: int) -> torch.Tensor | None:
        """What of θ no entry of a link's weight depends on."""
        unseen: torch.Tensor | None = getattr(self, f"unseen{place}")
        return unseen

    @torch.no_grad()
    def rooted(self, first: ConstrainedLayer) -> ConstrainedLayer:
        """This layer, whose parent is the free module of ``first``, as a relaxation of what ``first`` stands for.

        Raises:
            SurgeryError: it relaxes copies of a parameter that are constrained together, or both layers are of classes of their own.
        """
        kind = class_of_both(type(first), type(self))
        if kind is None:
            msg = f"a layer of {first.relaxation} cannot be relaxed by {self.relaxation}: {BOTH_GO_BACK}"
            raise SurgeryError(msg)
        before = {name: (link, first._unseen(place)) for place, link in enumerate(first.links) for name in link.free}
        relaxed = {link.parent for link in self.links}
        own = self._free_parameters()
        found: list[tuple[Link, torch.Tensor | None]] = []
        for place, link in enumerate(self.links):
            unseen = self._unseen(place)
            root, beyond = before.get(link.parent, (None, None))
            if root is not None and len(root.free) > 1:
                msg = f"{root.parent} has {len(root.free)} copies, which are constrained together; project the layer first"
                raise SurgeryError(msg)
            if root is not None:
                both = root.constraint.then(link.constraint)
                if not both.injective:
                    middle = _with(link.constraint.project(link.gathered(own)), unseen)
                    theta = _with(root.constraint.project(middle), beyond)
                    unseen = theta - both.project(both.lift(theta))
                link = attrs.evolve(link, parent=root.parent, constraint=both)
            found.append((link, unseen))
        found += [before[link.free[0]] for link in first.links if not relaxed.intersection(link.free)]
        layer = kind(self.relaxation, self.free, [link for link, _ in found], first._constrained[0])
        for place, (_, kept) in enumerate(found):
            mine = layer._unseen(place)
            if mine is not None and kept is not None:
                mine.copy_(kept)
        return layer.train(self.training)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"relaxation={self.relaxation!r}"


BOTH_GO_BACK = "both know how to go back; project the layer first"


def class_of_both(first: type[ConstrainedLayer], second: type[ConstrainedLayer]) -> type[ConstrainedLayer] | None:
    """What a layer is that was relaxed twice; None where both classes go back in ways of their own."""
    kind = first if second is ConstrainedLayer else second
    return kind if issubclass(kind, first) else None


def _with(theta: torch.Tensor, unseen: torch.Tensor | None) -> torch.Tensor:
    return theta if unseen is None else theta + unseen
