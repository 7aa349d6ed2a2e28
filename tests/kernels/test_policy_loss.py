"""The policy loss: its definition against formulas written down apart, the Triton kernels against the definition."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from fastreason.kernels import policy_loss, token_weights
from fastreason.kernels.logit_rows import scalars
from fastreason.kernels.policy_loss import policy_loss_ref
from fastreason.kernels.triton_support import INTERPRETED, runs_triton

from .conftest import needs_triton
from .numerics import check_compiled, check_op, relative

# the interpreter computes with numpy, which warns of an overflow or of inf - inf that is not used
to_infinity = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
KINDS = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "reinforce"]


@dataclass(frozen=True)
class Batch:
    """Three sequences of 1, 5 and the remaining tokens, drawn from the policy."""

    logits: torch.Tensor
    tokens: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor
    old: torch.Tensor
    importance: torch.Tensor
    reference: torch.Tensor
    reference_logits: torch.Tensor
    offsets: torch.Tensor

    def double(self):
        return replace(self, **{k: v.double() for k, v in vars(self).items() if v.is_floating_point()})

    def rows(self, index):
        return replace(self, **{k: v[index] for k, v in vars(self).items() if k != "offsets"})


def batch(N=17, V=257, dtype=torch.float32, device="cpu", temperature=0.7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = (2.0 * torch.randn(N, V, generator=g)).to(dtype)
    reference_logits = (logits.float() + 0.3 * torch.randn(N, V, generator=g)).to(dtype)
    logprobs = (logits.float() / temperature).log_softmax(-1)
    tokens = torch.multinomial(logprobs.exp(), 1, generator=g).squeeze(1)
    logprobs = logprobs.gather(1, tokens[:, None]).squeeze(1)
    old, reference = (logprobs + 0.3 * torch.randn(N, generator=g) for _ in range(2))
    offsets = torch.tensor([0, 1, 6, N] if N > 6 else [0, N])
    advantages, weights = torch.randn(N, generator=g), (0.2 + torch.rand(N, generator=g)) / N
    importance = 2 * torch.rand(N, generator=g)
    fields = (logits, tokens, advantages, weights, old, importance, reference, reference_logits, offsets)
    return Batch(*(x.to(device) for x in fields))


def call(function, b, kind="grpo", references="", **settings):
    """references: "logprobs", "logits" or neither."""
    if references:
        settings = {"kl_coef": 0.1} | settings
    return function(
        b.logits, b.tokens, b.advantages, b.weights,
        reference_logprobs_N=b.reference if references == "logprobs" else None,
        reference_logits_NV=b.reference_logits if references == "logits" else None,
        sequence_offsets_S=b.offsets if kind == "gspo" else None, kind=kind,
        **({"old_logprobs_N": b.old, "importance_N": b.importance, "temperature": 0.7} | settings),
    )  # fmt: skip


def loss_and_gradient(function, b, upstream=1.0, **settings):
    leaf = b.logits.detach().clone().requires_grad_()
    result = call(function, replace(b, logits=leaf), **settings)
    (gradient,) = torch.autograd.grad(result.loss, leaf, torch.full_like(result.loss, upstream))
    return result, gradient


# --- the definition -------------------------------------------------------------------------------------------------


def plain_loss(logits, b, kind, references, *, low, high, dual, estimator, kl_coef, entropy_coef):
    """The formulas of the papers, one token at a time; gspo with the gradient through the ratio of the sequence."""
    N = len(b.tokens)
    logprobs = [z - torch.logsumexp(z, 0) for z in logits / 0.7]
    chosen = [logprobs[n][b.tokens[n]] for n in range(N)]
    ratios = [torch.exp(chosen[n] - b.old[n]) for n in range(N)]
    if kind == "gspo":
        for first, last in zip(b.offsets[:-1].tolist(), b.offsets[1:].tolist(), strict=True):
            mean = sum(chosen[n] - b.old[n] for n in range(first, last)) / (last - first)
            ratios[first:last] = [torch.exp(mean)] * (last - first)
    total = 0.0
    for n in range(N):
        r, a = ratios[n], b.advantages[n]
        if kind == "reinforce":
            term = -a * chosen[n]
        elif kind == "cispo":
            term = -min(max(r.item(), 1 - low), 1 + high) * a * chosen[n]
        else:
            term = -torch.minimum(r * a, r.clamp(1 - low, 1 + high) * a)
            if a < 0:
                term = torch.minimum(term, -dual * a)
        p = logprobs[n].exp()
        divergence = torch.zeros(())
        if references == "logprobs":
            difference = b.reference[n] - chosen[n]
            k1, k2, k3 = -difference, difference**2 / 2, difference.exp() - 1 - difference
            divergence = {"k1": k1, "k2": k2, "k3": k3}[estimator]
        elif references == "logits":
            divergence = (p * (logprobs[n] - (b.reference_logits[n] / 0.7).log_softmax(0))).sum()
        entropy = -(p * logprobs[n]).sum()
        total = total + b.weights[n] * (b.importance[n] * term + kl_coef * divergence - entropy_coef * entropy)
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "references, estimator", [("", "k3"), ("logprobs", "k1"), ("logprobs", "k2"), ("logprobs", "k3"), ("logits", "k3")]
)
@pytest.mark.parametrize("clips", [(0.2, 0.2, math.inf), (0.1, 0.3, 1.2), (0.0, 0.0, 3.0)])
def test_the_definition_is_its_formula(kind, references, estimator, clips):
    low, high, dual = clips
    b = batch(V=7).double()
    if kind == "gspo":  # equal within a sequence, where the gradient through the sequence's ratio is that of its tokens
        lengths = b.offsets.diff()
        b = replace(
            b, advantages=b.advantages[:3].repeat_interleave(lengths),
            weights=token_weights(lengths, "sequence").double(),
        )  # fmt: skip
    coefficients = {"kl_coef": 0.1 if references else 0.0, "entropy_coef": 0.03}
    result, gradient = loss_and_gradient(
        policy_loss_ref, b, kind=kind, references=references, clip_low=low, clip_high=high, clip_dual=dual,
        kl=estimator, **coefficients,
    )  # fmt: skip
    leaf = b.logits.clone().requires_grad_()
    truth = plain_loss(
        leaf, b, kind, references, low=low, high=high, dual=dual, estimator=estimator, **coefficients
    )  # fmt: skip
    torch.testing.assert_close(result.loss, truth, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(truth, leaf)[0], atol=1e-12, rtol=1e-12)
    # float64 runs the definition wherever it is
    assert torch.equal(call(policy_loss, b).loss, call(policy_loss_ref, b).loss)


@pytest.mark.parametrize("references", ["", "logprobs", "logits"])
@pytest.mark.parametrize("kind", ["grpo", "reinforce"])
def test_gradcheck_of_the_definition(kind, references):
    """cispo and gspo hold a factor fixed on purpose, which finite differences do not."""
    b = batch(N=5, V=4).double()
    assert torch.autograd.gradcheck(
        lambda x: call(policy_loss_ref, replace(b, logits=x), kind=kind, references=references, entropy_coef=0.1).loss,
        b.logits.requires_grad_(),
    )


# --- the kernels ----------------------------------------------------------------------------------------------------

# a tail, an odd width, one column, the limit of one pass and past it
SHAPES = [(17, 2200), (3, 2199), (17, 257), (1, 40), (17, 1), (2, 8192), (9, 8200)]


def check(b, upstream=1.0, limit=1e-6, **settings):
    """Loss, log-probabilities, statistics and gradient against float64; worst gradient seen, interpreted: 4e-7.

    Tokens are drawn from the policy. An unlikely token is worse off, by any formula whose old log-probability is a
    float32: at -16 that rounds by 1e-6, and the ratio with it. A loss is a sum of terms of both signs, each as
    uncertain as its log-probability; its error is relative to the sum of their magnitudes.
    """
    ours, gradient = loss_and_gradient(policy_loss, b, upstream, **settings)
    truth, exact = loss_and_gradient(policy_loss_ref, b.double(), upstream, **settings)
    assert gradient.dtype == b.logits.dtype
    if b.logits.shape[1] == 1:
        assert not gradient.any()
    else:
        assert relative(gradient, exact) <= limit
        assert relative(ours.logprobs_N, truth.logprobs_N) <= 1e-6
    terms = b.weights.double() * (b.importance * b.advantages).double().abs() * (1.0 + truth.logprobs_N.abs())
    assert abs(ours.loss.item() - truth.loss.item()) <= 1e-6 * terms.sum()
    # a difference of log-probabilities is as uncertain as these: half an ulp of 8 is 5e-7
    torch.testing.assert_close(ours.totals_K[1:].double(), truth.totals_K[1:], atol=1e-6, rtol=2e-6)
    return exact


@pytest.mark.parametrize("kind", ["grpo", "gspo", "cispo", "reinforce"])
@pytest.mark.parametrize("references", ["", "logprobs", "logits"])
def test_every_term(kind, references, device):
    check(batch(device=device), kind=kind, references=references, entropy_coef=0.05, clip_dual=1.3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("references", ["logprobs", "logits"])
def test_every_shape(shape, references, device):
    check(batch(*shape, device=device), references=references, entropy_coef=0.05, upstream=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["grpo", "gspo"])
def test_half_precision(dtype, kind, device):
    """At most twice the error of the same loss in eager half precision, plus 2 units in the last place."""
    b = batch(7, 2200, dtype, device)
    leaf = b.logits.clone().requires_grad_()
    exact = loss_and_gradient(policy_loss_ref, b.double(), importance_N=None)[1]
    logprobs = (leaf / 0.7).log_softmax(-1).gather(1, b.tokens[:, None]).squeeze(1)
    ratio = (logprobs - b.old.to(dtype)).exp()
    a = b.advantages.to(dtype)
    loss = -(b.weights.to(dtype) * torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)).sum()
    (eager,) = torch.autograd.grad(loss, leaf)
    limit = 2 * relative(eager, exact) + 2 * torch.finfo(dtype).eps
    check(b, kind=kind, references="logits", entropy_coef=0.05, limit=limit)


@needs_triton
@pytest.mark.parametrize("references", ["", "logits"])
def test_the_vocabulary_of_a_large_model(references, device):
    check(batch(2, 151_936, device=device), references=references, entropy_coef=0.01)


# --- statistics -----------------------------------------------------------------------------------------------------


def test_statistics_by_hand(device):
    b = batch(N=12, device=device)
    own = call(policy_loss, b, old_logprobs_N=None).logprobs_N
    # 4 tokens moved up by more than the clip allows, 3 down, with advantages that would move them further; 2 far up
    # with a negative advantage
    moved = torch.tensor([1.0] * 4 + [-1.0] * 3 + [2.0] * 2 + [0.0] * 3, device=device)
    advantages = torch.tensor([1.0] * 4 + [-1.0] * 3 + [-1.0] * 2 + [1.0] * 3, device=device)
    weights = torch.full((12,), 1 / 12, device=device)
    b = replace(b, old=own - moved, advantages=advantages, weights=weights)
    found = call(policy_loss, b, clip_dual=3.0, references="logprobs").statistics()
    assert list(found) == [
        "loss", "entropy", "kl", "clip_low_share", "clip_high_share", "clip_dual_share", "ratio_mean", "ratio_min",
        "ratio_max", "max_logprob_difference",
    ]  # fmt: skip
    ratios = moved.double().exp()
    entropy = torch.distributions.Categorical(logits=b.logits.double() / 0.7).entropy().mean()
    back = b.reference.double() - own.double()
    wanted = [entropy, (back.exp() - 1 - back).mean(), 3 / 12, 4 / 12, 2 / 12]
    wanted += [ratios.mean(), ratios.min(), ratios.max(), 2.0]
    assert list(found.values())[1:] == pytest.approx([float(x) for x in wanted], rel=2e-6)
    result = call(policy_loss, b, clip_dual=3.0)
    assert found["loss"] == call(policy_loss, b, clip_dual=3.0, references="logprobs").loss.item()
    assert result.clip_share.item() == pytest.approx(7 / 12)
    assert result.kl == 0.0
    assert not result.totals_K.requires_grad
    assert not result.logprobs_N.requires_grad
    none = call(policy_loss, replace(b, weights=torch.zeros_like(weights)))
    assert none.loss == none.entropy == none.clip_share == 0.0


def test_statistics_do_not_depend_on_the_unit_of_the_weights(device):
    b = batch(device=device)
    found = [call(policy_loss, replace(b, weights=b.weights * c), references="logits").statistics() for c in (1, 64)]
    assert found[1].pop("loss") == pytest.approx(64 * found[0].pop("loss"))
    assert found[0] == found[1]


# --- what must not change, or vanish --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grpo", "gspo", "cispo", "reinforce"])
@pytest.mark.parametrize("V", [257, 8200])
def test_no_advantage_no_gradient(kind, V, device):
    b = batch(N=8, V=V, device=device)
    b = replace(b, advantages=torch.zeros_like(b.advantages))
    result, gradient = loss_and_gradient(policy_loss, b, kind=kind, references="logits", kl_coef=0.0, clip_dual=2.0)
    assert result.loss == 0.0
    assert not gradient.any()
    assert result.kl > 0.0


@pytest.mark.parametrize("V", [257, 2200])
@pytest.mark.parametrize("kind", ["grpo", "gspo"])
def test_on_its_own_samples_every_ratio_is_exactly_1(kind, V, device):
    """Log-probabilities from a pass with gradient or without, by whichever path, are the same bits."""
    b = batch(V=V, device=device)
    trained, _ = loss_and_gradient(policy_loss, b, old_logprobs_N=None)
    with torch.no_grad():
        seen = call(policy_loss, b, old_logprobs_N=None)
    for old in (trained.logprobs_N, seen.logprobs_N):
        result, gradient = loss_and_gradient(policy_loss, replace(b, old=old), kind=kind)
        assert result.ratio_min == result.ratio_max == 1.0
        assert result.max_logprob_difference == 0.0
        assert result.clip_share == 0.0
        on_policy, same = loss_and_gradient(policy_loss, b, kind=kind, old_logprobs_N=None)
        assert on_policy.ratio_min == on_policy.ratio_max == 1.0
        assert torch.equal(gradient, same)
        assert torch.equal(on_policy.loss, result.loss)


def test_on_policy_the_gradient_is_reinforce(device):
    b = batch(device=device)
    _, gradient = loss_and_gradient(policy_loss, b, old_logprobs_N=None, importance_N=None)
    onehot = torch.nn.functional.one_hot(b.tokens, 257)
    wanted = -(onehot - (b.logits.double() / 0.7).softmax(-1)) / 0.7 * (b.weights * b.advantages).double()[:, None]
    assert relative(gradient, wanted) <= 1e-6


@pytest.mark.parametrize("V", [257, 8200])
@pytest.mark.parametrize("kind", ["grpo", "gspo"])
def test_tokens_of_weight_0_count_for_nothing(V, kind, device):
    b = batch(N=9, V=V, device=device)
    masked, kept = [1, 6], [0, 2, 3, 4, 5, 7, 8]
    weights = b.weights.clone()
    weights[masked] = 0.0
    b = replace(b, weights=weights)
    result, gradient = loss_and_gradient(policy_loss, b, kind=kind, references="logits", entropy_coef=0.1)
    assert not gradient[masked].any()
    assert not result.logprobs_N[masked].any()
    alone = replace(b.rows(kept), offsets=torch.tensor([0, 1, 5, 7], device=device))
    less, rest = loss_and_gradient(policy_loss, alone, kind=kind, references="logits", entropy_coef=0.1)
    torch.testing.assert_close(result.totals_K, less.totals_K, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(gradient[kept], rest, atol=1e-9, rtol=1e-5)


@to_infinity
@pytest.mark.parametrize("V, dtype", [(40, torch.float32), (8200, torch.float32), (40, torch.float64)])
@pytest.mark.parametrize(
    "kind, references", [("grpo", "logits"), ("gspo", "logprobs"), ("cispo", ""), ("reinforce", "logits")]
)
def test_what_tokens_of_weight_0_hold_does_not_matter(V, dtype, kind, references, device):
    """Bitwise: NaN, infinity, or a token that is none, as if there were anything else."""
    b = batch(N=9, V=V, device=device)
    b.weights[[0, 4]] = 0.0
    b = b.double() if dtype == torch.float64 else b
    settings = {"kind": kind, "references": references, "entropy_coef": 0.1}
    wanted, wanted_gradient = loss_and_gradient(policy_loss, b, **settings)
    for x in (b.logits, b.reference_logits, b.old, b.advantages, b.importance, b.reference):
        x[0], x[4] = float("inf"), float("nan")
    b.tokens[0], b.tokens[4] = -1, V
    result, gradient = loss_and_gradient(policy_loss, b, **settings)
    assert torch.equal(result.loss, wanted.loss)
    assert torch.equal(result.totals_K, wanted.totals_K)
    assert torch.equal(result.logprobs_N, wanted.logprobs_N)
    assert torch.equal(gradient, wanted_gradient)
    assert not gradient[[0, 4]].any()


@to_infinity
@pytest.mark.parametrize("V, dtype", [(40, torch.float32), (8200, torch.float32), (40, torch.float64)])
@pytest.mark.parametrize(
    "kind, without",
    [("grpo", "advantages"), ("grpo", "importance"), ("gspo", "importance"), ("cispo", "advantages")],
)
def test_a_term_of_nothing_is_nothing_at_any_ratio(V, dtype, kind, without, device):
    """Tokens moved so far that the ratio is infinite, with and without a bound on it."""
    b = batch(N=7, V=V, device=device)
    b = b.double() if dtype == torch.float64 else b
    getattr(b, without)[1:6] = 0.0  # the second sequence
    b.old[1:6] = -1000.0
    for high in (0.2, math.inf):
        settings = {"kind": kind, "clip_high": high, "entropy_coef": 0.01}
        result, gradient = loss_and_gradient(policy_loss, b, **settings)
        _, of_entropy = loss_and_gradient(policy_loss, replace(b, old=torch.zeros_like(b.old)), **settings)
        assert result.ratio_max == math.inf
        assert torch.isfinite(result.loss)
        assert torch.equal(gradient[1:6], of_entropy[1:6])
        assert torch.isfinite(gradient).all()


@to_infinity
@pytest.mark.parametrize("V, dtype", [(40, torch.float32), (8200, torch.float32), (40, torch.float64)])
def test_an_infinite_ratio_that_is_clipped_has_no_gradient(V, dtype, device):
    b = batch(N=2, V=V, device=device)
    b = replace(b.double() if dtype == torch.float64 else b, old=torch.full_like(b.old, -1000.0))
    b.advantages[0], b.advantages[1] = 1.0, -1.0
    b.importance[:], b.weights[:] = 1.0, 0.5
    result, gradient = loss_and_gradient(policy_loss, b, clip_dual=3.0)
    assert not gradient.any()
    assert result.loss.item() == pytest.approx(0.5 * (-1.2 + 3.0))
    assert result.clip_high_share == result.clip_dual_share == 0.5


@to_infinity
@pytest.mark.parametrize("V", [40, 8200])
def test_a_sampled_token_that_became_impossible(V, device):
    """Its log-probability is -inf: without advantage it is no part of the loss."""
    b = batch(N=3, V=V, device=device)
    b.logits[1, b.tokens[1]] = -math.inf
    b.advantages[1] = 0.0
    for kind in ("grpo", "cispo", "reinforce"):
        result, gradient = loss_and_gradient(policy_loss, b, kind=kind)
        assert torch.isfinite(result.loss)
        assert not gradient[1].any()
        assert torch.isfinite(gradient).all()


@to_infinity
@pytest.mark.parametrize("V", [40, 8200])
def test_a_divergence_that_is_only_watched_is_no_part_of_the_loss(V, device):
    b = batch(N=3, V=V, device=device)
    b.reference[1] = 1000.0  # exp(1000) of k3
    result, gradient = loss_and_gradient(policy_loss, b, references="logprobs", kl_coef=0.0)
    wanted, wanted_gradient = loss_and_gradient(policy_loss, b)
    assert result.kl == math.inf
    assert torch.equal(result.loss, wanted.loss)
    assert torch.equal(gradient, wanted_gradient)


@pytest.mark.parametrize("V", [40, 8200])
def test_gspo_takes_importance_by_sequence(V, device):
    """As if every token had the mean of its sequence, by the weights of the tokens that count."""
    b = batch(N=9, V=V, device=device)
    b.weights[3] = 0.0
    result, gradient = loss_and_gradient(policy_loss, b, kind="gspo")
    means = torch.cat([
        ((b.weights * b.importance)[s].sum() / b.weights[s].sum()).expand(s.stop - s.start)
        for s in (slice(0, 1), slice(1, 6), slice(6, 9))
    ])  # fmt: skip
    wanted, wanted_gradient = loss_and_gradient(policy_loss, replace(b, importance=means), kind="gspo")
    torch.testing.assert_close(result.totals_K, wanted.totals_K, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-8, rtol=1e-5)


@to_infinity
@pytest.mark.parametrize("V", [40, 8200])
@pytest.mark.parametrize("lowest", [-1e31, torch.finfo(torch.float32).min])
def test_logits_near_the_lowest_number(V, lowest, device):
    """A row of nothing but masks written as a very low number is uniform; one of them beside others has no weight."""
    b = batch(N=3, V=V, device=device)
    b.logits[0] = b.reference_logits[0] = lowest
    b.logits[1, : V // 2] = b.reference_logits[1, : V // 2] = lowest
    b.tokens[1] = V - 1
    b = replace(b, old=torch.full_like(b.old, -math.log(V)))
    # at a temperature below 1 the definition's division overflows
    settings = {"references": "logits", "entropy_coef": 0.1, "temperature": 1.0}
    result, gradient = loss_and_gradient(policy_loss, b, **settings)
    truth, exact = loss_and_gradient(policy_loss_ref, b.double(), **settings)
    torch.testing.assert_close(result.totals_K.double(), truth.totals_K, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), exact, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("V", [257, 8200])
def test_forbidden_tokens(V, device):
    """Logits of -inf in policy and reference: as if the vocabulary were smaller."""
    b = batch(N=9, V=V, device=device)
    kept = torch.arange(V, device=device) != 5
    tokens = torch.where(b.tokens == 5, 4, b.tokens)
    less = replace(
        b, tokens=tokens - (tokens > 5).long(), logits=b.logits[:, kept], reference_logits=b.reference_logits[:, kept]
    )
    b = replace(b, tokens=tokens)
    b.logits[:, 5] = b.reference_logits[:, 5] = -float("inf")
    result, gradient = loss_and_gradient(policy_loss, b, references="logits", entropy_coef=0.1)
    wanted, rest = loss_and_gradient(policy_loss, less, references="logits", entropy_coef=0.1)
    torch.testing.assert_close(result.totals_K, wanted.totals_K, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient[:, kept], rest, atol=1e-8, rtol=1e-5)
    assert not gradient[:, 5].any()


@pytest.mark.parametrize("V", [257, 8200])
def test_adding_to_all_logits_of_a_row_changes_nothing(V, device):
    b = batch(N=5, V=V, device=device)
    # eighths, so that the sums are exact
    b = replace(b, logits=(8 * b.logits).round() / 8, reference_logits=(8 * b.reference_logits).round() / 8)
    shift = torch.tensor([[0.0], [64.0], [-64.0], [512.0], [-4096.0]], device=device)
    moved = replace(b, logits=b.logits + shift, reference_logits=b.reference_logits - shift)
    first, gradient = loss_and_gradient(policy_loss, b, references="logits", entropy_coef=0.1)
    second, again = loss_and_gradient(policy_loss, moved, references="logits", entropy_coef=0.1)
    torch.testing.assert_close(first.totals_K, second.totals_K, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, again, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("V", [257, 8200])
def test_rows_do_not_mix(V, device):
    """Bitwise; also for a vocabulary that is a part of a wider matrix, and for columns that are not adjacent."""
    b = batch(N=7, V=V, device=device)
    settings = {"references": "logits", "entropy_coef": 0.1}
    result, gradient = loss_and_gradient(policy_loss, b, **settings)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0)).to(device)
    permuted, again = loss_and_gradient(policy_loss, b.rows(order), **settings)
    assert torch.equal(again, gradient[order])
    assert torch.equal(permuted.logprobs_N, result.logprobs_N[order])
    _, few = loss_and_gradient(policy_loss, b.rows(slice(2, 4)), **settings)
    assert torch.equal(few, gradient[2:4])
    wide = torch.cat([b.logits, b.logits.new_full((7, 23), 1e9)], dim=1).requires_grad_()
    call(policy_loss, replace(b, logits=wide[:, :V]), **settings).loss.backward()
    assert torch.equal(wide.grad[:, :V], gradient)
    columns = replace(b, reference_logits=b.reference_logits.t().contiguous().t())
    assert torch.equal(loss_and_gradient(policy_loss, columns, **settings)[1], gradient)


@needs_triton
def test_a_token_outside_the_vocabulary_is_seen(device):
    b = batch(N=3, device=device)
    b.tokens[1] = 257
    b.advantages[1] = 1.0
    assert not torch.isfinite(call(policy_loss, b, kind="reinforce").loss)


@needs_triton
def test_backward_scales_by_what_arrives(device):
    b = batch(N=5, device=device)
    _, gradient = loss_and_gradient(policy_loss, b)
    assert torch.equal(loss_and_gradient(policy_loss, b, upstream=0.25)[1], 0.25 * gradient)
    leaf = b.logits.clone().requires_grad_()
    loss = call(policy_loss, replace(b, logits=leaf)).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_triton
@pytest.mark.parametrize("kind, V", [("grpo", 40), ("grpo", 8200), ("gspo", 40)])
def test_as_an_operator(kind, V, device):
    b = batch(N=7 if kind == "gspo" else 2, V=V, device=device)
    # positive losses: opcheck differentiates |loss|, and d-logits of one pass stay as they are for a factor of 1
    b = replace(b, advantages=-b.advantages.abs())
    leaf = b.logits.clone().requires_grad_()
    offsets = b.offsets if kind == "gspo" else None
    numbers = scalars(0.7, 0.2, 0.2, 3.0, 0.1, 0.05)
    vectors = (b.tokens, b.weights, b.old, b.advantages, b.importance)
    op = torch.ops.fastreason.policy_loss.default
    check_op(op, leaf, b.reference_logits, *vectors, None, offsets, numbers, 0, 3, True)
    check_op(op, b.logits, None, *vectors, b.reference, offsets, numbers, 0, 2, False)
    check_op(op, leaf, None, b.tokens, b.weights, None, b.advantages, None, None, offsets, numbers, 0, 3, True)
    values = torch.rand(6, len(b.tokens), device=device)
    upstream = torch.ones((), device=device)
    backward = torch.ops.fastreason.policy_loss_backward.default
    check_op(backward, upstream, b.logits, b.reference_logits, b.tokens, b.weights, values, numbers)


@pytest.mark.parametrize("kind, V", [("grpo", 40), ("grpo", 8200), ("gspo", 40)])
def test_torch_compile_takes_it_in_one_graph(kind, V, device):
    b = batch(N=7, V=V, device=device)

    def run(logits):
        result = call(policy_loss, replace(b, logits=logits), kind=kind, references="logits", entropy_coef=0.1)
        return 0.5 * result.loss, result.logprobs_N, result.entropy

    check_compiled(run, b.logits.requires_grad_(), exact=runs_triton(b.logits))


def test_a_schedule_does_not_make_torch_compile_again(device):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def step(b, temperature, kl_coef, entropy_coef):
        return call(policy_loss, b, references="logprobs", temperature=temperature, kl_coef=kl_coef,
                    entropy_coef=entropy_coef).loss  # fmt: skip

    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for i in range(6):
        b = batch(7 + i, 40, device=device)
        leaf = replace(b, logits=b.logits.requires_grad_())
        numbers = (0.65 + 0.1 * i, 0.1 + 0.01 * i, 0.01 + 0.02 * i)
        loss = compiled(leaf, *numbers)
        loss.backward()
        torch.testing.assert_close(loss, step(leaf, *numbers), atol=1e-6, rtol=1e-6)
        if i == 2:
            once = counter.frame_count
    assert counter.frame_count == once <= 4


@pytest.mark.skipif(INTERPRETED, reason="what the interpreter decorates cannot be compiled")
def test_no_batch_and_no_schedule_compiles_a_kernel_again():
    """Rows, scalars, all kernels of one pass and of two; Triton likes 1 and 16 apart."""
    pytest.importorskip("triton")
    from bench.kernels.compile_without_gpu import recorded

    settings = [
        {"temperature": 1.0, "kl_coef": 0.0, "clip_low": 0.2},
        {"temperature": 0.5, "kl_coef": 1.0, "clip_low": 0.0, "clip_dual": 3.0},
        {"temperature": 16.0, "kl_coef": 0.1, "entropy_coef": 1.0},
    ]
    with recorded(90) as launches:
        for N, changed in zip((1, 16, 33), settings, strict=True):
            for kind in ("grpo", "gspo"):
                b = batch(N, 2200, torch.bfloat16)
                loss_and_gradient(policy_loss, b, kind=kind, references="logits", **changed)
    codes = {}
    for launch in launches:
        codes.setdefault(launch.name, set()).add(id(launch.asm))
    assert len(codes) == 7
    assert all(len(code) == 1 for code in codes.values()), {name: len(code) for name, code in codes.items()}


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"logits_NV": torch.zeros(3)}, r"logits \[N, V\] and tokens \[N\] with N and V >= 1, got \(3,\) and \(3,\)"),
        ({"logits_NV": torch.zeros(0, 4), "tokens_N": torch.zeros(0, dtype=torch.int64)}, "N and V >= 1"),
        ({"tokens_N": torch.zeros(3)}, "tokens int64, got torch.float32 and torch.float32"),
        (
            {"advantages_N": torch.zeros(2)},
            r"advantages must be floating point \[N\] = \(3,\), got torch.float32 \(2,\)",
        ),
        ({"old_logprobs_N": torch.zeros(3, dtype=torch.int64)}, "old_logprobs must be floating point"),
        ({"weights_N": torch.zeros(3, device="meta")}, "on the device of the logits, cpu"),
        (
            {"reference_logits_NV": torch.zeros(3, 5)},
            r"reference logits must be like the logits, torch.float32 \(3, 4\)",
        ),
        (
            {"reference_logits_NV": torch.zeros(3, 4), "reference_logprobs_N": torch.zeros(3)},
            "reference logits .* log-probabilities .*exclusive",
        ),
        ({"kind": "gspo"}, "sequence offsets must be given with kind 'gspo'"),
        ({"sequence_offsets_S": torch.tensor([0, 3])}, "and only with it"),
        (
            {"kind": "gspo", "sequence_offsets_S": torch.tensor([0.0, 3.0])},
            r"int64 \[S \+ 1\], got torch.float32 \(2,\)",
        ),
        ({"kind": "ppo"}, "kind must be one of grpo, dr_grpo, dapo, gspo, cispo, reinforce, got 'ppo'"),
        ({"kl": "k4"}, "kl must be one of k1, k2, k3, got 'k4'"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"clip_low": -0.1}, "clip_low >= 0"),
        ({"clip_dual": 1.0}, "clip_dual > 1, got 1.0, 0.2, 0.2 and 1.0"),
    ],
)
def test_refuses_bad_input(changes, message):
    arguments = {
        "logits_NV": torch.zeros(3, 4), "tokens_N": torch.zeros(3, dtype=torch.int64), "advantages_N": torch.zeros(3),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        policy_loss(**(arguments | changes))
