"""Every loss against the formula of its paper: float64, one sequence after the other, no packing, plain torch."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.rl.advantages import advantages
from fastreason.rl.groups import has_advantage
from fastreason.rl.loop import Groups, PolicySettings, group_loss

from ..model.test_decoder import random_model

P, G, VOCAB, LIMIT = 3, 4, 23, 9
PART = {"op": [2], "themes": ["symbolic"]}
TEMPERATURE = 0.8


def random_groups(seed: int = 0) -> Groups:
    """Prompts and samples of random tokens and lengths, one of length 1; log-probabilities near those of the model."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, LIMIT + 1, P * G)
    lengths[[0, 7]] = 1, LIMIT
    prompts = draw.integers(1, 6, P)
    return Groups(
        draw.integers(0, VOCAB, prompts.sum()).astype(np.int32),
        np.concatenate([[0], prompts.cumsum()]),
        draw.integers(0, VOCAB, (P * G, LIMIT)).astype(np.int32),
        lengths,
        np.zeros((P * G, LIMIT)),
        torch.from_numpy(draw.choice([0.0, 0.3, 1.0], P * G)),
        np.arange(P),
        np.ones(P * G, dtype=bool),
    )


@dataclass
class Sequence:
    """One sample by itself: what the formulas need."""

    group: int
    logp: torch.Tensor  # of its tokens, with gradient
    probs: torch.Tensor  # [length, V]
    old: torch.Tensor
    reference: torch.Tensor
    reference_probs: torch.Tensor
    reward: float


def sequences(model: fr.Decoder, reference: fr.Decoder, groups: Groups) -> list[Sequence]:
    found = []
    for row, length in enumerate(groups.lengths.tolist()):
        p = row // G
        prompt = groups.prompt_tokens[groups.prompt_offsets[p] : groups.prompt_offsets[p + 1]]
        tokens = torch.from_numpy(np.concatenate([prompt, groups.tokens[row, :length]])).long()
        at = torch.arange(len(prompt) - 1, len(tokens) - 1)

        def probs(a_model, tokens=tokens, at=at):
            hidden = a_model(tokens, Segments.from_lengths([len(tokens)]))
            return (a_model.logits(hidden)[at] / TEMPERATURE).softmax(-1)

        ours, theirs = probs(model), probs(reference).detach()
        chosen = tokens[at + 1]
        index = torch.arange(length)
        found.append(
            Sequence(
                p,
                ours[index, chosen].log(),
                ours,
                torch.from_numpy(groups.logprobs[row, :length]),
                theirs[index, chosen].log(),
                theirs,
                float(groups.rewards[row].nanmean()),
            )
        )
    return found


@pytest.fixture(scope="module")
def setting():
    config = fr.ModelConfig(VOCAB, 16, 2, 4, 2, 24)
    model, reference = (random_model(config, torch.float64, seed=seed) for seed in (1, 2))
    groups = random_groups()
    with torch.no_grad():
        exact = sequences(model, reference, groups)
    noise = np.random.default_rng(3)
    for row, sequence in enumerate(exact):  # ratios on both sides of every clip
        n = len(sequence.logp)
        groups.logprobs[row, :n] = sequence.logp.numpy() + noise.normal(0, 0.5, n)
    return model, reference, groups


def group_mean(s: list[Sequence], p: int) -> float:
    return float(np.mean([x.reward for x in s if x.group == p]))


def group_std(s: list[Sequence], p: int) -> float:
    return float(np.std([x.reward for x in s if x.group == p], ddof=1))


def normalised(s: list[Sequence], i: int) -> float:
    """(r - mean) / std of the group."""
    return (s[i].reward - group_mean(s, s[i].group)) / (group_std(s, s[i].group) + 1e-6)


def surrogate(ratio, advantage, low, high):
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def grpo_by_sequence(s):
    """Shao et al. 2024: 1/S sum_i 1/|o_i| sum_t min(r A, clip(r) A)"""
    return -sum(surrogate((x.logp - x.old).exp(), normalised(s, i), 0.2, 0.2).mean() for i, x in enumerate(s)) / len(s)


