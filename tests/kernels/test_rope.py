"""Rotary embedding against transformers and against its own properties."""

import torch
from fastreason.kernels import rope, rope_angles


def test_against_transformers():
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    positions, D, theta = torch.tensor([0, 1, 5, 100, 2000]), 16, 10000.0
    x = torch.randn(5, 3, D, dtype=torch.float64)
    inverse = theta ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
    angles = torch.cat([positions[:, None] * inverse] * 2, dim=-1)
    theirs, _ = apply_rotary_pos_emb(
        x.transpose(0, 1)[None], x.transpose(0, 1)[None], angles.cos()[None], angles.sin()[None]
    )
    ours = rope(x, *rope_angles(positions, D, theta, torch.float64))
    torch.testing.assert_close(ours, theirs[0].transpose(0, 1), atol=1e-12, rtol=1e-12)


def test_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64)

    def score(a, b):
        (qa,), (kb,) = (rope(x, *rope_angles(torch.tensor([p]), 8, 100.0, torch.float64)) for x, p in ((q, a), (k, b)))
        return (qa * kb).sum()

    torch.testing.assert_close(score(3, 1), score(53, 51))
    torch.testing.assert_close(score(0, 0), (q * k).sum())


def test_gradcheck_and_length():
    x = torch.randn(4, 2, 6, dtype=torch.float64, requires_grad=True)
    angles = rope_angles(torch.arange(4), 6, 100.0, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rope(x, *angles), (x,))
    torch.testing.assert_close(rope(x, *angles).norm(dim=-1), x.norm(dim=-1))
