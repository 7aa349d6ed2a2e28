"""The loop of reinforcement learning: what it must learn and must not, where prompts and rewards come from, updates."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.grading import rewards
from fastreason.rl import loop
from fastreason.rl.groups import has_advantage
from fastreason.rl.loop import Groups, update
from fastreason.rl.prompts import FixedMixture
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.training.checkpoint import load_model
from fastreason.training.optimizer import Optimizer, OptimSettings

from .test_policy import MIX, run_stage, sample, settings

WANTED = 17


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


def small_model(tokenizer, seed=0):
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    model.reset_parameters(seed)
    return model


def first_token(problems, samples, verdicts):
    """1 for one first token, whatever the rest does."""
    return (samples.tokens[:, 0] == WANTED).astype(np.float32)


def by_number(verdicts):
    """So that there is something to learn from random weights: every third sample earns something."""
    return (np.arange(len(verdicts)) % 3 == 0).astype(np.float32)


def metrics(folder):
    return MetricsLog(folder / "metrics.jsonl").read()


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def adamw(rate, **more):
    return OptimSettings(matrices="adamw", matrix_lr=rate, lr=rate, schedule="constant", warmup=0.0, **more)


def test_grpo_solves_a_bandit_in_50_steps(tmp_path, tokenizer):
    chosen = settings(prompts=4, samples=64, max_new_tokens=1, steps=50, optim=adamw(0.01))
    run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, reward=first_token)
    lines = metrics(tmp_path)
    assert lines[0]["reward"] < 0.05
    assert lines[-1]["step"] == 50
    assert lines[-1]["reward"] > 0.95


def test_checkpointed_activations_leave_the_weights_as_they_are(tmp_path, tokenizer):
    trained = []
    for name, checkpointed in (("plain", False), ("checkpointed", True)):
        (tmp_path / name).mkdir()
        model = small_model(tokenizer)
        chosen = settings(steps=2, max_new_tokens=4, kl_coef=0.1, checkpoint_activations=checkpointed)
        run_stage(model, tokenizer, chosen, tmp_path / name, reward=by_number)
        assert model.checkpoint_activations is checkpointed
        trained.append(flat(model))
    assert torch.equal(*trained)


def test_zero_advantage_groups_move_no_weight(tmp_path, tokenizer):
    for name, reward in (("zero", 0.0), ("tenth", 0.1), ("one", 1.0)):
        (tmp_path / name).mkdir()
        model = small_model(tokenizer)
        before = flat(model).clone()
        run_stage(
            model, tokenizer, settings(steps=2), tmp_path / name, reward=lambda v, r=reward: np.full(len(v), r)
        )  # fmt: skip
        assert torch.equal(flat(model), before)
        lines = metrics(tmp_path / name)
        assert [line["zero_advantage"] for line in lines] == [1.0, 1.0]
        assert "loss" not in lines[0]


def test_a_zero_advantage_group_has_exactly_no_gradient(tokenizer):
    """Beside groups that speak: what its tokens alone touch does not move by one bit."""
    model = small_model(tokenizer)
    chosen = settings(optim=adamw(0.01, clip=1e9))
    samples = sample(model, tokenizer)
    given = torch.tensor([1.0, 0.0, 0.0, 1.0] * 2 + [0.3] * 8)
    whole = Groups.of(samples, given)
    advantages = loop.advantages(given, 4)
    assert has_advantage(whole, advantages).tolist() == [True, True, False, False]
    first = fr.Decoder(model.config)
    first.load_state_dict(model.state_dict())
    update(model, Optimizer(model, chosen.optim), whole, advantages, chosen, 0.5)
    part = whole.take(np.array([0, 1]))
    update(first, Optimizer(first, chosen.optim), part, advantages[:8], chosen, 0.5)
    assert torch.equal(flat(model), flat(first))


def test_dynamic_sampling_draws_until_enough_groups_speak(tmp_path, tokenizer):
    """One prompt of four speaks in a draw: four draws make a batch of four, a cap of three leaves it at three."""

    def one_speaks(verdicts):
        return np.arange(len(verdicts)) % 16 == 1

    for name, changes, draws, groups in (("dapo", {"loss": "dapo"}, 4, 4), ("cap", {"max_draws": 3}, 3, 3)):
        (tmp_path / name).mkdir()
        run_stage(
            small_model(tokenizer), tokenizer, settings(steps=2, **changes), tmp_path / name, reward=one_speaks
        )  # fmt: skip
        lines = metrics(tmp_path / name)
        assert [line["draws"] for line in lines] == [draws, 2 * draws]
        assert [line["trained_groups"] for line in lines] == [groups, groups]
        assert lines[-1]["samples"] == 2 * draws * 16
        assert lines[0]["zero_advantage"] == 0.75


def test_dynamic_sampling_trains_on_the_first_groups_that_speak(tmp_path, tokenizer, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "update", lambda model, optimizer, groups, *_, **__: seen.append(groups) or [])
    run_stage(small_model(tokenizer), tokenizer, settings(steps=1, loss="dapo", prompts=3, samples=2), tmp_path,
              reward=lambda v: np.array([0, 0, 0, 1, 1, 0]))  # fmt: skip
    stream = fr.TaskStream(MIX, seed=0, split="rl")
    want = stream.batch(np.array([1, 2, 4]))  # 0 and 3 have zero advantage, 5 is one too many
    tokens, offsets = tokenizer.core.encode_prompts(want.core)
    np.testing.assert_array_equal(seen[0].prompt_tokens, tokens)
    np.testing.assert_array_equal(seen[0].prompt_offsets, offsets)
    assert seen[0].position.tolist() == [0, 1, 2]
    assert seen[0].rewards.tolist() == [0, 1, 1, 0, 0, 1]


def test_on_policy_the_ratio_is_one_and_it_is_measured(tmp_path, tokenizer):
    run_stage(small_model(tokenizer), tokenizer, settings(steps=4, optim=adamw(1e-3)), tmp_path, reward=by_number)
    for line in metrics(tmp_path):
        assert 0 <= line["max_logprob_difference"] <= 1e-5
        assert line["ratio_min"] == pytest.approx(1.0, abs=1e-5)
        assert line["ratio_max"] == pytest.approx(1.0, abs=1e-5)
        assert line["clip_low_share"] == line["clip_high_share"] == 0.0
        assert line["entropy"] > 1.0


def test_a_sampler_that_is_not_the_policy_is_noticed(tmp_path, tokenizer, monkeypatch):
    real = fr.Rollout.generate

    def off(self, *args, **kwargs):
        out = real(self, *args, **kwargs)
        return replace(out, logprobs=out.logprobs + np.float32(0.05))

    monkeypatch.setattr(fr.Rollout, "generate", off)
    with pytest.raises(AssertionError, match=r"log-probabilities of sampler and trainer differ by 0\.05"):
        run_stage(small_model(tokenizer), tokenizer, settings(steps=1), tmp_path, reward=by_number)
    # with several updates a batch ratios move anyway: they are logged
    run_stage(small_model(tokenizer), tokenizer, settings(steps=1, epochs=2), tmp_path, reward=by_number)
    assert metrics(tmp_path)[0]["max_logprob_difference"] == pytest.approx(0.05, abs=1e-4)


def test_epochs_and_minibatches_are_updates_on_parts_of_the_batch(tokenizer):
    """Two epochs of two parts are four updates, by hand: groups 0 and 2, then 1 and 3, twice, old ratios kept."""
    model, by_hand = small_model(tokenizer), small_model(tokenizer)
    chosen = settings(epochs=2, minibatches=2, optim=adamw(0.01))
    samples = sample(model, tokenizer)
    given = torch.arange(16).remainder(3).eq(0).float()
    groups, advantages = Groups.of(samples, given), loop.advantages(given, 4)
    history = update(model, Optimizer(model, chosen.optim), groups, advantages, chosen, 0.5)
    optimizer, found = Optimizer(by_hand, chosen.optim), []
    for which in ([0, 2], [1, 3], [0, 2], [1, 3]):
        rows = torch.tensor(which)[:, None] * 4 + torch.arange(4)
        result = loop.group_loss(by_hand, groups.take(np.array(which)), advantages[rows.flatten()], chosen)
        result.loss.backward()
        optimizer.step(0.5)
        found.append(result.statistics())
    assert torch.equal(flat(model), flat(by_hand))
    assert [update["ratio_max"] for update in history] == [one["ratio_max"] for one in found]
    assert history[0]["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert history[-1]["ratio_max"] > 1.01


def test_an_update_in_parts_is_the_same_update(tokenizer):
    flats = []
    for parts in (1, 3):
        model = small_model(tokenizer)
        chosen = settings(accumulate=parts, optim=adamw(0.01))
        given = torch.arange(16).remainder(3).eq(0).float()
        groups = Groups.of(sample(model, tokenizer), given)
        history = update(model, Optimizer(model, chosen.optim), groups, loop.advantages(given, 4), chosen, 0.5)
        flats.append((flat(model), history[0]))
    torch.testing.assert_close(flats[0][0], flats[1][0], atol=1e-5, rtol=0)
    assert flats[1][1] == pytest.approx(flats[0][1], rel=1e-4, abs=1e-6)


def test_kl_pulls_back_to_where_the_stage_began(tmp_path, tokenizer):
    found = {}
    for name, coefficient in (("free", 1e-6), ("held", 3.0)):
        (tmp_path / name).mkdir()
        model = small_model(tokenizer)
        chosen = settings(prompts=4, samples=64, max_new_tokens=1, steps=30, optim=adamw(0.01), kl_coef=coefficient)
        run_stage(model, tokenizer, chosen, tmp_path / name, reward=first_token)
        found[name] = [line["kl"] for line in metrics(tmp_path / name) if "kl" in line]
    assert found["free"][0] == pytest.approx(0.0, abs=1e-6)
    assert found["free"][-1] > 1.0
    assert found["held"][-1] < 0.3 * found["free"][-1]


def test_the_reference_stays_when_the_stage_goes_on(tmp_path, tokenizer):
    """The model that a resumed stage is given is not the one it began with; the reference is."""
    chosen = settings(steps=5, kl_coef=0.1, optim=adamw(1e-3))
    whole, parts, resumed = small_model(tokenizer), small_model(tokenizer), small_model(tokenizer, seed=9)
    start = flat(whole).clone()
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run_stage(whole, tokenizer, chosen, tmp_path / "whole", reward=by_number)
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run_stage(parts, tokenizer, chosen, tmp_path / "parts", stop, reward=by_number)
    run_stage(resumed, tokenizer, chosen, tmp_path / "parts", reward=by_number)
    assert torch.equal(flat(whole), flat(resumed))
    assert torch.equal(flat(load_model(tmp_path / "parts" / "c-reference")), start)
    kls = [[line["kl"] for line in metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert kls[0] == kls[1]
    assert kls[0][-1] > 0


def test_a_stage_does_not_go_on_without_its_reference(tmp_path, tokenizer):
    import shutil

    stop = StopRequest()
    stop.requested = True
    chosen = settings(steps=5, kl_coef=0.1)
    with pytest.raises(Interrupted):
        run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, stop, reward=by_number)
    shutil.rmtree(tmp_path / "c-reference")
    with pytest.raises(ValueError, match=r"cannot be resumed: its reference model .*c-reference is missing"):
        run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, reward=by_number)


class Countdown:
    """Draws from the end; remembers what it was told."""

    def __init__(self):
        self.stream, self.told, self.draws = fr.TaskStream(MIX, seed=0, split="rl"), [], []

    def draw(self, step):
        self.draws.append(step)
        return self.stream[100 - 4 * step : 104 - 4 * step]

    def observe(self, problems, rewards_PG):
        self.told.append([int(problems.indices[0]), float(rewards_PG.sum()), list(rewards_PG.shape)])

    def state(self):
        return {"told": self.told}

    def restore(self, state):
        self.told = list(state["told"])


def test_prompts_come_from_the_source_that_is_given(tmp_path, tokenizer):
    source, chosen = Countdown(), settings(steps=3)
    run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, prompts=source, reward=by_number)
    assert source.draws == [0, 1, 2]
    assert source.told == [[100, 6.0, [4, 4]], [96, 6.0, [4, 4]], [92, 6.0, [4, 4]]]
    assert json.loads((tmp_path / "c/state/progress.json").read_text())["curriculum"] == {"told": source.told}


def test_a_source_goes_on_with_what_it_had_learnt(tmp_path, tokenizer):
    stop = StopRequest()
    stop.requested = True
    chosen = settings(steps=3)
    with pytest.raises(Interrupted):
        run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, stop, prompts=Countdown(), reward=by_number)
    source = Countdown()
    run_stage(small_model(tokenizer), tokenizer, chosen, tmp_path, prompts=source, reward=by_number)
    assert source.draws == [1, 2]
    assert [told[0] for told in source.told] == [100, 96, 92]


def test_a_curriculum_is_chosen_by_name(tmp_path, tokenizer, monkeypatch):
    made = []

    class Second(FixedMixture):
        def __init__(self, chosen, seed):
            super().__init__(chosen, seed)
            made.append(seed)

    monkeypatch.setitem(loop.CURRICULA, "second", Second)
    run_stage(small_model(tokenizer), tokenizer, settings(steps=1, curriculum="second"), tmp_path)
    assert made == [0]
    with pytest.raises(ValueError, match="curriculum must be one of fixed, edge, second, got 'third'"):
        run_stage(small_model(tokenizer), tokenizer, settings(steps=1, curriculum="third"), tmp_path / "x")


def test_a_draw_has_as_many_prompts_as_the_settings_say(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="a draw must have prompts = 3 problems, got 4"):
        run_stage(small_model(tokenizer), tokenizer, settings(prompts=3), tmp_path, prompts=Countdown())


def test_rewards_by_name_function_and_module(tmp_path, tokenizer):
    weights = {}
    for name, chosen, how in (
        ("function", settings(steps=2), {"reward": by_number}),
        ("module", settings(steps=2, reward="tests.rl.test_loop:by_number"), {}),
        ("other", settings(steps=2, reward="tests.rl.test_loop:first_token"), {}),
    ):
        (tmp_path / name).mkdir()
        model = small_model(tokenizer)
        run_stage(model, tokenizer, chosen, tmp_path / name, **how)
        weights[name] = flat(model)
    assert torch.equal(weights["function"], weights["module"])
    assert not torch.equal(weights["function"], weights["other"])


def test_a_reward_of_steps_stands_at_the_ends_of_steps(tokenizer):
    problems = fr.TaskStream(MIX, seed=2, split="rl")[0:3]
    answers = [document[len(prompt) :] for document, prompt in zip(problems.documents, problems.prompts, strict=True)]
    ids = [tokenizer.encode(text) for text in answers]
    width = max(map(len, ids))
    tokens = np.stack([np.pad(row, (0, width - len(row)), constant_values=tokenizer.pad_id) for row in ids])
    samples = SimpleNamespace(tokens=tokens.astype(np.int32), lengths=np.array([len(row) for row in ids]))
    verdicts = fr.grade(problems, samples.tokens, tokenizer=tokenizer)
    got = rewards.reward_function("steps")(problems, samples, verdicts)
    for row in range(3):
        ends = verdicts.steps.token_end[verdicts.steps.completion == row] - 1
        assert set(np.nonzero(~np.isnan(got[row]))[0]) == {*ends.tolist(), len(ids[row]) - 1}
        assert np.nanmin(got[row]) == 1.0
    assert len(verdicts.steps.status) >= 6


def test_tokens_are_credited_with_all_that_is_still_to_come_unless_told_otherwise(tokenizer, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(loop, "advantages", lambda *_, credit, **__: seen.append(credit) or torch.zeros(16))
    for credit in (None, "return", "step"):
        folder = tmp_path / str(credit)
        folder.mkdir()
        run_stage(small_model(tokenizer), tokenizer, settings(steps=1, reward="steps", credit=credit), folder)
    assert seen == ["return", "return", "step"]


@pytest.mark.parametrize("reward", ["strict", "blended", "outcome"])
def test_a_credit_of_rewards_of_whole_samples_is_refused_before_a_run_begins(tmp_path, reward):
    message = f"rl: credit has no effect with reward '{reward}', which is of whole samples"
    with pytest.raises(ValueError, match=message):
        fr.run("smoke", tmp_path / "run", overrides={"rl.reward": reward, "rl.credit": "return"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("credit", ["step", "return"])
def test_steps_are_trained_on(tmp_path, tokenizer, credit):
    model = small_model(tokenizer)
    before = flat(model).clone()

    def half(problems, samples, verdicts):
        out = rewards.by_step(problems, samples, verdicts)
        out[::2, 3] = 1.0
        return out

    run_stage(model, tokenizer, settings(steps=2, credit=credit, loss="dapo"), tmp_path, reward=half)
    assert not torch.equal(flat(model), before)
    assert 0 < metrics(tmp_path)[0]["reward"] < 1


def test_the_weight_of_a_blend_is_a_setting():
    verdicts = fr.grade_texts(["Define A as q; so q = 2. Answer: 2."], ["Answer: 2."])
    samples = SimpleNamespace(lengths=np.ones(1), tokens=np.ones((1, 1)))
    for changes, want in (({}, 0.2), ({"outcome_weight": 0.5}, 0.5)):
        reward = loop.stage_reward(settings(reward="blended", **changes))
        assert reward(None, samples, verdicts) == pytest.approx([want])


@pytest.mark.parametrize(
    "reward, message",
    [
        (lambda v: np.zeros(3), r"one number for each of the 16 samples, or an array \[16, 20\].*got shape \(3,\)"),
        (lambda v: np.full(len(v), np.nan), "must return finite numbers, got nan"),
        (lambda v, w: np.zeros(len(v)), r"must take the verdicts, or .*got parameters \(v, w\)"),
    ],
)
def test_rewards_that_cannot_be(tmp_path, tokenizer, reward, message):
    with pytest.raises(ValueError, match=message):
        run_stage(small_model(tokenizer), tokenizer, settings(steps=1), tmp_path, reward=reward)


@pytest.mark.parametrize(
    "reward, message",
    [
        ("no.such.module:f", "that can be imported, got 'no.such.module:f'"),
        ("fastreason.grading.rewards:nothing", "has no attribute 'nothing'"),
        ("fastreason.grading.rewards:REWARDS", "must be a function, got dict"),
    ],
)
def test_rewards_that_cannot_be_imported_stop_a_run_before_it_begins(tmp_path, reward, message):
    with pytest.raises(ValueError, match=message):
        fr.run("smoke", tmp_path / "run", overrides={"rl.reward": reward})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reward": "stict"}, 'reward must be one of outcome, .* or "module:function", got .stict'),
        ({"outcome_weight": 0.5}, "outcome_weight has no effect with reward 'strict'"),
        ({"reward": "blended", "outcome_weight": 1.5}, r"outcome_weight must be in 0 \.\. 1, got 1\.5"),
        ({"loss": "ppo"}, "loss must be one of grpo, .*, got 'ppo'"),
        ({"baseline": "mean"}, "baseline must be one of group, leave_one_out, batch, none, got 'mean'"),
        ({"loss": "rloo", "clip_low": 0.1}, "clip_low has no effect with loss 'rloo', which has no ratio"),
        ({"loss": "cispo", "clip_dual": 3.0}, "clip_dual has no effect with loss 'cispo'"),
        ({"clip_dual": 0.5}, r"clip_dual must be > 1, got 0\.5"),
        ({"minibatches": 5}, "minibatches must be at most prompts = 4, got 5"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"kl_coef": -0.1}, r"kl_coef must be at least 0, got -0\.1"),
        ({"kl": "k4"}, "kl must be one of k1, k2, k3, exact, got 'k4'"),
        ({"max_draws": 0}, "max_draws must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_a_recipe_can_name_all_of_it():
    from fastreason.studies.recipe import load_recipe

    assert load_recipe("quickstart").rl.parts == loop.LOSSES["grpo"]
    assert load_recipe("quickstart").rl.on_policy
    changes = {"loss": "dapo", "kl_coef": 0.001, "clip_high": 0.3, "epochs": 2, "reward": "steps", "credit": "return"}
    rl = load_recipe("quickstart", {f"rl.{name}": value for name, value in changes.items()}).rl
    assert (rl.parts.clip_high, rl.parts.clip_low, rl.parts.max_draws, rl.on_policy) == (0.3, 0.2, 10, False)
