"""Optimizers against torch's own, and learning-rate schedules."""

import pytest
import torch
from fastreason.kernels import Segments
from torch import nn

import fastreason as fr
from fastreason.optim import Muon, Optimizer, OptimSettings, learning_rate_factor, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (10, 6)])
def test_orthogonalize_pushes_singular_values_to_one(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(x))
    assert values.min() > 0.5
    assert values.max() < 1.3
    # the singular vectors stay: U^T of x times the result times V is nearly diagonal
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    core = u.mT @ orthogonalize(x) @ vh.mT
    off = core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-4


def test_muon_is_torchs_muon():
    """torch computes in bfloat16, so its orthogonalised update agrees to that precision only."""
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(6, 4, generator=g), torch.randn(4, 6, generator=g), torch.randn(6, 4, generator=g)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    a = Muon(ours, lr=0.1, momentum=0.9)
    b = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=True)
    for _ in range(4):
        gradients = [torch.randn(x.shape, generator=g) for x in start]
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
        a.step()
        b.step()
    for x, y, z in zip(ours, theirs, start, strict=True):
        moved = (x - z).norm()
        assert (x - y).norm() < 0.02 * moved


def test_muon_takes_matrices_only():
    with pytest.raises(ValueError, match="parameters must be matrices"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_state_continues_exactly(matrices):
    config = fr.ModelConfig.preset("tiny", vocab_size=20)

    def advance(model, optimizer, steps, first=0):
        for i in range(first, first + steps):
            tokens = torch.randint(20, (16,), generator=torch.Generator().manual_seed(i))
            nn.functional.cross_entropy(
                model.logits(model(tokens, Segments.from_lengths([16])))[:-1], tokens[1:]
            ).backward()
            optimizer.step(0.5)

    settings = OptimSettings(matrices=matrices, matrix_lr=0.01, lr=0.01)
    whole = fr.Decoder(config)
    whole.reset_parameters(0)
    optimizer = Optimizer(whole, settings)
    advance(whole, optimizer, 3)
    state = {key: value.clone() for key, value in optimizer.state_tensors().items()}
    other = fr.Decoder(config)
    other.load_state_dict(whole.state_dict())
    continued = Optimizer(other, settings)
    continued.load_state_tensors(state)
    advance(whole, optimizer, 3, first=3)
    advance(other, continued, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="unknown parameter 'nobody'"):
        continued.load_state_tensors({"nobody:step": torch.zeros(1)})


def test_clipping_reports_the_norm_before_it():
    model = nn.Linear(2, 1)
    optimizer = Optimizer(model, OptimSettings(matrices="adamw", clip=1.0))
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert optimizer.step(0.5) == pytest.approx(5.0)
    assert model.weight.grad is None


def test_schedules():
    cosine = OptimSettings(schedule="cosine", warmup=0.1, floor=0.2)
    linear = OptimSettings(schedule="linear", warmup=0.1, floor=0.2)
    constant = OptimSettings(schedule="constant", warmup=0.1)
    for settings in (cosine, linear, constant):
        assert learning_rate_factor(settings, 0.0) == 0.0
        assert learning_rate_factor(settings, 0.1) == pytest.approx(1.0)
    assert learning_rate_factor(cosine, 0.55) == learning_rate_factor(linear, 0.55) == pytest.approx(0.6)
    assert learning_rate_factor(cosine, 1.0) == learning_rate_factor(linear, 1.0) == pytest.approx(0.2)
    assert learning_rate_factor(constant, 1.0) == 1.0
    assert learning_rate_factor(OptimSettings(warmup=0.0), 0.0) == 1.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lr": -1.0}, r"lr must be in 0.0 \.\. 10.0, got -1.0"),
        ({"floor": 1.5}, "floor must be in"),
        ({"clip": 0.0}, "clip must be > 0, got 0.0"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        OptimSettings(**change)
