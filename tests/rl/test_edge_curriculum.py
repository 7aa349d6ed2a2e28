"""Curricula on simulated learners, whose success is known."""

import json

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.rl.edge_curriculum import BanditSettings, EdgeCurriculum
from fastreason.rl.loop import PolicySettings, reinforce
from fastreason.rl.prompts import FixedMixture, stage_prompts
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import Interrupted, StopRequest

from ..model.test_decoder import random_model

PART = {"op": list(range(2, 13)), "themes": ["symbolic"], "max_value": 199}
MIXTURE = fr.Mixture.uniform(op=range(2, 13), themes=["symbolic"], max_value=199)
GROUP = 8


def fixed(seed: int) -> FixedMixture:
    """What the bandit is compared with."""
    return FixedMixture(PolicySettings(mixture=[PART], prompts=32), seed)


class Learner:
    """Solves op with chance 1 / (1 + exp(3 (op - ability))); every group that speaks makes it a little better."""

    def __init__(self, ability: float, rate: float, seed: int = 0) -> None:
        self.ability, self.rate, self.rng = ability, rate, np.random.default_rng(seed)

    def chance(self, ops: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(3.0 * (ops - self.ability)))

    def answer(self, problems: fr.ProblemBatch) -> np.ndarray:
        rewards = (self.rng.random((len(problems), GROUP)) < self.chance(problems.ops)[:, None]).astype(np.float32)
        self.ability += self.rate * (rewards != rewards[:, :1]).any(axis=1).mean()
        return rewards


def teach(curriculum, learner: Learner, steps: range) -> tuple[np.ndarray, list[np.ndarray]]:
    """Share of groups that speak, by step, and the ops that were drawn."""
    speaking, ops = [], []
    for step in steps:
        problems = curriculum.draw(step)
        rewards = learner.answer(problems)
        curriculum.observe(problems, rewards)
        speaking.append((rewards != rewards[:, :1]).any(axis=1).mean())
        ops.append(problems.ops)
    return np.array(speaking), ops


def test_it_finds_the_edge():
    speaking, ops = teach(EdgeCurriculum(MIXTURE, 32, seed=0), Learner(6.3, rate=0.0), range(60))
    # op 6 and 7 have chances 0.71 and 0.11, of whose groups 0.93 and 0.6 speak; of all others at most 0.2
    late = np.concatenate(ops[30:])
    assert np.isin(late, [6, 7]).mean() > 0.75
    plain, _ = teach(fixed(0), Learner(6.3, rate=0.0), range(60))
    assert speaking[30:].mean() > 2.5 * plain.mean()


def test_it_follows_the_edge_as_it_moves():
    learner = Learner(3.5, rate=0.05)
    curriculum = EdgeCurriculum(MIXTURE, 32, seed=1)
    speaking, ops = teach(curriculum, learner, range(120))
    assert learner.ability > 7.0
    for begin in (20, 60, 100):
        assert speaking[begin : begin + 20].mean() > 0.5
    assert np.concatenate(ops[100:]).mean() > np.concatenate(ops[10:30]).mean() + 2
    still = Learner(3.5, rate=0.05)
    teach(fixed(1), still, range(120))
    assert still.ability < learner.ability - 1.5


def test_exploration_has_a_floor():
    weights = fr.Mixture.from_dict([{"op": [2], "weight": 3}, {"op": [9], "weight": 1}])
    curriculum = EdgeCurriculum(weights, 16, 0, BanditSettings(floor=0.4, discount=1.0))
    # every group of op 2 has advantages, none of op 9
    curriculum.restore({"nonzero_advantage": [1e6, 0.0], "zero_advantage": [0.0, 1e6], "rewards": [5e5, 0.0]})
    np.testing.assert_allclose(curriculum.shares(0), [0.6 + 0.4 * 0.75, 0.4 * 0.25])
    assert (curriculum.draw(0).ops == 9).sum() < 8
    drawn = np.concatenate([curriculum.draw(step).ops for step in range(100)])
    assert (drawn == 9).mean() == pytest.approx(0.1, abs=0.03)  # three standard errors of 1,600 draws are 0.02


def test_mastered_cells_are_replayed():
    mixture = fr.Mixture.uniform(op=[2, 3, 4])
    curriculum = EdgeCurriculum(mixture, 16, 0, BanditSettings(floor=0.0, replay=0.25, discount=1.0))
    curriculum.restore(
        {"nonzero_advantage": [0.0, 1e6, 0.0], "zero_advantage": [1e6, 0.0, 1e6], "rewards": [1e6, 5e5, 0.0]}
    )
    np.testing.assert_allclose(curriculum.shares(0), [0.25, 0.75, 0.0])
    # none is mastered yet: nothing to replay
    curriculum.restore(
        {"nonzero_advantage": [0.0, 1e6, 0.0], "zero_advantage": [1e6, 0.0, 1e6], "rewards": [0.0, 5e5, 0.0]}
    )
    np.testing.assert_allclose(curriculum.shares(0), [0.0, 1.0, 0.0])


