"""Every operation of fastreason.kernels as one representative call: inputs, floor, peers.

The audit, the traffic table and bench.gpu all read `OPS`, so a new operation is one entry here. The model is the one of
docs/kernels.md: width 768, 12 query and 2 key-value heads of 64, feed-forward 3,072, vocabulary 2,200.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreason.kernels import (
    Segments,
    attention,
    cross_entropy,
    decode_attention,
    policy_loss,
    rms_norm,
    rope,
    rope_angles,
    rope_attention,
    swiglu,
)
from fastreason.kernels.attention import attention_ref
from fastreason.kernels.cross_entropy import cross_entropy_ref
from fastreason.kernels.decode_attention import (
    SequenceTiles,
    decode_attention_ref,
    sequences_per_tile,
    tile_sequences,
)
from fastreason.kernels.launch import configuration
from fastreason.kernels.policy_loss import Kind, policy_loss_ref
from fastreason.kernels.rms_norm import add_rms_norm, add_rms_norm_ref, rms_norm_ref
from fastreason.kernels.rope import rope_ref
from fastreason.kernels.rope_attention import rope_attention_ref, spread_biases
from fastreason.kernels.row_sums import sum_rows
from fastreason.kernels.swiglu import swiglu_ref

from . import peers
from .peers import Rivals, outputs_of, upstream_of
from .traffic_meter import Traffic

__all__ = ["MAY_BE_NARROW", "OPS", "Call", "Op", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of what it is given.

    Args:
        tokens: in all; in decoding, sequences.
        length: of a document, or of a prompt where there are groups.
        own: tokens of a response.
        members: responses of a prompt.
    """

    tokens: int
    length: int = 2048
    own: int = 300
    members: int = 6
    width: int = 768
    ffn: int = 3072
    heads: int = 12
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 2200
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"

    def floats(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal values; the same ones for the same size."""
        return torch.randn(size, generator=self._random(size), device=self.device).to(dtype or self.dtype)

    def ids(self, limit: int, *size: int) -> Tensor:
        """int64 in [0, limit)."""
        return torch.randint(limit, size, generator=self._random(size), device=self.device)

    def _random(self, size: tuple[int, ...]) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(sum(size))


class Unwritten(Shape):
    """A shape with uninitialized floating-point tensors, for when nothing is computed."""

    def floats(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(size, dtype=dtype or self.dtype, device=self.device)


Function = Callable[..., Any]
Sizes = dict[str, Any]  # arguments of Shape


@dataclass(frozen=True)
class Call:
    """One operation at one shape.

    Args:
        tokens: how many it is of; in decoding, sequences.
        run: the operation; returns a tensor or a tuple of which those that require a gradient are differentiated.
        inputs: its arguments.
        learns: the names of the inputs that get a gradient.
        definition: the same in plain torch, what eager and torch.compile are timed with.
        floor: (forward, backward) bytes when every operand is moved once. What forward already wrote for backward
            counts in forward.
        flops: (forward, backward) of matrix products; 0 for what only moves memory.
        judge: what else the traffic of forward must satisfy: (a note for the table, failures).
        rivals: the same work by other libraries, by name.
    """

    tokens: int
    run: Function
    inputs: dict[str, Any]
    learns: tuple[str, ...]
    definition: Function
    floor: tuple[int, int]
    flops: tuple[int, int] = (0, 0)
    judge: Callable[[Traffic], tuple[str, list[str]]] | None = None
    rivals: Rivals = field(default_factory=dict)

    def forward(self) -> tuple[Tensor, ...]:
        """The outputs that have a gradient, of inputs that are its leaves."""
        for name in self.learns:
            self.inputs[name].requires_grad_()
        return outputs_of(self.run(**self.inputs))

    def backward(self, outputs: tuple[Tensor, ...], upstream: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = [self.inputs[name] for name in self.learns]
        return torch.autograd.grad(outputs, leaves, upstream, retain_graph=True)

    upstream = staticmethod(upstream_of)


@dataclass(frozen=True)
class Op:
    """What is checked of an operation.

    Args:
        build: makes the call at a shape.
        shapes: the shapes to compile for, by a short name. float32 is compiled for the first of them.
        counted, counted_dtype: the shape to count traffic at; the interpreter is fastest in float16.
        liger_tokens: how many tokens Liger's traffic is counted with; None: as many as ours.
        timed: the shape to time on a GPU.
        most_traffic: the gate on bytes / floor, forward and backward together.
        most_of_liger: the gate on our bytes over Liger's.
        tensor_cores: kernels that must use tensor cores in 16-bit types, and the instruction wanted of them on sm_90.
    """

    build: Callable[[Shape], Call]
    shapes: dict[str, Sizes] = field(default_factory=lambda: {"": {}})
    counted: Sizes = field(default_factory=lambda: {"tokens": 512})
    counted_dtype: torch.dtype = torch.float16
    liger_tokens: int | None = None
    timed: Sizes = field(default_factory=lambda: {"tokens": 131072})
    most_traffic: float | None = None
    most_of_liger: float | None = None
    tensor_cores: dict[str, str] = field(default_factory=dict)


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _rms_norm(shape: Shape) -> Call:
    x, weight = shape.floats(shape.tokens, shape.width), shape.floats(shape.width)
    return Call(
        tokens=shape.tokens,
        run=rms_norm,
        inputs={"x_ND": x, "weight_D": weight, "eps": 1e-6},
        learns=("x_ND", "weight_D"),
        definition=rms_norm_ref,
        # x, y and the weight; then dy, x, dx, the weight and its gradient
        floor=(_bytes(x, x, weight), _bytes(x, x, x, weight, weight)),
        rivals=peers.rms_norm(x, weight),
    )


def _add_rms_norm(shape: Shape, stream: torch.dtype | None = None) -> Call:
    """stream: dtype of the residual stream and the weight, where it is not that of the branch, which is of 16 bits."""
    stream = stream if shape.dtype.itemsize == 2 else None
    x, weight = shape.floats(shape.tokens, shape.width), shape.floats(shape.width, dtype=stream)
    residual = shape.floats(shape.tokens, shape.width, dtype=stream)
    narrow = (x,) if x.dtype != residual.dtype else ()  # the gradient of x, where it is not that of the residual
    return Call(
        tokens=shape.tokens,
        run=add_rms_norm,
        inputs={"x_ND": x, "residual_ND": residual, "weight_D": weight, "eps": 1e-6},
        learns=("x_ND", "residual_ND", "weight_D"),
        definition=add_rms_norm_ref,
        # x, y, residual, s and the weight; then dy, ds, s, their gradient, the weight and its own
        floor=(
            _bytes(x, x, residual, residual, weight),
            _bytes(x, residual, residual, residual, weight, weight, *narrow),
        ),
        rivals={} if narrow else peers.add_rms_norm(x, residual, weight),
    )


def _rope(shape: Shape) -> Call:
    heads = shape.heads + shape.kv_heads
    x = shape.floats(shape.tokens, heads, shape.head_dim)
    positions = torch.arange(shape.tokens, device=shape.device)
    cos, sin = rope_angles(positions, shape.head_dim, 10000.0, shape.dtype)
    return Call(
        tokens=shape.tokens,
        run=rope,
        inputs={"x_THD": x, "cos_T1D": cos, "sin_T1D": sin},
        learns=("x_THD",),
        definition=rope_ref,
        # x and y, then dy and dx; the tables are not in the floor
        floor=(_bytes(x, x), _bytes(x, x)),
        rivals=peers.rope(x, shape.heads, cos, sin),
    )


def _swiglu(shape: Shape) -> Call:
    gate_up = shape.floats(shape.tokens, 2 * shape.ffn)
    size = _bytes(gate_up) // 2
    return Call(
        tokens=shape.tokens,
        run=swiglu,
        inputs={"gate_up": gate_up},
        learns=("gate_up",),
        definition=swiglu_ref,
        # gate, up and y; then dy, gate, up and their gradients
        floor=(3 * size, 5 * size),
        rivals=peers.swiglu(gate_up),
    )


def _attention(shape: Shape) -> Call:
    """Documents of one length, the last one shorter."""
    rest = shape.tokens % shape.length
    return _attend(shape, Segments.from_lengths([shape.length] * (shape.tokens // shape.length) + [rest] * bool(rest)))


def _attention_groups(shape: Shape) -> Call:
    """Prompts with their responses."""
    prompts = max(1, shape.tokens // (shape.length + shape.members * shape.own))
    segments = Segments.from_groups([shape.length] * prompts, torch.full((prompts, shape.members), shape.own))
    return _attend(replace(shape, tokens=segments.num_tokens), segments)


def _attend(shape: Shape, segments: Segments) -> Call:
    q = shape.floats(shape.tokens, shape.heads, shape.head_dim)
    k = shape.floats(shape.tokens, shape.kv_heads, shape.head_dim)
    v = shape.floats(shape.tokens, shape.kv_heads, shape.head_dim)
    prefix = torch.where(segments.prefix >= 0, segments.length[segments.prefix], 0)
    pairs = int((segments.length * prefix + segments.length * (segments.length + 1) // 2).sum())
    flops = 4 * pairs * shape.heads * shape.head_dim
    lse = 4 * shape.tokens * shape.heads
    return Call(
        tokens=shape.tokens,
        run=attention,
        inputs={"q_THD": q, "k_TKD": k, "v_TKD": v, "segments": segments},
        learns=("q_THD", "k_TKD", "v_TKD"),
        definition=lambda q_THD, k_TKD, v_TKD, segments: attention_ref(
            q_THD, k_TKD, v_TKD, segments, shape.head_dim**-0.5
        ),
        # q, k, v, o and lse; then these, do and the three gradients
        floor=(_bytes(q, k, v, q) + lse, _bytes(q, k, v, q, q, q, k, v) + lse),
        # two products forward; backward has five
        flops=(flops, flops * 5 // 2),
        judge=functools.partial(_key_loads, shape, segments),
        rivals=peers.attention(q, k, v, segments),
    )


def _row_sums(shape: Shape) -> Call:
    """Of 25 norms, each summed by 256 programs."""
    matrices = [shape.floats(256, shape.width, dtype=torch.float32) for _ in range(25)]
    return Call(
        tokens=shape.tokens,
        run=lambda matrices: sum_rows(matrices),
        inputs={"matrices": matrices},
        learns=(),
        definition=lambda matrices: torch.stack(matrices).sum(1),
        floor=(_bytes(*matrices) + 25 * 4 * shape.width, 0),
    )


def _rope_attention(shape: Shape, learns_bias: bool = False) -> Call:
    """`_attention` of one matrix, whose queries and keys are rotated first; with the sums for a bias."""
    alone = _attention(shape)
    segments = alone.inputs["segments"]
    qkv = shape.floats(shape.tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    cos, sin = rope_angles(segments.positions.to(shape.device), shape.head_dim, 10000.0, shape.dtype)
    turned = 2 * shape.tokens * (shape.heads + shape.kv_heads) * shape.head_dim * qkv.element_size()
    sizes = {"heads": shape.heads, "kv_heads": shape.kv_heads}
    inputs = {"qkv_TW": qkv, "cos_T1D": cos, "sin_T1D": sin, "segments": segments, **sizes}
    if learns_bias:
        inputs["bias_W"] = shape.floats(qkv.shape[1], dtype=torch.float32)

    def definition(bias_W: Tensor | None = None, call: Function = rope_attention_ref, **given: Any) -> Tensor:
        if bias_W is not None:  # adds nothing, and has the gradient of a bias
            given["qkv_TW"] = given["qkv_TW"] + (bias_W - bias_W.detach()).to(qkv.dtype)
        return call(**given)[0]

    def run(bias_W: Tensor | None = None, **given: Any) -> Tensor:
        rows = None if bias_W is None else spread_biases([bias_W], qkv, segments, **sizes)
        return (
            definition(bias_W, rope_attention, **given) if rows is None else rope_attention(**given, bias_RW=rows[0])[0]
        )

    return Call(
        tokens=shape.tokens,
        run=run,
        inputs=inputs,
        learns=("qkv_TW", "bias_W") if learns_bias else ("qkv_TW",),
        definition=definition,
        # queries and keys are read and written once more; backward takes nothing for the rotation
        floor=(alone.floor[0] + turned, alone.floor[1]),
        flops=alone.flops,
    )


def _key_loads(shape: Shape, segments: Segments, forward: Traffic) -> tuple[str, list[str]]:
    """How often the keys and values were read: at most once by every tile of BLOCK_M stacked rows of a segment."""
    block_d = max(16, 1 << (shape.head_dim - 1).bit_length())
    some = torch.empty(0, dtype=shape.dtype, device=shape.device)
    block_m = configuration("attention_forward", some, head_dim=block_d, itemsize=some.itemsize)["BLOCK_M"]
    tiles = -(-segments.length * (shape.heads // shape.kv_heads) // block_m)
    prefix = torch.where(segments.prefix >= 0, segments.length[segments.prefix], 0)
    most = int((tiles * (segments.length + prefix)).sum()) / shape.tokens
    row_bytes = shape.tokens * shape.kv_heads * shape.head_dim * some.itemsize
    loads = {name: forward.launches[0].moved[f"{name}_ptr"].read / row_bytes for name in ("k", "v")}
    failures = [
        f"{name} is read {times:.2f} times, at most {most:.2f}" for name, times in loads.items() if times > most
    ]
    return f"forward reads K {loads['k']:.2f} and V {loads['v']:.2f} times, at most {most:.2f}", failures


def _decode_attention(shape: Shape) -> Call:
    """One new token of every sequence; `own` tokens of it are there already."""
    prompts = max(1, shape.tokens // shape.members)
    sequences, head_dim = prompts * shape.members, shape.head_dim
    q = shape.floats(sequences, shape.heads, head_dim)
    prefix_k, prefix_v = (shape.floats(prompts, shape.kv_heads, shape.length, head_dim) for _ in range(2))
    own_k, own_v = (shape.floats(sequences, shape.kv_heads, shape.own, head_dim) for _ in range(2))
    sequence = torch.arange(sequences, device=shape.device)
    where = {
        "prefix_N": sequence // shape.members,
        "prefix_length_P": torch.full((prompts,), shape.length, device=shape.device),
        "slot_N": sequence,
        "own_length_N": torch.full((sequences,), shape.own, device=shape.device),
    }
    most = sequences_per_tile(q, shape.heads, shape.kv_heads, head_dim)
    table = tile_sequences(np.arange(sequences) // shape.members, most)
    tiles = SequenceTiles(torch.from_numpy(table).to(shape.device), most)
    return Call(
        tokens=sequences,
        run=functools.partial(decode_attention, tiles=tiles),
        inputs={
            "q_NHD": q,
            "prefix_k_PKLD": prefix_k,
            "prefix_v_PKLD": prefix_v,
            "own_k_SKCD": own_k,
            "own_v_SKCD": own_v,
            **where,
        },
        learns=(),
        definition=functools.partial(decode_attention_ref, scale=head_dim**-0.5),
        # q, o and all keys and values once; what is one number a sequence is not in the floor
        floor=(_bytes(q, q, prefix_k, prefix_v, own_k, own_v), 0),
        flops=(4 * sequences * shape.heads * head_dim * (shape.length + shape.own), 0),
    )


def _cross_entropy(shape: Shape) -> Call:
    logits, labels = shape.floats(shape.tokens, shape.vocab), shape.ids(shape.vocab, shape.tokens)
    return Call(
        tokens=shape.tokens,
        run=cross_entropy,
        inputs={"logits_NV": logits, "labels_N": labels},
        learns=("logits_NV",),
        definition=cross_entropy_ref,
        # logits once, their gradient once; what is one number a token is not in the floor
        floor=(_bytes(logits, logits), 0),
        rivals=peers.cross_entropy(logits, labels),
    )


def _policy_loss(shape: Shape, kind: Kind = "grpo", exact_kl: bool = False) -> Call:
    """Responses of `own` tokens: clipped, with a KL to a reference and an entropy bonus."""
    sequences = max(1, shape.tokens // shape.own)
    N = sequences * shape.own
    logits, tokens = shape.floats(N, shape.vocab), shape.ids(shape.vocab, N)
    float_N = functools.partial(shape.floats, N, dtype=torch.float32)
    # near the uniform distribution, so that no ratio overflows
    old, reference, advantages = 0.1 * float_N() - 8.0, 0.1 * float_N() - 8.0, float_N()
    inputs: dict[str, Any] = {
        "logits_NV": logits,
        "tokens_N": tokens,
        "advantages_N": advantages,
        "old_logprobs_N": old,
    }
    inputs |= {"weights_N": torch.full_like(old, 1.0 / N), "kind": kind, "kl_coef": 0.04, "entropy_coef": 0.01}
    if kind == "gspo":
        inputs["sequence_offsets_S"] = torch.arange(sequences + 1, device=shape.device) * shape.own
    if exact_kl:
        inputs["reference_logits_NV"] = shape.floats(N, shape.vocab)
    else:
        inputs["reference_logprobs_N"] = reference
    plain = kind == "grpo" and not exact_kl
    return Call(
        tokens=N,
        run=policy_loss,
        inputs=inputs,
        learns=("logits_NV",),
        definition=policy_loss_ref,
        # logits (and those of the reference) once, their gradient once; what is a number a token is not in the floor
        floor=(_bytes(logits, logits) + exact_kl * _bytes(logits), 0),
        rivals=peers.policy_loss(logits, tokens, old, reference, advantages, shape.own) if plain else {},
    )


# Kernels, by module and name without _kernel, whose accesses may be narrower than 128 bits, and why.
_ONE_A_TOKEN = "numbers of which there is one a token: 4 bytes where a row of logits has thousands; no end is aligned"
MAY_BE_NARROW = {
    "logit_rows.reduce": _ONE_A_TOKEN,
    "policy_loss_triton.tokens": _ONE_A_TOKEN,
    "policy_loss_triton.sequences": _ONE_A_TOKEN,
}

# the vocabulary of the model, whose rows stay in registers, and a long one, which takes two passes
_VOCABULARIES: dict[str, Sizes] = {"v2200": {}, "v151936": {"vocab": 151936, "tokens": 1003}}
_HEAD_DIMS: dict[str, Sizes] = {
    "d64": {"head_dim": 64},
    # the smaller model of the same configuration files: 8 and 4 heads of 72
    "d72": {"head_dim": 72, "heads": 8, "kv_heads": 4},
    "d96": {"head_dim": 96},
    "d128": {"head_dim": 128},
}
_GROUP: Sizes = {"length": 400, "own": 300, "members": 6}

OPS = {
    "rms_norm": Op(_rms_norm, counted={"tokens": 12288}, liger_tokens=1024, most_traffic=1.05),
    "add_rms_norm": Op(_add_rms_norm, counted={"tokens": 12288}, liger_tokens=1024, most_traffic=1.05),
    # a branch of 16 bits on a float32 stream, as in training under autocast
    "add_rms_norm_float32": Op(
        functools.partial(_add_rms_norm, stream=torch.float32), counted={"tokens": 12288}, most_traffic=1.05
    ),
    "row_sums": Op(_row_sums, most_traffic=1.05),
    "rope": Op(_rope, most_traffic=1.05),
    "swiglu": Op(_swiglu, most_traffic=1.05),
    # bfloat16, because float16 takes two passes
    "cross_entropy": Op(
        _cross_entropy, shapes=_VOCABULARIES, counted={"tokens": 256}, counted_dtype=torch.bfloat16, most_traffic=1.05
    ),
    "policy_loss": Op(
        _policy_loss,
        shapes=_VOCABULARIES,
        counted={"tokens": 256, "own": 64},
        counted_dtype=torch.bfloat16,
        most_traffic=1.05,
        most_of_liger=0.70,
    ),
    "policy_loss_exact_kl": Op(
        functools.partial(_policy_loss, exact_kl=True),
        shapes=_VOCABULARIES,
        counted={"tokens": 128, "own": 64},
        counted_dtype=torch.bfloat16,
        most_traffic=1.05,
    ),
    # the ratio of a sequence takes a pass of its own over the logits
    "policy_loss_gspo": Op(
        functools.partial(_policy_loss, kind="gspo"),
        shapes=_VOCABULARIES,
        counted={"tokens": 128, "own": 64},
        counted_dtype=torch.bfloat16,
        most_traffic=1.55,
    ),
    "attention": Op(
        _attention,
        shapes=_HEAD_DIMS,
        counted={"tokens": 384, "length": 384},
        tensor_cores={
            "attention.forward": "HGMMA",
            "attention_backward.query": "HGMMA",
            "attention_backward.key": "HGMMA",
        },
    ),
    # other head dims take the two operators
    "rope_attention": Op(
        _rope_attention,
        shapes={name: _HEAD_DIMS[name] for name in ("d64", "d128")},
        counted={"tokens": 384, "length": 384},
        tensor_cores={
            "attention.forward": "HGMMA",
            "attention_backward.query": "HGMMA",
            "attention_backward.key": "HGMMA",
        },
    ),
    # as in training on one GPU in 16 bits; where they do not pay, the sums are torch's
    "rope_attention_bias": Op(
        functools.partial(_rope_attention, learns_bias=True),
        shapes={name: _HEAD_DIMS[name] for name in ("d64", "d128")},
        counted={"tokens": 384, "length": 384},
        tensor_cores={
            "attention.forward": "HGMMA",
            "attention_backward.query": "HGMMA",
            "attention_backward.key": "HGMMA",
        },
    ),
    # the same kernels: not compiled again
    "attention_groups": Op(
        _attention_groups,
        shapes={},
        counted={"tokens": 1, "length": 100, "own": 75, "members": 4},
        timed={"tokens": 131072, **_GROUP},
    ),
    "decode_attention": Op(
        _decode_attention,
        shapes=_HEAD_DIMS,
        counted={"tokens": 16, "length": 128, "own": 48, "members": 8},
        timed={"tokens": 6144, **_GROUP},
        # a sequence's own tokens meet 6 rows, padded to 16: too few for the instructions of a warp group
        tensor_cores={"decode_attention.prefix": "HGMMA", "decode_attention.own": "HMMA"},
    ),
}
