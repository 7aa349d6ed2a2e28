"""Every operation, forward and backward, beside its definition in torch, torch.compile, Liger-Kernel and flash-attn.

On a GPU in bfloat16 at the shapes of bench/kernels/operations.py, all operations. On CPU in float32, those that have
kernels of their own there (fastreason/kernels/cpu.py) and the policy loss, at smaller shapes; Liger's kernels need a
GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch

from fastreason.kernels.triton_support import pretended_arch

from ..harness.questions import Contestant, Done, Question, Settings, Unavailable, Work
from ..harness.records import OURS
from ..kernels.operations import OPS, Call, Shape, Sizes
from ..kernels.peers import FLASH, LIGER, Rival

# tokens of more than the caches hold, but of attention, which is bound by its products
CPU_SIZES: dict[str, Sizes] = {
    "rms_norm": {"tokens": 8192},
    "rope": {"tokens": 8192},
    "swiglu": {"tokens": 4096},
    "cross_entropy": {"tokens": 4096},
    "policy_loss": {"tokens": 4096, "own": 64},
    "attention": {"tokens": 1024, "length": 512},
}
QUICK: Sizes = {"tokens": 64, "length": 32, "own": 8, "members": 2}
# attention computes more than it moves; of one token against all before it, it does not
BOUND_BY_PRODUCTS = ("attention", "attention_groups")


def questions(settings: Settings) -> Iterator[Question]:
    on_gpu = torch.cuda.is_available()
    for name in OPS if on_gpu else CPU_SIZES:
        sizes = settings.size(OPS[name].timed if on_gpu else CPU_SIZES[name], QUICK)
        shape = Shape(**sizes, dtype=torch.bfloat16, device="cuda") if on_gpu else Shape(**sizes, dtype=torch.float32)
        clock = cuda_clock if on_gpu else None
        starts: dict[str, tuple[Callable[..., Work], tuple[str, ...]]] = {
            OURS: (ours, ()),
            "torch": (partial(definition, False), ()),
            "torch.compile": (partial(definition, True), ()),
            "Liger-Kernel": (partial(rival, "Liger"), ("liger_kernel",)),
        }
        if on_gpu:
            starts["flash-attn"] = (partial(rival, "flash-attn"), ("flash_attn",))
        contestants = {
            provider: Contestant(partial(start, name, shape), needs, clock)
            for provider, (start, needs) in starts.items()
            if has(provider, name, shape)
        }
        yield Question(
            f"{name}, forward and backward" if OPS[name].build is not OPS["decode_attention"].build else name,
            {**sizes, "dtype": str(shape.dtype).removeprefix("torch.")}, "tokens", contestants,
            peak="matmul" if name in BOUND_BY_PRODUCTS else "copy", gpu=on_gpu,
        )  # fmt: skip


def has(provider: str, name: str, shape: Shape) -> bool:
    """Whether a library has such an operation at all."""
    liger = ("rms_norm", "add_rms_norm", "rope", "swiglu", "cross_entropy", "policy_loss")
    return {"Liger-Kernel": name in liger, "flash-attn": name == "attention"}.get(provider, True)


def cuda_clock() -> float:
    """The clock on the wall, when everything that was asked of the GPU is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


@cache
def call_of(name: str, shape: Shape) -> Call:
    return OPS[name].build(shape)


def ours(name: str, shape: Shape) -> Work:
    call = call_of(name, shape)
    return repeated(call, call)


def definition(compiled: bool, name: str, shape: Shape) -> Work:
    call = call_of(name, shape)
    names = list(call.inputs)
    function = torch.compile(call.definition, dynamic=False) if compiled else call.definition

    def run(*values: Any) -> Any:
        return function(**dict(zip(names, values, strict=True)))

    return repeated(Rival(run, (*call.inputs.values(),), tuple(names.index(name) for name in call.learns)), call)


def rival(library: str, name: str, shape: Shape) -> Work:
    if shape.device == "cpu" and pretended_arch() is None:
        raise Unavailable("its kernels need a GPU")
    call = call_of(name, shape)
    if library not in call.rivals:
        raise Unavailable(f"it does not take these shapes; installed: Liger {LIGER}, flash-attn {FLASH}")
    return repeated(call.rivals[library](), call)


def repeated(contestant: Call | Rival, call: Call) -> Work:
    """The forward pass, and the backward pass if there is one, on the same inputs."""
    upstream = contestant.upstream(contestant.forward())
    done = Done(float(call.tokens), float(sum(call.flops)) or None, float(sum(call.floor)))

    def work() -> Done:
        outputs = contestant.forward()
        if call.learns:
            contestant.backward(outputs, upstream)
        return done

    return work
