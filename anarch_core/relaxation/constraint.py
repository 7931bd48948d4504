"""Relaxations of modules whose parameters are under linear constraints: an author says what is constrained, the rest is derived."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from anarch_core.errors import SurgeryError
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.layers.constrained import BOTH_GO_BACK, ConstrainedLayer, Link, class_of_both
from anarch_core.layers.hollow import hollow_copy
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.report import refusal_of


@attrs.frozen(kw_only=True)
class Loosened:
    """A module without the constraints of another.

    Attributes:
        free: computes what the other does if its weights obey the constraints.
        links: of its parameters to the other's.
        layer_class: what holds it; a subclass of :class:`~anarch_core.layers.ConstrainedLayer` where that does not suffice.
    """

    free: nn.Module
    links: Sequence[Link]
    layer_class: type[ConstrainedLayer] = ConstrainedLayer


class AbstractConstraintRelaxation(AbstractRelaxation):
    """Gives up linear constraints on the parameters of a module, W = Aθ: which entries are zero and which are equal.

    :meth:`loosen` says what the free module is, and by which A its parameters come out of the constrained ones. The lift, the cost, the
    optimizer's state, the way back and the drift follow. A layer that such a relaxation made before is relaxed further: its free module is
    what is loosened, and the new layer goes back to the first module that was constrained.

    Attributes:
        name: of the relaxation, as in its record.
        targets: types of modules that are candidates. Layers of other constraint relaxations are candidates where their free module is of
            such a type.
    """

    name: ClassVar[str]
    sized: ClassVar[bool] = False

    @abstractmethod
    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        """The module without its constraints. Shares no memory with it.

        Linked parameters have the right shape and hold anything: they are filled with Aθ. All else is as in ``module``, whose parameters
        are on the meta device where the cost is counted; then the free module's are there too.

        Args:
            module: the module to relax; the free one of a layer that was relaxed before. Never changed.
            site: where it is.
        """

    def cost(self, site: Site) -> Cost:
        """What the free module holds; operations are counted on the arguments of the example, and taken for two per weight without one."""
        module = hollow_copy(constrained_module(site.module))
        loosened = self.loosen(module, attrs.evolve(site, module=module))
        parameters = list(loosened.free.parameters())
        weights = sum(parameter.numel() for parameter in parameters)
        unseen = sum(
            theirs.numel() for link in loosened.links if not link.constraint.injective for theirs in [module.get_parameter(link.parent)]
        )
        return Cost(
            parameters=weights,
            scratch_parameters=unseen + sum(buffer.numel() for buffer in loosened.free.buffers()),
            flops=self.flops(loosened.free, site) or 2 * weights,
            itemsize=parameters[0].element_size(),
        )

    def flops(self, free: nn.Module, site: Site) -> int:
        """Operations of one pass of one sample through the free module, whose parameters are on the meta device; 0 where not known."""
        arguments: Any = getattr(site, "arguments", None)
        if arguments is None:
            return 0
        args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor[:1].to("meta") if tensor.ndim else tensor.to("meta"), arguments)
        counter = FlopCounterMode(display=False)
        try:
            with torch.no_grad(), counter:
                free.to("meta")(*args, **kwargs)
        except Exception:  # whatever a module may raise of tensors without numbers
            return 0
        return int(counter.get_total_flops())

    def refusal(self, site: Site) -> str | None:
        """Of modules of another type, and of layers whose copies are constrained together. Extend it by what :meth:`loosen` cannot do."""
        module = constrained_module(site.module)
        if not isinstance(module, self.targets):
            return f"it is a {type(module).__name__}, which {self.name} does not know"
        copies = [link for link in site.module.links if len(link.free) > 1] if isinstance(site.module, ConstrainedLayer) else []
        if not copies:
            return None
        number, what = len(copies[0].free), copies[0].parent
        return f"it is a layer of {site.module.relaxation} with {number} copies of {what}, constrained together; project it first"

    @torch.no_grad()
    def lift(self, site: Site) -> RelaxedLayer:
        module = constrained_module(site.module)
        cards = sorted({parameter.device.index or 0 for parameter in module.parameters() if parameter.device.type == "cuda"})
        with torch.random.fork_rng(devices=cards):  # modules that are built draw weights, which are then overwritten
            loosened = self.loosen(module, attrs.evolve(site, module=module))
        layer = loosened.layer_class(self.name, loosened.free, loosened.links, module)
        layer.take(module)
        layer.train(module.training)
        if not isinstance(site.module, ConstrainedLayer):
            return layer
        if class_of_both(type(site.module), type(layer)) is None:
            raise SurgeryError(refusal_of({site.path: self._both_go_back(site.module)}), paths=(site.path,))
        return layer.rooted(site.module)

    def refusal_of_second(self, site: Site) -> str | None:
        """Why a layer of such a relaxation, which :meth:`refusal` says nothing against, cannot be relaxed further; None if it can."""
        if not isinstance(site.module, ConstrainedLayer):
            return None
        module = hollow_copy(site.module.free)
        kind = self.loosen(module, attrs.evolve(site, module=module)).layer_class
        return self._both_go_back(site.module) if class_of_both(type(site.module), kind) is None else None

    def _both_go_back(self, first: ConstrainedLayer) -> str:
        return f"it is a layer of {first.relaxation}, and {first.relaxation} and {self.name} {BOTH_GO_BACK}"

    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        constrained = cast(ConstrainedLayer, layer)
        if not isinstance(site.module, ConstrainedLayer):
            return constrained.transport(name, tensor, role)
        # The layer is rooted in the first parent; here it is asked about its step from the second.
        module = site.module.free
        loosened = self.loosen(hollow_copy(module), attrs.evolve(site, module=module))
        step = loosened.layer_class(self.name, constrained.free, loosened.links, module)
        return step.transport(name.removeprefix("free."), tensor, role)


def constrained_module(module: nn.Module) -> nn.Module:
    """What is loosened at a site: the module, or the free one of a layer that was relaxed before."""
    return module.free if isinstance(module, ConstrainedLayer) else module
