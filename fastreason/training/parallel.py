"""How several ranks train one model together: DDP or FSDP2."""

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
    """A model as all ranks train it together: behind every backward pass a gradient is its mean over the ranks.

    Args:
        model: with `blocks`; the same weights on every rank.
        parallel: "ddp" keeps whole weights, gradients and optimizer states on every rank (DistributedDataParallel);
            "fsdp" a share of each, gathered block by block when needed (FSDP2, fully_shard). One process ignores it.
    Attributes:
        model: what was given; under "fsdp" its weights are those of the last `gather`.
        trained: what holds the trained parameters, under the names of `model`: the model, or its sharded copy.
        forward: what is called: the place for a wrapper such as torch.compile.
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
        """The trained parameters; under "fsdp" this rank's shares."""
        return self.trained.parameters()

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, V] from hidden states."""
        return self.trained.logits(hidden)  # type: ignore[operator]

    def settle(self, loss: Callable[[], Tensor]) -> None:
        """A forward and backward pass for nothing, in front of the first step.

        DDP arranges its buckets by the first backward pass, and sums over more than two ranks round by their place in a
        bucket: without this a resumed run would not be the unbroken one to the bit.
        """
        if isinstance(self.forward, nn.parallel.DistributedDataParallel):
            loss().backward()
            for parameter in self.parameters():
                parameter.grad = None

    @contextmanager
    def reducing(self, now: bool) -> Iterator[None]:
        """A forward and backward pass inside exchanges gradients, or leaves that to a later one of the same step."""
        if self.sharded:
            self.forward.set_requires_gradient_sync(now)
        later = not now and isinstance(self.forward, nn.parallel.DistributedDataParallel)
        with self.forward.no_sync() if later else nullcontext():
            yield

    @torch.no_grad()
    def gather(self) -> None:
        """Puts the trained weights into `model`, whole, on every rank; all ranks call it."""
        if self.sharded:
            for whole_weight, weight in zip(self.model.parameters(), self.trained.parameters(), strict=True):
                whole_weight.copy_(whole(weight))


def _shard(model: Model) -> Model:
    """FSDP2, block by block; what is outside the blocks is gathered for the whole step."""
    from torch.distributed.fsdp import fully_shard

    # a block returns the values of its attention, which are a view, and nothing writes into them in training
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in model.blocks:  # type: ignore[union-attr]
        fully_shard(block)
    fully_shard(model)
    return model


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that FSDP shares out, on every rank; another one as it is. All ranks call it."""
    full = getattr(tensor, "full_tensor", None)  # of DTensor, whose module is slow to import and rarely needed
    return tensor if full is None else full()


def shared_like(tensors: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Whole tensors, equal on all ranks, shared out as those of `like` are; nothing is sent."""
    if not like or not hasattr(like[0], "device_mesh"):
        return list(tensors)
    from torch.distributed.tensor import distribute_tensor

    return [
        distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)  # type: ignore[attr-defined]
        for tensor, model in zip(tensors, like, strict=True)
    ]
