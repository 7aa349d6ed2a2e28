"""Training one model on several ranks: DDP or FSDP2."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..runtime.distributed import world_size

Parallel = Literal["ddp", "fsdp"]
Model = TypeVar("Model", bound=nn.Module)


class Replica(Generic[Model]):
    """A model trained by all ranks together: after every backward pass, gradients are averaged over the ranks.

    Args:
        model: with `blocks`; the same weights on every rank.
        parallel: "ddp" keeps full weights, gradients and optimizer states on every rank (DistributedDataParallel);
            "fsdp" keeps a shard of each, gathered block by block when needed (FSDP2, fully_shard). Ignored with a
            single process.
    Attributes:
        model: the given model; under "fsdp" its weights are those of the last `gather`.
        trained: the module with the trained parameters, named as in `model`: the model itself or its sharded copy.
        forward: the callable for the forward pass, which may be wrapped, for example by torch.compile.
    """

    def __init__(self, model: Model, parallel: Parallel) -> None:
        self.model, self.trained = model, model
        self.forward: Any = model
        self.sharded = world_size() > 1 and parallel == "fsdp"
        if self.sharded:
            self.forward = self.trained = _shard(copy.deepcopy(model))
        elif world_size() > 1:
            self.forward = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def __call__(self, *arguments: Any) -> Any:
        return self.forward(*arguments)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The trained parameters; under "fsdp" this rank's shards."""
        return self.trained.parameters()

    def cross_entropy(self, hidden: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
        """`Decoder.cross_entropy`."""
        return self.trained.cross_entropy(hidden, labels, shares)  # type: ignore[operator]

    def send(self, *arguments: Any) -> list[Tensor]:
        """`Decoder.send`."""
        return self.trained.send(*arguments)  # type: ignore[operator]

    def settle(self, loss: Callable[[], Tensor]) -> None:
        """A dummy forward and backward pass before the first step.

        DDP rearranges its buckets after the first backward pass, and with more than two ranks the rounding of a sum
        depends on the position within a bucket: without this a resumed run would not be bit-identical.
        """
        if isinstance(self.forward, nn.parallel.DistributedDataParallel):
            loss().backward()
            for parameter in self.parameters():
                parameter.grad = None

    @contextmanager
    def reducing(self, now: bool) -> Iterator[None]:
        """Backward passes inside exchange gradients now, or leave that to a later pass of the same step."""
        if self.sharded:
            self.forward.set_requires_gradient_sync(now)
        if self.forward is self.model:
            with _summed_at_once([x for x in self.parameters() if x.grad is not None]):
                yield
            return
        later = not now and isinstance(self.forward, nn.parallel.DistributedDataParallel)
        with self.forward.no_sync() if later else nullcontext():
            yield

    @torch.no_grad()
    def gather(self) -> None:
        """Copies the full trained weights into `model` on every rank; all ranks must call it."""
        if self.sharded:
            for whole_weight, weight in zip(self.model.parameters(), self.trained.parameters(), strict=True):
                whole_weight.copy_(whole(weight))


@contextmanager
def _summed_at_once(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Adds the gradients of a backward pass inside to those that are there, in a few launches and not one a parameter.

    Until then there are two of each.
    """
    sums = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    yield
    pairs = [(total, own.grad) for total, own in zip(sums, parameters, strict=True) if own.grad is not None]
    if pairs:
        torch._foreach_add_(*map(list, zip(*pairs, strict=True)))
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total


def _shard(model: Model) -> Model:
    """Applies FSDP2 per block; parameters outside the blocks are gathered for the whole step."""
    from torch.distributed.fsdp import fully_shard

    # a block returns its attention values, which are a view; nothing writes to them during training
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in model.blocks:  # type: ignore[union-attr]
        fully_shard(block)
    fully_shard(model)
    return model


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank if FSDP shards it, otherwise the tensor itself. All ranks must call it."""
    full = getattr(tensor, "full_tensor", None)  # a DTensor, whose module is slow to import and rarely needed
    return tensor if full is None else full()


def shared_like(tensors: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Shards full tensors, equal on all ranks, like those of `like`, without communication."""
    if not like or not hasattr(like[0], "device_mesh"):
        return list(tensors)
    from torch.distributed.tensor import distribute_tensor

    return [
        distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)  # type: ignore[attr-defined]
        for tensor, model in zip(tensors, like, strict=True)
    ]
