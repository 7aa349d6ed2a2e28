"""The one batch layout: packed tokens and the segments they form.

A batch is a flat row of T tokens cut into S *segments*, each `start, length, prefix`. A token attends to all of its
segment's prefix and causally to its own segment; its position continues after the prefix. A pre-training row holds
documents without prefix. A GRPO group holds one prompt segment and n response segments whose prefix it is, so the
prompt is embedded, projected and normalised once and not n times.

Letters:    T tokens, S segments; R padded rows, of rectangles [B, L]; P prefixes, in a rectangle [P, M].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

__all__ = ["Bucket", "Plan", "Rectangle", "Rows", "Segments"]


@dataclass(frozen=True, eq=False)
class Segments:
    """The positions of the segments of a packed batch.

    Args:
        start: int64 [S], CPU: first token of each segment. Segments are in order and do not overlap.
        length: int64 [S], CPU: tokens of each segment, at least 1.
        prefix: int64 [S], CPU: the index of the segment that all tokens of this one may attend to, or -1. A prefix has
            no prefix itself.
        num_tokens: T. Tokens outside every segment are padding: they attend to nothing and get zeros.
    Attributes:
        table: int64 [3, S], CPU: start, length and prefix in one tensor. Kernels receive this one, and keep what they
            derive from it as long as it exists, so none of the four may be written to.
    Raises:
        ValueError: on anything else.
    """

    start: Tensor
    length: Tensor
    prefix: Tensor
    num_tokens: int
    table: Tensor = field(init=False, repr=False)
    _positions: dict[torch.device, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("start", "length", "prefix"):
            value = getattr(self, name)
            if value.ndim != 1 or value.dtype != torch.int64 or value.shape != self.start.shape:
                raise ValueError(
                    f"Segments: {name} must be int64 [{len(self.start)}], got {value.dtype} {tuple(value.shape)}"
                )
        end = self.start + self.length
        if len(end) == 0 or self.length.min() < 1 or self.start[0] < 0 or end[-1] > self.num_tokens:
            raise ValueError(
                f"Segments: need at least one segment of at least one token within 0 .. {self.num_tokens}, "
                f"got starts {self.start[:4].tolist()} and lengths {self.length[:4].tolist()} (first four)"
            )
        if (self.start[1:] < end[:-1]).any():
            raise ValueError("Segments: segments must be in order and not overlap")
        has_prefix = self.prefix >= 0
        if (self.prefix < -1).any() or (self.prefix >= len(end)).any():
            raise ValueError(f"Segments: prefix must be -1 or an index below {len(end)}")
        if has_prefix.any() and has_prefix[self.prefix[has_prefix]].any():
            raise ValueError("Segments: the prefix of a segment must not have a prefix itself")
        object.__setattr__(self, "table", torch.stack([self.start, self.length, self.prefix]))

    @classmethod
    def from_lengths(cls, lengths: Sequence[int] | Tensor) -> Segments:
        """Documents one after the other, without prefix."""
        length = torch.as_tensor(lengths, dtype=torch.int64)
        start = length.cumsum(0) - length
        return cls(start, length, torch.full_like(length, -1), int(length.sum()))

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor, num_tokens: int | None = None) -> Segments:
        """Documents between the given borders, without prefix: the layout of flash-attn's varlen functions.

        Args:
            cu_seqlens: int32 or int64 [S + 1], never falling: document s holds tokens cu_seqlens[s] ..
                cu_seqlens[s + 1] - 1. One without tokens has no segment.
            num_tokens: T, where padding follows the last document; default cu_seqlens[S].
        """
        if cu_seqlens.ndim != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or len(cu_seqlens) < 2:
            raise ValueError(
                "Segments.from_cu_seqlens: need int32 or int64 [S + 1] with S >= 1, "
                f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
            )
        border = cu_seqlens.to("cpu", torch.int64)
        length = border.diff()
        start, length = border[:-1][length != 0], length[length != 0]
        return cls(start, length, torch.full_like(length, -1), int(border[-1]) if num_tokens is None else num_tokens)

    @classmethod
    def from_groups(cls, prompt_lengths: Sequence[int] | Tensor, response_lengths: Tensor) -> Segments:
        """Groups of one prompt and G responses each: prompt 0, its responses, prompt 1, its responses, ...

        Args:
            prompt_lengths: integers [P].
            response_lengths: integers [P, G].
        """
        prompts = torch.as_tensor(prompt_lengths, dtype=torch.int64)
        responses = torch.as_tensor(response_lengths, dtype=torch.int64)
        if prompts.ndim != 1 or responses.ndim != 2 or len(prompts) != len(responses):
            raise ValueError(
                f"Segments.from_groups: need lengths [P] and [P, G], got {tuple(prompts.shape)} and "
                f"{tuple(responses.shape)}"
            )
        length = torch.cat([prompts[:, None], responses], dim=1)
        prefix = torch.arange(len(prompts))[:, None] * length.shape[1] + torch.zeros_like(length)
        prefix[:, 0] = -1
        flat = length.flatten()
        return cls(flat.cumsum(0) - flat, flat, prefix.flatten(), int(flat.sum()))

    def padded(self, multiple: int) -> Segments:
        """The same segments and one more of the tokens that are missing to a multiple of `multiple`: attention has to
        clear what belongs to no segment."""
        missing = -self.num_tokens % multiple
        if not missing:
            return self
        last = ((self.start, self.num_tokens), (self.length, missing), (self.prefix, -1))
        start, length, prefix = (torch.cat([x, x.new_tensor([own])]) for x, own in last)
        return Segments(start, length, prefix, self.num_tokens + missing)

    @cached_property
    def positions(self) -> Tensor:
        """int64 [T]: the position of every token, counted on from its prefix; 0 for padding."""
        offset = torch.where(self.prefix >= 0, self.length[self.prefix.clamp(min=0)], 0) - self.start
        positions = torch.zeros(self.num_tokens, dtype=torch.int64)
        token = _tokens_of(self.start, self.length)
        positions[token] = token + offset.repeat_interleave(self.length)
        return positions

    def positions_on(self, device: torch.device) -> Tensor:
        """`positions` on a device, copied there once."""
        if device.type == "cpu":
            return self.positions
        if device not in self._positions:
            self.put_positions(self.positions.to(device))
        return self._positions[device]

    def put_positions(self, positions_T: Tensor) -> None:
        """Hands over `positions` where they have been copied to a device together with other tensors."""
        self._positions[positions_T.device] = positions_T

    @cached_property
    def plan(self) -> Plan:
        """How to cut the batch into padded rectangles; computed once and used by every layer."""
        return Plan.build(self)


def _tokens_of(start: Tensor, length: Tensor) -> Tensor:
    """The token indices of all segments one after the other: int64 [sum of lengths]."""
    begin = length.cumsum(0) - length
    return torch.arange(int(length.sum())) + (start - begin).repeat_interleave(length)


@dataclass(frozen=True, eq=False)
class Rows:
    """Padded rows copied from tokens: `x[token_of_row]` there, `padded[row_of_token]` back.

    Args:
        token_of_row: int64 [R]: the token that each row is a copy of; for padding rows any token.
        row_of_token: int64 [T]: the row that holds each token, R for tokens without one.
        covers_all: whether every token has a row.
    """

    token_of_row: Tensor
    row_of_token: Tensor
    covers_all: bool

    @classmethod
    def build(cls, segments: Segments, rectangles: list[Tensor]) -> tuple[Rows, list[Rectangle]]:
        """Lays out one rectangle after the other; each is given as the ids of its segments."""
        token_of_row: list[Tensor] = []
        row_of_token = torch.full((segments.num_tokens,), -1, dtype=torch.int64)
        placed: list[Rectangle] = []
        num_rows = 0
        for ids in rectangles:
            length_B = segments.length[ids]
            column_L = torch.arange(int(length_B.max()))
            token_BL = (segments.start[ids, None] + column_L).clamp(max=segments.num_tokens - 1)
            inside_BL = column_L < length_B[:, None]
            row_BL = num_rows + torch.arange(token_BL.numel()).view_as(token_BL)
            row_of_token[token_BL[inside_BL]] = row_BL[inside_BL]
            token_of_row.append(token_BL.flatten())
            rows = slice(num_rows, num_rows + token_BL.numel())
            placed.append(Rectangle(rows, len(ids), token_BL.shape[1], None if inside_BL.all() else ~inside_BL))
            num_rows = rows.stop
        covered = row_of_token >= 0
        rows_of_all = torch.where(covered, row_of_token, num_rows)
        return cls(torch.cat(token_of_row), rows_of_all, bool(covered.all())), placed

    def gather(self, x: Tensor) -> Tensor:
        """[T, ...] -> [R, ...]. The gradient of padding rows is dropped."""
        return _Permute.apply(x, self.token_of_row, self.row_of_token, self.covers_all)

    def scatter(self, padded: Tensor) -> Tensor:
        """[R, ...] -> [T, ...], zeros for tokens without a row."""
        if not self.covers_all:
            padded = torch.cat([padded, padded.new_zeros(1, *padded.shape[1:])])
        return padded[self.row_of_token]


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Segments of similar length as [B, L] padded rows.

    Args:
        rows: where in the padded rows.
        count: B.
        length: L.
        padding: bool [B, L], True where a row holds no token of its segment; None if there is no such row.
    """

    rows: slice
    count: int
    length: int
    padding: Tensor | None


