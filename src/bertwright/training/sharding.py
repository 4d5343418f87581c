"""Weights, gradients and Adam's moments cut into parts, of which every process keeps one (FSDP, ZeRO).

    group = shard(group, model)                    # before the optimizer is made
    fit(model, objective, stream, config, ..., group=group)

A layer's weights are gathered when its turn comes and dropped after it, in the forward and in the backward pass. What a
process keeps shrinks with the number of processes; what they say to each other grows. Losses, steps and checkpoints are
those of whole weights: a run may go on with sharding or without it, and with another number of processes.

Every process has to take part in every gathering. One that has fewer micro-batches than others runs the first one of
the step again, and its loss counts nothing.

Between the micro-batches of a step a process keeps the gradient of all weights: it is summed over processes, and cut,
with the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bertwright.model.bert import Bert
from bertwright.training.distributed import B, Group, M, T


def shard(group: Group, model: Bert) -> Group:
    """Cut a model's weights into parts, in place, and return the group whose processes keep one each.

    Args:
        group: alone, a process keeps everything, and nothing happens.
        model: on its device, the same shape everywhere; from here on it is run by the group's `run` alone.
    """
    if group.size == 1:
        return group
    group.copy_first(parameter.detach() for parameter in model.parameters())
    mesh = init_device_mesh(next(model.parameters()).device.type, (group.size,))
    root = _Root(model)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)  # embeddings, pooler and heads: together, since one weight may serve two of them
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided already
            module.set_force_sum_reduction_for_comms(True)
    return _ShardedGroup(group, root, mesh)


class _Root(nn.Module):
    """What of a model is gathered at once: everything but its layers, for as long as an objective runs."""

    def __init__(self, model: Bert) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[[Any, Any], Any], batch: Any) -> Any:
        """Return what an objective says about a batch."""
        return objective(self.model, batch)


class _ShardedGroup(Group):
    """Processes that keep a part of every tensor each: rows of it, as `torch.chunk` cuts them."""

    def __init__(self, group: Group, root: nn.Module, mesh: DeviceMesh) -> None:
        super().__init__(group.rank, group.size, group._watch)
        self._root = root
        self._mesh = mesh

    def idle_turns(self, count: int) -> int:
        """Return how many turns others have more than this process."""
        return -(-count // self.size) - len(self.own(count))

    def run(self, objective: Callable[[M, B], T], model: M, batch: B) -> T:
        """Run an objective while weights are gathered where they are needed."""
        with self._explained():
            output: T = self._root(objective, batch)
            if not torch.is_grad_enabled():
                self._fsdp.reshard()  # no backward pass will
        return output

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a gradient; with the last one, sum them over all processes and keep a part."""
        self._fsdp.set_requires_gradient_sync(last)
        with self._explained():
            loss.backward()

    def add_gradients(self, parameters: object, num_micro_batches: int) -> None:
        """Leave it: they were added up in the last backward pass."""

    def norm(self, norm: Tensor) -> Tensor:
        """Return the root of the sum of squares over all processes."""
        squares = norm.square()
        with self._explained():
            dist.all_reduce(squares)
        return squares.sqrt()

    def fill(self, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """Deal out the parts of the first process's values, one tensor at a time."""
        if not self.of_first(bool(values)):
            return  # weights and moments are new, and alike everywhere
        with self._explained():
            for name, tensor in tensors.items():
                kept = cast(DTensor, tensor)
                device = kept.to_local().device
                whole = values[name].to(device) if self.leads else torch.empty(tensor.shape, device=device)
                kept.to_local().copy_(distribute_tensor(whole, self._mesh, kept.placements).to_local())

    def gathered(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return whole tensors, in the first process's main memory; elsewhere one at a time is there for a moment."""
        found = {}
        with self._explained():
            for name, tensor in tensors.items():
                whole = cast(DTensor, tensor).full_tensor()
                if self.leads:
                    found[name] = whole.cpu()
        return found

    @property
    def _fsdp(self) -> FSDPModule:
        return cast(FSDPModule, self._root)