def grpo_by_token(s):
    """1 / sum |o_i| sum_i sum_t min(r A, clip(r) A)"""
    total = sum(len(x.logp) for x in s)
    return -sum(surrogate((x.logp - x.old).exp(), normalised(s, i), 0.2, 0.2).sum() for i, x in enumerate(s)) / total


def dr_grpo(s):
    """Liu et al. 2025: no standard deviation, a constant length"""
    terms = [
        surrogate((x.logp - x.old).exp(), x.reward - group_mean(s, x.group), 0.2, 0.2).sum() / LIMIT for x in s
    ]  # fmt: skip
    return -sum(terms) / len(s)


def dapo(s):
    """Yu et al. 2025: token mean, clip higher"""
    total = sum(len(x.logp) for x in s)
    return -sum(surrogate((x.logp - x.old).exp(), normalised(s, i), 0.2, 0.28).sum() for i, x in enumerate(s)) / total


def gspo(s):
    """Zheng et al. 2025: 1/S sum_i min(s_i A, clip(s_i) A), s_i = exp(mean_t (logp - old))"""
    ratios = [(x.logp - x.old).mean().exp() for x in s]
    return -sum(surrogate(ratio, normalised(s, i), 3e-4, 4e-4) for i, ratio in enumerate(ratios)) / len(s)


def cispo(s):
    """MiniMax-M1 2025: 1 / sum |o_i| sum_i sum_t sg(min(r, 5)) A logp"""
    total = sum(len(x.logp) for x in s)
    terms = [
        ((x.logp - x.old).exp().detach().clamp(0, 5) * normalised(s, i) * x.logp).sum() for i, x in enumerate(s)
    ]  # fmt: skip
    return -sum(terms) / total


def rloo(s):
    """Ahmadian et al. 2024: 1/S sum_i (r_i - mean of the others) log pi(o_i), over a constant length"""
    total = 0.0
    for i, x in enumerate(s):
        others = [y.reward for j, y in enumerate(s) if y.group == x.group and j != i]
        total = total - (x.reward - sum(others) / len(others)) * x.logp.sum() / LIMIT
    return total / len(s)


def reinforce_plus_plus(s):
    """Hu 2025: rewards normalised over the batch, clipped, token mean"""
    rewards = [x.reward for x in s]
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    total = sum(len(x.logp) for x in s)
    terms = [surrogate((x.logp - x.old).exp(), (x.reward - mean) / (std + 1e-6), 0.2, 0.2).sum() for x in s]
    return -sum(terms) / total


def reinforce_plus_plus_baseline(s):
    """Hu 2025: the mean of the group subtracted, then divided by the standard deviation of the batch"""
    centred = [x.reward - group_mean(s, x.group) for x in s]
    std = math.sqrt(sum((a - sum(centred) / len(s)) ** 2 for a in centred) / (len(s) - 1))
    total = sum(len(x.logp) for x in s)
    terms = [
        surrogate((x.logp - x.old).exp(), a / (std + 1e-6), 0.2, 0.2).sum() for x, a in zip(s, centred, strict=True)
    ]
    return -sum(terms) / total


def reinforce(s):
    """Williams 1992 with the mean reward as the baseline: 1/S sum_i (r_i - mean) log pi(o_i), over a constant length"""
    mean = sum(x.reward for x in s) / len(s)
    return -sum((x.reward - mean) * x.logp.sum() / LIMIT for x in s) / len(s)


def grpo_dual(s):
    """Ye et al. 2020: of a negative advantage at most c |A|"""
    total = sum(len(x.logp) for x in s)
    loss = 0.0
    for i, x in enumerate(s):
        advantage = normalised(s, i)
        value = surrogate((x.logp - x.old).exp(), advantage, 0.2, 0.2)
        loss = loss - (value if advantage >= 0 else torch.maximum(value, torch.tensor(1.5 * advantage))).sum()
    return loss / total


def with_extra(term):
    """GRPO with a token mean of something else added."""

    def loss(s):
        return grpo_by_token(s) + sum(term(x).sum() for x in s) / sum(len(x.logp) for x in s)

    loss.__doc__ = term.__doc__
    return loss


