"""Optimizers against torch's own, and learning-rate schedules."""

import math

import pytest
import torch
from torch import nn

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.training.optimizer import Muon, Optimizer, OptimSettings, learning_rate_factor, orthogonalize


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


def test_orthogonalize_in_bfloat16_as_on_a_gpu():
    """The iteration pulls the singular values into its interval in 8 bits too; the update itself is float32."""
    x = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    narrow = orthogonalize(x.bfloat16()).float()
    values = torch.linalg.svdvals(narrow)
    assert 0.5 < values.min() <= values.max() < 1.3
    assert (narrow - orthogonalize(x)).norm() < 0.02 * narrow.norm()
    assert orthogonalize(x.to("meta")).dtype == torch.float32


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


def formula(schedule: str, p: float, w: float, d: float, f: float) -> float:
    """The lines of the docstring of `learning_rate_factor`, once more."""
    if p < w:
        return p / w
    if schedule == "constant":
        return 1.0
    if schedule == "wsd":
        return 1.0 if p < 1 - d else f + (1 - f) * (1 - p) / d
    if schedule == "cosine":
        return f + (1 - f) * (1 + math.cos(math.pi * (p - w) / (1 - w))) / 2
    return f + (1 - f) * (1 - (p - w) / (1 - w))


# the paper's pre-training and mid-training; no warm-up; a decay that follows the warm-up at once; no floor
@pytest.mark.parametrize(
    "w, d, f", [(0.05, 0.2, 0.3), (0.15, 0.2, 0.3), (0.0, 0.1, 0.02), (0.5, 0.5, 0.1), (0.1, 0.3, 0.0)]
)
@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_schedules_are_their_formula_at_every_step(schedule, w, d, f):
    shape = {"floor": f} if schedule != "constant" else {}
    shape |= {"decay": d} if schedule == "wsd" else {}
    settings = OptimSettings(schedule=schedule, warmup=w, **shape)
    steps = 400
    got = [learning_rate_factor(settings, step / steps) for step in range(steps + 1)]
    assert got == pytest.approx([formula(schedule, step / steps, w, d, f) for step in range(steps + 1)], abs=1e-12)
    assert max(got) == pytest.approx(1.0, abs=1 / steps)
    assert got[-1] == pytest.approx(1.0 if schedule == "constant" else f)
    # the last step of a stage may overshoot its budget
    assert learning_rate_factor(settings, 1.3) == got[-1]


def test_the_learning_rate_reaches_every_group():
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=20))
    settings = OptimSettings(schedule="wsd", matrix_lr=0.4, lr=0.2, warmup=0.0, decay=0.5, floor=0.0)
    optimizer = Optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.75)
    assert [group["lr"] for group in optimizer.matrices.param_groups] == [0.2]
    assert [group["lr"] for group in optimizer.others.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize("decay_embeddings", [False, True])
@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_weight_decay_leaves_norms_and_biases_alone(matrices, decay_embeddings):
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=20, tie_word_embeddings=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    settings = OptimSettings(
        matrices=matrices,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.5,
        matrix_lr=0.1,
        lr=0.1,
        decay_embeddings=decay_embeddings,
    )
    optimizer = Optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that decay alone moves a weight
    optimizer.step(0.5)
    for name, parameter in model.named_parameters():
        inside = name not in ("embedding.weight", "head.weight")
        decayed = parameter.ndim == 2 and (decay_embeddings or inside)
        want = 1.0 - 0.1 * 0.5 if decayed else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, want), msg=name)


def test_a_head_of_its_own_has_adamw():
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=20, tie_word_embeddings=False))
    optimizer = Optimizer(model, OptimSettings())
    by_adamw = {optimizer.names[p] for group in optimizer.others.param_groups for p in group["params"]}
    assert {"embedding.weight", "head.weight", "final_norm"} <= by_adamw
    assert not any(name.endswith(("qkv.weight", "down.weight")) for name in by_adamw)


def test_adamw_is_torchs_fused():
    optimizer = Optimizer(fr.Decoder(fr.ModelConfig.preset("tiny")), OptimSettings(matrices="adamw"))
    for part in (optimizer.matrices, optimizer.others):
        assert type(part) is torch.optim.AdamW
        assert part.defaults["fused"] is True


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_change_nothing(value):
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=20))
    model.reset_parameters(0)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = Optimizer(model, OptimSettings())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    with pytest.raises(FloatingPointError, match=r"the gradient norm is (nan|inf)"):
        optimizer.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not optimizer.state_tensors()


def test_state_of_another_shape_is_refused():
    optimizer = Optimizer(fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=20)), OptimSettings())
    with pytest.raises(ValueError, match=r"'final_norm:exp_avg' must have shape \(64,\), got \(32,\)"):
        optimizer.load_state_tensors({"final_norm:exp_avg": torch.zeros(32)})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lr": -1.0}, r"lr must be in 0 \.\. 10, got -1.0"),
        ({"floor": 1.5}, "floor must be in"),
        ({"clip": 0.0}, "clip must be > 0, got 0.0"),
        ({"betas": (0.9, 1.5)}, r"betas must be in 0 <= x < 1, got \(0.9, 1.5\)"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"schedule": "constant", "floor": 0.1}, "floor has no effect with schedule 'constant'"),
        ({"schedule": "cosine", "decay": 0.1}, "decay has no effect with schedule 'cosine'"),
        ({"decay_embeddings": True}, "decay_embeddings has no effect without weight_decay"),
        ({"decay": -0.1}, r"decay must be in 0 \.\. 1, got -0.1"),
        ({"schedule": "wsd", "warmup": 0.6, "decay": 0.5}, "warmup [+] decay must be at most 1 .* got 0.6 and 0.5"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        OptimSettings(**change)
