"""Optimizers and learning-rate schedules.

Matrices inside the blocks may use Muon; embeddings, an untied head, norms and biases always use AdamW. Parameters may
be
sharded by FSDP: the updates are the same, and each rank computes its part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..runtime.field_docs import explain_fields
from ..runtime.ranges import SHARE, Range, check_settings
from .parallel import shared_like, whole


@explain_fields
@dataclass(frozen=True)
class OptimSettings:
    """Optimizer and learning-rate schedule."""

    __pydantic_config__ = {"extra": "forbid"}

    matrices: Literal["muon", "adamw"] = "muon"
    """Optimizer of the matrices inside the blocks."""
    matrix_lr: float = 0.02
    """Peak learning rate of the matrices."""
    lr: float = 3e-3
    """Peak learning rate of everything else (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates for the first and second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices inside the blocks; norms and biases have none."""
    decay_embeddings: bool = False
    """Whether `weight_decay` also applies to the embedding and the head."""
    clip: float = 1.0
    """Maximum global gradient norm; inf: no clipping."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up; see `learning_rate_factor`."""
    warmup: float = 0.02
    """Share of the stage over which the learning rate rises from 0."""
    decay: float = 0.2
    """Share of the stage, at its end, over which schedule `wsd` decays."""
    floor: float = 0.02
    """Learning rate at the end of a decaying schedule, as a share of the peak."""

    def __post_init__(self) -> None:
        check_settings("optim", self, _RANGES)
        self._check_effect()
        if self.schedule == "wsd" and self.warmup + self.decay > 1.0:
            raise ValueError(
                f"optim: warmup + decay must be at most 1 with schedule wsd, got {self.warmup} and {self.decay}"
            )

    def _check_effect(self) -> None:
        """Settings without effect are errors."""
        known = {field.name: field.default for field in fields(self)}
        for name, schedules in (("floor", ("cosine", "linear", "wsd")), ("decay", ("wsd",))):
            if self.schedule not in schedules and getattr(self, name) != known[name]:
                raise ValueError(
                    f"optim: {name} has no effect with schedule {self.schedule!r}; leave it at {known[name]}, "
                    f"got {getattr(self, name)}"
                )
        if self.decay_embeddings and not self.weight_decay:
            raise ValueError("optim: decay_embeddings has no effect without weight_decay, got weight_decay 0")


_RANGES: Mapping[str, Range] = {
    "matrix_lr": Range(0, 10), "lr": Range(0, 10), "betas": Range(0, 1, open_high=True), "weight_decay": SHARE,
    "clip": Range(0, open_low=True, infinite=True), "warmup": SHARE, "decay": SHARE, "floor": SHARE,
}  # fmt: skip


def learning_rate_factor(settings: OptimSettings, progress: float) -> float:
    """The learning rate as a share of its peak, with w = `warmup`, d = `decay`, f = `floor` and p = `progress`.

        every schedule   p / w                                            where p < w
        constant         1
        cosine           f + (1 - f) (1 + cos(pi (p - w) / (1 - w))) / 2
        linear           f + (1 - f) (1 - (p - w) / (1 - w))
        wsd              1                                                where p < 1 - d
                         f + (1 - f) (1 - p) / d                          otherwise: warm-up, stable, decay

    Args:
        settings: schedule, warmup, decay and floor.
        progress: share of the stage that is done, 0 .. 1; larger values count as 1.
    Source:
        cosine: Loshchilov and Hutter 2017, arXiv:1608.03983. wsd: Hu et al. 2024, arXiv:2404.06395, with a linear decay
        (Haegele et al. 2024, arXiv:2405.18392).

    >>> [round(learning_rate_factor(OptimSettings(warmup=0.1, floor=0.1), p), 2) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.55, 0.1]
    """
    progress = min(progress, 1.0)
    if progress < settings.warmup:
        return progress / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "wsd":
        shape = min(1.0, (1.0 - progress) / settings.decay) if settings.decay else 1.0
    else:
        done = (progress - settings.warmup) / max(1.0 - settings.warmup, 1e-9)
        shape = 0.5 * (1.0 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1.0 - done
    return settings.floor + (1.0 - settings.floor) * shape


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized matrix updates: every direction of a weight matrix moves equally fast.

        m = beta m + (1 - beta) g;   u = beta m + (1 - beta) g;   w -= lr * sqrt(max(1, rows / columns)) * UV^T of u

    UV^T is computed by five Newton-Schulz steps, on a GPU in bfloat16. Matrices of one shape are updated together in
    batched products; at 0.2 M parameters on CPU this takes a third of the time of torch.optim.Muon, which handles one
    matrix at a time. Under FSDP every rank gathers the matrices of a shape once and updates its own rows.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon: parameters must be matrices")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                for parameter in parameters:
                    if "momentum" not in self.state[parameter]:
                        self.state[parameter]["momentum"] = torch.zeros_like(parameter)
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                momenta = [self.state[parameter]["momentum"] for parameter in parameters]
                torch._foreach_lerp_(momenta, gradients, 1.0 - group["momentum"])
                ahead = whole(torch.stack(gradients).lerp(torch.stack(momenta), group["momentum"]))
                update = orthogonalize(ahead) * max(1.0, rows / columns) ** 0.5
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, shared_like(update.unbind(), parameters), alpha=-group["lr"])


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximates U V^T of each matrix U S V^T: [B, M, N] -> [B, M, N], with singular values in 0.7 .. 1.2.

    The iteration is in bfloat16 on a GPU, whose tensor cores multiply it many times as fast: it corrects its own
    rounding, as every step pulls the singular values towards that interval.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(matrices.dtype if x.device.type == "cpu" else torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x.mT if tall else x).to(matrices.dtype)


class Optimizer:
    """The optimizers of a model combined: learning-rate schedule, clipping, step, save and load.

    Args:
        model: its parameters are assigned to optimizers by name and shape.
        settings: see `OptimSettings`.
    """

    def __init__(self, model: nn.Module, settings: OptimSettings) -> None:
        self.settings = settings
        self.names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
        outside = ("embedding.", "head.")  # of the blocks
        matrices = [p for p, name in self.names.items() if p.ndim == 2 and not name.startswith(outside)]
        embeddings = [p for p, name in self.names.items() if p.ndim == 2 and name.startswith(outside)]
        vectors = [p for p in self.names if p.ndim != 2]
        decay = settings.weight_decay
        self.matrices: torch.optim.Optimizer
        if settings.matrices == "muon":
            self.matrices = Muon(matrices, settings.matrix_lr, weight_decay=decay)
        else:
            self.matrices = _adamw([{"params": matrices, "weight_decay": decay}], settings.matrix_lr, settings)
        groups = [
            {"params": embeddings, "weight_decay": decay if settings.decay_embeddings else 0.0},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.others = _adamw(groups, settings.lr, settings)

    def step(self, progress: float) -> float:
        """Clips the gradients, updates the weights and clears the gradients; returns the norm before clipping.

        Raises:
            FloatingPointError: the norm is not finite; weights and optimizer are as before.
        """
        parameters = list(self.names)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = whole(nn.utils.get_total_norm(gradients))
        norm = float(total)
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient norm is {norm}")
        nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, total)
        factor = learning_rate_factor(self.settings, progress)
        for optimizer, peak in ((self.matrices, self.settings.matrix_lr), (self.others, self.settings.lr)):
            for group in optimizer.param_groups:
                group["lr"] = factor * peak
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def state_tensors(self) -> dict[str, Tensor]:
        """The full, unsharded state of the optimizers by parameter name and kind of state; all ranks must call it."""
        tensors = {}
        for optimizer in (self.matrices, self.others):
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    tensors[f"{self.names[parameter]}:{key}"] = whole(torch.as_tensor(value))
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Loads the result of `state_tensors` into an optimizer of the same model and settings."""
        parameters = {name: parameter for parameter, name in self.names.items()}
        owner = {p: o for o in (self.matrices, self.others) for group in o.param_groups for p in group["params"]}
        for key, value in tensors.items():
            name, kind = key.rsplit(":", 1)
            if name not in parameters:
                raise ValueError(f"optimizer state names the unknown parameter {name!r}")
            if value.ndim and value.shape != parameters[name].shape:
                want, got = tuple(parameters[name].shape), tuple(value.shape)
                raise ValueError(f"optimizer state of {key!r} must have shape {want}, got {got}")
            value = value.to(parameters[name].device, copy=True)
            (mine,) = shared_like([value], [parameters[name]]) if value.ndim else (value,)
            owner[parameters[name]].state[parameters[name]][kind] = mine


# the devices on which torch has a fused kernel that updates all parameters
_FUSED = ("cpu", "cuda", "mps", "xpu")


def _adamw(groups: list[dict[str, Any]], lr: float, settings: OptimSettings) -> torch.optim.AdamW:
    device = next(parameter.device.type for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr, betas=settings.betas, fused=device in _FUSED)