def k1(x):
    """0.3 (logp - ref)"""
    return 0.3 * (x.logp - x.reference)


def k2(x):
    """0.3 (logp - ref)^2 / 2"""
    return 0.15 * (x.logp - x.reference) ** 2


def k3(x):
    """0.3 (exp(ref - logp) - (ref - logp) - 1)"""
    return 0.3 * ((x.reference - x.logp).exp() - (x.reference - x.logp) - 1)


def exact_kl(x):
    """0.3 sum_v p (log p - log ref)"""
    return 0.3 * (x.probs * (x.probs.log() - x.reference_probs.log())).sum(-1)


def entropy(x):
    """-0.2 H"""
    return 0.2 * (x.probs * x.probs.log()).sum(-1)


FORMULAS = [
    ({"loss": "grpo"}, grpo_by_token),
    ({"loss": "grpo", "aggregation": "sequence"}, grpo_by_sequence),
    ({"loss": "dr_grpo"}, dr_grpo),
    ({"loss": "dapo"}, dapo),
    ({"loss": "gspo"}, gspo),
    ({"loss": "cispo"}, cispo),
    ({"loss": "rloo"}, rloo),
    ({"loss": "reinforce_plus_plus"}, reinforce_plus_plus),
    ({"loss": "reinforce_plus_plus", "baseline": "group"}, reinforce_plus_plus_baseline),
    ({"loss": "reinforce"}, reinforce),
    ({"clip_dual": 1.5}, grpo_dual),
    ({"kl": "k1", "kl_coef": 0.3}, with_extra(k1)),
    ({"kl": "k2", "kl_coef": 0.3}, with_extra(k2)),
    ({"kl": "k3", "kl_coef": 0.3}, with_extra(k3)),
    ({"kl": "exact", "kl_coef": 0.3}, with_extra(exact_kl)),
    ({"entropy_coef": 0.2}, with_extra(entropy)),
]


def settings(**changes) -> PolicySettings:
    given = {"mixture": [PART], "prompts": P, "samples": G, "max_new_tokens": LIMIT, "temperature": TEMPERATURE}
    return PolicySettings(**(given | changes))


def advantages_by(groups: Groups, chosen: PolicySettings) -> torch.Tensor:
    parts = chosen.parts
    return advantages(
        groups.rewards, G, baseline=parts.baseline, scale=parts.advantage_scale, credit=chosen.credit or "return"
    )  # fmt: skip