@dataclass(frozen=True, eq=False)
class Bucket:
    """Segments of similar length, and what each may see before itself.

    Args:
        rectangle: where they lie in the plan's `rows`.
        prefix: int64 [B]: which row of the plan's prefix rectangle each sees; None without prefixes.
        hidden: bool [B, L, M + L]: True where a query must not see a key, the M of its prefix first; None without
            prefixes, where plain causality says it all.
    """

    rectangle: Rectangle
    prefix: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The batch as padded rectangles, for matrix products without a [T, T] mask.

    Every segment is in the rectangle of one bucket. The prefixes lie once more in the rectangle [P, M] of
    `prefix_rows`.
    """

    rows: Rows
    prefix_rows: Rows | None
    prefixes: Rectangle | None
    buckets: tuple[Bucket, ...]

    @classmethod
    def build(cls, segments: Segments) -> Plan:
        has_prefix = segments.prefix >= 0
        alone = _similar_lengths(torch.nonzero(~has_prefix).flatten(), segments.length)
        behind = _similar_lengths(torch.nonzero(has_prefix).flatten(), segments.length)
        rows, rectangles = Rows.build(segments, alone + behind)
        buckets = [Bucket(rectangle) for rectangle in rectangles[: len(alone)]]
        if not behind:
            return cls(rows, None, None, tuple(buckets))
        prefix_ids = segments.prefix[has_prefix].unique()
        prefix_rows, (prefixes,) = Rows.build(segments, [prefix_ids])
        for ids, rectangle in zip(behind, rectangles[len(alone) :], strict=True):
            row = torch.searchsorted(prefix_ids, segments.prefix[ids])
            buckets.append(Bucket(rectangle, row, _hidden(rectangle, prefixes, row)))
        return cls(rows, prefix_rows, prefixes, tuple(buckets))


def _hidden(rectangle: Rectangle, prefixes: Rectangle, row: Tensor) -> Tensor:
    """bool [B, L, M + L]: padding of the prefix, and the future."""
    length = rectangle.length
    future = torch.ones(length, length, dtype=torch.bool).triu(1).expand(rectangle.count, -1, -1)
    if prefixes.padding is None:
        before = torch.zeros(rectangle.count, length, prefixes.length, dtype=torch.bool)
    else:
        before = prefixes.padding[row][:, None].expand(-1, length, -1)
    return torch.cat([before, future], dim=2)


def _similar_lengths(ids: Tensor, length: Tensor, max_buckets: int = 4) -> list[Tensor]:
    """`ids` sorted by length[ids] and cut into at most `max_buckets` runs of about equal numbers of tokens."""
    if len(ids) == 0:
        return []
    ids = ids[length[ids].argsort(stable=True)]
    share = length[ids].cumsum(0) / length[ids].sum()
    bucket = (share * max_buckets).ceil().clamp(1, max_buckets)
    return [ids[bucket == b] for b in bucket.unique().tolist()]


class _Permute(torch.autograd.Function):
    """x[forward_index] whose gradient is a gather too: every token has at most one row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_index: Tensor, backward_index: Tensor, covers_all: bool) -> Tensor:
        ctx.save_for_backward(backward_index)
        ctx.covers_all = covers_all
        return x[forward_index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        if not ctx.covers_all:
            grad = torch.cat([grad, grad.new_zeros(1, *grad.shape[1:])])
        return grad[index], None, None, None