def test_counts_are_discounted_and_expected_is_their_mean():
    mixture = fr.Mixture.uniform(op=[2, 3])
    curriculum = EdgeCurriculum(mixture, 4, 0, BanditSettings(discount=0.5))
    problems = fr.TaskStream(fr.Mixture.uniform(op=[3]), seed=0, split="rl")[0:4]
    rewards = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    for _ in range(2):
        curriculum.observe(problems, rewards)
    assert curriculum.state() == {"nonzero_advantage": [0.0, 3.0], "zero_advantage": [0.0, 3.0], "rewards": [0.0, 3.0]}
    assert list(curriculum.expected().values()) == [0.5, 0.5]
    curriculum.observe(problems, np.ones((4, 2)))
    assert curriculum.state() == {"nonzero_advantage": [0.0, 1.5], "zero_advantage": [0.0, 5.5], "rewards": [0.0, 5.5]}
    assert list(curriculum.expected().values()) == [0.5, 2.5 / 9]


def test_a_restored_curriculum_draws_the_same():
    whole, learner = EdgeCurriculum(MIXTURE, 16, seed=5), Learner(4.0, rate=0.05)
    _, wanted = teach(whole, learner, range(20))
    first, learner = EdgeCurriculum(MIXTURE, 16, seed=5), Learner(4.0, rate=0.05)
    _, before = teach(first, learner, range(10))
    second = EdgeCurriculum(MIXTURE, 16, seed=5)
    second.restore(json.loads(json.dumps(first.state())))
    _, after = teach(second, learner, range(10, 20))
    assert all((a == b).all() for a, b in zip(wanted, before + after, strict=True))
    assert second.state() == whole.state()
    # as checkpoints of earlier versions have it
    state = first.state()
    earlier = {"speaking": state["nonzero_advantage"], "silent": state["zero_advantage"], "rewards": state["rewards"]}
    first.restore(earlier)
    assert first.state() == state
    assert second.draw(20).prompts == whole.draw(20).prompts
    # a step may be drawn again, as after a crash; another step or seed draws others
    assert second.draw(20).prompts == second.draw(20).prompts
    assert second.draw(20).prompts != second.draw(21).prompts
    assert EdgeCurriculum(MIXTURE, 16, seed=6).draw(0).prompts != EdgeCurriculum(MIXTURE, 16, seed=5).draw(0).prompts


def test_no_problem_of_the_test_split_and_none_twice():
    curriculum = EdgeCurriculum(fr.Mixture.uniform(op=[5, 6]), 32, seed=0)
    batches = [curriculum.draw(step) for step in range(10)]
    assert {batch.stream.split for batch in batches} == {"rl"}
    hashes = np.concatenate([batch.hashes for batch in batches])
    assert len(np.unique(hashes)) == len(hashes)


def test_reinforcement_learning_with_it_resumes_to_the_bit(tmp_path):
    mixture = [{"op": [2, 3, 4], "themes": ["symbolic"], "max_value": 99, "max_sentences": 4}]
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.from_dict(mixture)])
    settings = PolicySettings(
        mixture=mixture,
        curriculum="edge",
        edge=BanditSettings(discount=0.7),
        reward="steps",
        prompts=4,
        samples=4,
        steps=6,
        max_new_tokens=10,
        truncated="keep",  # random weights end no sample
        save_every_s=0.0,
    )
    assert isinstance(stage_prompts(settings, 0), EdgeCurriculum)

    def train(name: str, stop_after: int | None) -> dict:
        config = fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1)
        model = random_model(config, torch.float32, seed=4)
        stop, source = StopRequest(), stage_prompts(settings, 7)

        class Stopping:
            """Asks to stop in the middle."""

            draw, state, restore = source.draw, source.state, source.restore

            def observe(self, problems, rewards_PG):
                source.observe(problems, rewards_PG)
                stop.requested = len(log.read()) + 1 == stop_after

        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        log = MetricsLog(folder / "metrics.jsonl")
        return reinforce(
            model, tokenizer, settings, seed=7, folder=folder / "rl", log=log, stop=stop, prompts=Stopping()
        )

    whole = train("whole", None)
    with pytest.raises(Interrupted):
        train("parts", 3)
    parts = train("parts", None)
    assert without_times(parts) == without_times(whole)
    assert sum(whole["curriculum"]["zero_advantage"] + whole["curriculum"]["nonzero_advantage"]) > 4
    lines = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "parts")]
    assert len(lines[0]) == 6
    assert [line["reward_by_op"] for line in lines[0]] == [line["reward_by_op"] for line in lines[1]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"discount": 0.0}, "discount must be in 0 < x <= 1, got 0.0"),
        ({"floor": 0.7, "replay": 0.4}, r"floor \+ replay must be at most 1, got 0.7 and 0.4"),
        ({"floor": -0.1}, r"floor must be in 0 \.\. 1, got -0.1"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        BanditSettings(**change)


def test_what_does_not_fit_is_refused():
    curriculum = EdgeCurriculum(MIXTURE, 8, 0)
    with pytest.raises(ValueError, match=r"rewards must have shape \[8, samples\], got \(8,\)"):
        curriculum.observe(curriculum.draw(0), np.zeros(8))
    with pytest.raises(ValueError, match="the state has 2 cells, but the mixture has 11"):
        curriculum.restore({"nonzero_advantage": [0, 0], "zero_advantage": [0, 0], "rewards": [0, 0]})
    with pytest.raises(ValueError, match="edge has no effect with curriculum 'fixed'"):
        PolicySettings(mixture=[PART], edge=BanditSettings(floor=0.2))