def gradients(model: fr.Decoder, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("changes, formula", FORMULAS, ids=[" ".join(map(str, c.values())) for c, _ in FORMULAS])
def test_a_loss_is_its_published_formula(setting, changes, formula):
    model, reference, groups = setting
    chosen = settings(**changes)
    want = formula(sequences(model, reference, groups))
    want_gradient = gradients(model, want)
    result = group_loss(
        model, groups, advantages_by(groups, chosen), chosen, reference=reference if chosen.kl_coef else None
    )  # fmt: skip
    got_gradient = gradients(model, result.loss)
    assert result.loss.item() == pytest.approx(want.item(), abs=2e-6)  # advantages and weights are float32
    torch.testing.assert_close(got_gradient, want_gradient, atol=1e-6, rtol=1e-5)
    assert want_gradient.abs().max() > 1e-3


@pytest.mark.parametrize("changes, formula", FORMULAS, ids=[" ".join(map(str, c.values())) for c, _ in FORMULAS])
def test_a_sample_that_leaves_the_loss_might_as_well_not_have_been_drawn(setting, changes, formula):
    """Two of the first group and one of the second, of length 9, are cut: the formula over the others is the loss."""
    model, reference, whole = setting
    chosen, in_loss = settings(**changes), ~np.isin(np.arange(P * G), [1, 3, 7])
    given = whole.rewards.where(torch.from_numpy(in_loss), torch.nan)
    groups = Groups.of(whole, given, in_loss=in_loss)
    assert groups.lengths[[1, 3, 7]].tolist() == [1, 1, 1]  # they cost one token each
    want = formula([x for x, counts in zip(sequences(model, reference, whole), in_loss, strict=True) if counts])
    want_gradient = gradients(model, want)
    result = group_loss(
        model, groups, advantages_by(groups, chosen), chosen, reference=reference if chosen.kl_coef else None
    )  # fmt: skip
    assert result.loss.item() == pytest.approx(want.item(), abs=2e-6)
    torch.testing.assert_close(gradients(model, result.loss), want_gradient, atol=1e-6, rtol=1e-5)
    assert want_gradient.abs().max() > 1e-3


def test_the_clips_of_the_formulas_take_effect(setting):
    """Ratios lie on both sides, so that a clip that was forgotten would be seen."""
    model, _, groups = setting
    for loss in ("grpo", "dapo", "gspo", "cispo"):
        chosen = settings(loss=loss, **({"clip_high": 0.5} if loss == "cispo" else {}))
        shares = group_loss(model, groups, advantages_by(groups, chosen), chosen).statistics()
        assert shares["clip_high_share"] > 0.02
        assert loss == "cispo" or shares["clip_low_share"] > 0.02


def step_rewards(groups: Groups) -> Groups:
    """A reward at every third token and at the last one, 0 or 1."""
    from dataclasses import replace

    rewards = torch.full((P * G, LIMIT), torch.nan)
    draw = np.random.default_rng(5)
    for row, length in enumerate(groups.lengths.tolist()):
        for t in {*range(2, length, 3), length - 1}:
            rewards[row, t] = float(draw.integers(2))
    return replace(groups, rewards=rewards)


@pytest.mark.parametrize("credit", ["step", "return"])
def test_advantages_of_steps_are_normalised_in_their_group(setting, credit):
    """DeepSeekMath, section 4.1.3: r~ = (r - mean) / std over all rewards of a group; A_t the sum of those behind t
    ("return"), or of the next one alone ("step")."""
    model, reference, groups = setting
    groups = step_rewards(groups)
    chosen = settings(credit=credit)
    want = torch.zeros(P * G, LIMIT)
    for p in range(P):
        given = [groups.rewards[row, t].item() for row in range(p * G, p * G + G) for t in range(LIMIT)]
        given = np.array([r for r in given if not math.isnan(r)])
        for row in range(p * G, p * G + G):
            for t in range(int(groups.lengths[row])):
                behind = [(r - given.mean()) / (given.std(ddof=1) + 1e-6) for r in groups.rewards[row, t:].tolist()]
                behind = [a for a in behind if not math.isnan(a)]
                want[row, t] = sum(behind) if credit == "return" else behind[0]
    got = advantages_by(groups, chosen)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)

    loss, total = 0.0, int(groups.lengths.sum())
    for row, x in enumerate(sequences(model, reference, groups)):
        loss = loss - surrogate((x.logp - x.old).exp(), want[row, : len(x.logp)].double(), 0.2, 0.2).sum() / total
    want_gradient = gradients(model, loss)
    result = group_loss(model, groups, got, chosen)
    torch.testing.assert_close(gradients(model, result.loss), want_gradient, atol=1e-6, rtol=1e-5)


def test_leave_one_out_of_steps_leaves_the_whole_sample_out():
    nan = float("nan")
    rewards = torch.tensor([[1.0, nan, 0.0], [nan, 0.5, nan], [1.0, 1.0, 0.0]])
    got = advantages(rewards, 3, baseline="leave_one_out", scale="none", credit="step")
    others = [np.mean([0.5, 1, 1, 0]), np.mean([1, 0, 1, 1, 0]), np.mean([1, 0, 0.5])]
    want = torch.tensor(
        [
            [1 - others[0], -others[0], -others[0]],
            [0.5 - others[1], 0.5 - others[1], 0.0],
            [1 - others[2], 1 - others[2], -others[2]],
        ]
    )
    torch.testing.assert_close(got, want.float())


@pytest.mark.parametrize("baseline, scale", [("group", "std"), ("leave_one_out", "std"), ("group", "batch")])
@pytest.mark.parametrize("by_token", [False, True])
def test_a_group_of_equal_rewards_has_no_advantage_at_all(baseline, scale, by_token):
    rewards = torch.tensor([0.1] * 4 + [0.0, 1.0, 0.0, 1.0])
    if by_token:
        rewards = torch.stack([torch.full((8,), torch.nan), rewards], dim=1)
    got = advantages(rewards, 4, baseline=baseline, scale=scale)
    assert torch.equal(got[:4], torch.zeros_like(got[:4]))
    assert (got[4:].reshape(4, -1) != 0).all()


def test_zero_advantage_groups_count_in_the_mean_when_asked(setting):
    """Left out, the others share the weight; counted, they dilute it, and KL is taken on them too."""
    from dataclasses import replace

    from fastreason.rl.loop import update
    from fastreason.training.optimizer import Optimizer

    model, reference, groups = setting
    rewards = groups.rewards.clone()
    rewards[G : 2 * G] = 0.5
    groups = replace(groups, rewards=rewards)
    kept = model.state_dict()

    def one_update(**changes):
        chosen = settings(**changes)
        copy = fr.Decoder(model.config).double()
        copy.load_state_dict(kept)
        seen = {}
        optimizer = Optimizer(copy, chosen.optim)
        optimizer.step = lambda done: seen.update(
            gradient=torch.cat([p.grad.flatten() for p in copy.parameters()])
        ) or 0.0  # fmt: skip
        update(copy, optimizer, groups, advantages_by(groups, chosen), chosen, 0.0, reference=reference)
        return seen["gradient"]

    nonzero = has_advantage(groups, advantages_by(groups, settings()))
    assert nonzero.tolist() == [True, False, True]
    covered = float(groups.lengths.reshape(P, G)[nonzero].sum() / groups.lengths.sum())
    torch.testing.assert_close(one_update(count_zero_advantage=True), covered * one_update(), atol=1e-6, rtol=1e-5)
    chosen = settings(kl_coef=0.3, count_zero_advantage=True)
    s = sequences(model, reference, groups)
    want = gradients(model, grpo_by_token(s) + sum(k3(x).sum() for x in s) / sum(len(x.logp) for x in s))
    torch.testing.assert_close(one_update(kl_coef=0.3, count_zero_advantage=True), want, atol=1e-6, rtol=1e-5)
    assert chosen.trains_zero_advantage
    # in parts the sum is the same
    torch.testing.assert_close(
        one_update(kl_coef=0.3, count_zero_advantage=True, accumulate=3), want, atol=1e-6, rtol=1e-5
    )  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"loss": "gspo"}, {"loss": "cispo", "kl": "exact", "kl_coef": 0.3}], ids=str)
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_pieces_of_the_rows_are_the_whole(setting, monkeypatch, changes, rows):
    """A piece of one row, of some (in gspo at least a sequence), and all in one."""
    from fastreason.kernels import linear_loss
    from fastreason.rl import update

    model, reference, groups = setting
    chosen = settings(**changes)
    given = advantages_by(groups, chosen)
    kl_to = reference if chosen.kl_coef else None
    whole = group_loss(model, groups, given, chosen, reference=kl_to)
    want = gradients(model, whole.loss)
    monkeypatch.setattr(linear_loss, "_CHUNK_LOGITS", {"cpu": rows * VOCAB})
    pieces = update._Rows.of(groups, given, chosen, 1.0, model)
    model.zero_grad()
    totals = pieces.backward(model, kl_to)
    got = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-7)
    # before the statistics of the loss, the mean difference between sampler and trainer
    torch.testing.assert_close(totals[1:], whole.totals_K.float(), atol=1e-5, rtol=1e-5)
    assert 0 <= totals[0] <= totals[-1]
    cuts = pieces._pieces(torch.device("cpu"), VOCAB)
    most = {1: len(groups.lengths) if "gspo" in changes.values() else int(groups.lengths.sum()), 1000: 1}
    assert rows == 5 or len(cuts) == most[rows]
    assert rows != 5 or 3 <= len(cuts) <= len(pieces.tokens_N) // 4
