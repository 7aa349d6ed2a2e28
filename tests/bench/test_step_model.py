"""Seconds of steps on many devices: limits that are known by hand, and what each term does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fastreason as fr
from bench.scaling.collectives_model import Collective, Links, checkpoint_bytes, supervised_step
from bench.scaling.step_model import (
    Phases,
    checkpoint_seconds,
    ddp_step_seconds,
    decode_seconds,
    efficiency,
    evaluation_seconds,
    fsdp_step_seconds,
    generator_cores,
    grading_cores,
    part_seconds,
    rl_step_seconds,
)
from fastreason.model.flop import train_flop_per_token

CONFIG = fr.ModelConfig.preset("100m")
PHASES = Phases(
    token_s=1e-6, pass_s=1e-3, optimizer_s=2e-3, update_token_s=3e-6, decode_step_s=1e-3, decode_token_s=1e-6,
    grade_s=1e-5, packed_token_s=2e-8, problem_s=1e-5, write_bytes_per_s=1e9, hash_bytes_per_s=5e8,
)  # fmt: skip
# no latency to speak of, and rates that make sums easy
LINKS = Links(
    per_node=8, node_bytes_per_s=1e11, network_bytes_per_s=1e11, share=1.0, node_latency_s=1e-15,
    network_latency_s=1e-15, host_bytes_per_s=1e15, host_latency_s=1e-15,
)  # fmt: skip
PERFECT = replace(LINKS, node_bytes_per_s=1e30, network_bytes_per_s=1e30)
TOKENS = 524_288


@pytest.mark.parametrize("step", [ddp_step_seconds, fsdp_step_seconds])
def test_one_device_computes_and_sends_nothing(step):
    found = step(CONFIG, PHASES, LINKS, tokens=TOKENS, ranks=1)
    assert found.compute_s == pytest.approx(TOKENS * 1e-6)
    assert (found.waiting_s, found.links_s, found.host_s, found.optimizer_s) == (0, 0, 0, 2e-3)
    assert found.seconds == found.compute_s + 2e-3


def test_perfect_links_leave_what_is_not_shared_out():
    for ranks in (8, 64):
        ddp, fsdp = (
            step(CONFIG, PHASES, PERFECT, tokens=TOKENS, ranks=ranks) for step in (ddp_step_seconds, fsdp_step_seconds)
        )
        assert ddp.seconds == pytest.approx(TOKENS * 1e-6 / ranks + 2e-3)
        assert fsdp.seconds == pytest.approx((TOKENS * 1e-6 + 2e-3) / ranks)
        # every rank orthogonalises all that Muon has
        muon = fsdp_step_seconds(CONFIG, PHASES, PERFECT, tokens=TOKENS, ranks=ranks, matrices="muon")
        assert muon.optimizer_s == 2e-3
    # however few tokens there are, a pass takes what its launches take
    assert ddp_step_seconds(CONFIG, PHASES, PERFECT, tokens=512, ranks=512).compute_s == 1e-3


def test_ddp_hides_gradients_under_two_thirds_of_its_last_pass():
    size = 4 * fr.Decoder(CONFIG).num_parameters
    sent_s = 2 * 7 / 8 * size / 1e11
    open_ = ddp_step_seconds(CONFIG, PHASES, LINKS, tokens=TOKENS, ranks=8)
    assert open_.links_s == pytest.approx(sent_s)
    # 65,536 tokens a rank are 8 passes of 8.2 ms: the last one hides up to 5.5 ms
    hidden = ddp_step_seconds(CONFIG, replace(PHASES, overlap=0.5), LINKS, tokens=TOKENS, ranks=8)
    assert hidden.links_s == pytest.approx(sent_s - 0.5 * 2 / 3 * 8192e-6)
    # and never the last bucket
    bucket_s = 2 * 7 / 8 * 25 * 2**20 / 1e11
    assert ddp_step_seconds(
        CONFIG, replace(PHASES, overlap=1.0, token_s=1e-3), LINKS, tokens=TOKENS, ranks=8
    ).links_s == pytest.approx(bucket_s)


def test_fsdp_sends_weights_for_every_pass():
    def sent(parts: int) -> float:
        step = supervised_step(CONFIG, 8, parallel="fsdp", parts=parts, accumulate=parts)
        return LINKS.all_seconds([one for one in step if not one.on_host], 8)

    for parts in (1, 4):
        found = fsdp_step_seconds(CONFIG, PHASES, LINKS, tokens=TOKENS, ranks=8, tokens_per_pass=TOKENS / 8 / parts)
        assert found.links_s == pytest.approx(sent(parts))
    # an ideal pass hides all but what stands in front of the first product and behind the last
    outside, block = 4 * 1_690_368, 4 * (103_170_816 - 1_690_368) / 12
    ideal = replace(PHASES, overlap=1.0, token_s=1e-3)
    found = fsdp_step_seconds(CONFIG, ideal, LINKS, tokens=TOKENS, ranks=8, tokens_per_pass=TOKENS)
    assert found.links_s == pytest.approx(7 / 8 * (outside + block + outside) / 1e11, rel=1e-3)


def test_counters_cost_two_hops_a_rank_each():
    slow = replace(PERFECT, host_latency_s=1e-4)
    found = ddp_step_seconds(CONFIG, PHASES, slow, tokens=TOKENS, ranks=64)
    assert found.host_s == pytest.approx(4 * 2 * 63 * 1e-4)
    # in parts the ranks agree on how many there are
    assert ddp_step_seconds(
        CONFIG, PHASES, slow, tokens=TOKENS, ranks=64, tokens_per_pass=1024
    ).host_s == pytest.approx(5 * 2 * 63 * 1e-4)


def test_the_fullest_rank_decides():
    even, uneven = (ddp_step_seconds(CONFIG, PHASES, PERFECT, tokens=TOKENS, ranks=8, imbalance=x) for x in (1.0, 1.25))
    assert uneven.seconds - even.seconds == pytest.approx(0.25 * TOKENS / 8 * 1e-6)


def test_efficiency_falls_with_the_number_of_devices():
    phases = replace(PHASES, overlap=0.8)
    for step in (ddp_step_seconds, fsdp_step_seconds):
        alone = step(CONFIG, phases, Links(), tokens=TOKENS, ranks=1).seconds
        shares = [
            efficiency(alone, step(CONFIG, phases, Links(), tokens=TOKENS, ranks=2**i).seconds, 2**i) for i in range(10)
        ]
        assert shares[0] == 1.0
        assert shares == sorted(shares, reverse=True)


def test_slots_are_filled_again_at_once():
    lengths = [3, 1, 1, 1, 4]
    # one slot: all after each other; two: [3, 4] and [1, 1, 1]; five: the longest
    assert [decode_seconds(lengths, slots, 1.0, 0.0) for slots in (1, 2, 5, 99)] == [10, 7, 4, 4]
    assert decode_seconds(lengths, 2, 0.0, 1.0) == 10
    # as the engine does: the order is the samples' own
    assert decode_seconds([4, 1, 1, 1, 3], 2, 1.0, 0.0) == 6


def test_decoding_takes_the_steps_that_the_engine_makes():
    """A simulated slot is a slot: steps of `ContinuousBatch` for samples that end after so many tokens."""
    from fastreason.sampling.continuous_batching import ContinuousBatch

    mixture = fr.Mixture.uniform(op=[2], themes=["symbolic"])
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.reset_parameters(0)
    steps, real = [], ContinuousBatch.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContinuousBatch, "step", lambda self: steps.append(1) or real(self))
        engine = fr.Rollout(model, tokenizer, max_sequences=4)
        prompts = fr.TaskStream(mixture, seed=0)[0:6]
        samples = engine.generate(prompts, 3, max_new_tokens=40, stop=list(range(20, 220)))
    assert len(set(samples.lengths.tolist())) > 5
    assert decode_seconds(samples.lengths, 4, 1.0, 0.0) == len(steps)


def test_a_step_of_reinforcement_learning_by_hand():
    prompts_P, lengths_PG = np.array([100, 200]), np.array([[10, 20], [30, 40]])
    found = rl_step_seconds(
        CONFIG, PHASES, PERFECT, prompt_lengths_P=prompts_P, lengths_PG=lengths_PG, ranks=2, minibatches=2, cores=2
    )
    # prompt, longest sample, tokens, two verdicts on two cores
    sampling = [
        1e-6 * p + 1e-3 * longest + 1e-6 * tokens + 1e-5 for p, longest, tokens in ((100, 20, 30), (200, 40, 70))
    ]
    assert part_seconds(PHASES, prompts_P[:1], lengths_PG[:1], cores=2) == pytest.approx(sampling[0])
    # each rank has one group, and the two are in different minibatches: one computes, the other waits
    updates = [max(3e-6 * 130, 1e-3), max(3e-6 * 270, 1e-3)]
    assert found.compute_s + found.waiting_s == pytest.approx(max(sampling) + sum(updates))
    assert found.waiting_s == pytest.approx(max(sampling) - np.mean(sampling) + sum(updates) / 2)
    assert found.optimizer_s == 2 * 2e-3
    together = rl_step_seconds(
        CONFIG, PHASES, PERFECT, prompt_lengths_P=prompts_P, lengths_PG=lengths_PG, ranks=2, minibatches=1
    )
    assert together.compute_s + together.waiting_s < found.compute_s + found.waiting_s


def test_a_reference_costs_a_forward_pass_and_links_an_all_reduce_an_update():
    arguments = dict(prompt_lengths_P=np.full(8, 1000), lengths_PG=np.full((8, 4), 500), ranks=4)
    plain = rl_step_seconds(CONFIG, PHASES, LINKS, **arguments)
    frozen = rl_step_seconds(CONFIG, PHASES, LINKS, **arguments, reference=True)
    assert frozen.seconds - plain.seconds == pytest.approx(2 * 3000 * 3e-6 / 3)
    gradients = Collective("all_reduce", "gradients", 4 * 103_170_816)
    twice = rl_step_seconds(CONFIG, PHASES, LINKS, **arguments, minibatches=2)
    assert twice.links_s == pytest.approx(2 * LINKS.seconds(gradients, 4))


def test_one_endless_sample_holds_up_all_ranks():
    prompts_P, lengths_PG = np.full(64, 100), np.full((64, 4), 150)
    endless_PG = lengths_PG.copy()
    endless_PG[17, 2] = 1024
    short, long = (
        rl_step_seconds(CONFIG, PHASES, PERFECT, prompt_lengths_P=prompts_P, lengths_PG=x, ranks=64)
        for x in (lengths_PG, endless_PG)
    )
    assert short.waiting_s == pytest.approx(0.0, abs=1e-12)
    assert long.waiting_s > 0.8


def test_evaluation_is_as_slow_as_its_fullest_rank():
    parts_s = np.arange(1.0, 134.0)
    assert evaluation_seconds(parts_s, 1) == parts_s.sum()
    # dealt in turns, the last rank has the longest parts
    assert evaluation_seconds(parts_s, 64) == max(parts_s[r::64].sum() for r in range(64))
    assert evaluation_seconds(parts_s, 512) == 133.0


def test_cores_that_feed_and_grade():
    assert generator_cores(600_000, 30_000_000) == 0.02
    assert grading_cores(1000, 400_000) == 0.0025


def test_all_wait_for_a_checkpoint():
    size = checkpoint_bytes(CONFIG)
    assert checkpoint_seconds(CONFIG, PHASES, PERFECT, ranks=1) == pytest.approx(size / 1e9 + size / 5e8)
    ddp, fsdp = (checkpoint_seconds(CONFIG, PHASES, LINKS, ranks=8, parallel=p) for p in ("ddp", "fsdp"))
    # weights and both moments, whole on every rank
    assert fsdp - ddp == pytest.approx(7 / 8 * 3 * 4 * 103_170_816 / 1e11, rel=1e-3)


def test_phases_on_paper_are_flop_and_bytes_over_peaks():
    host = dict(grade_s=1e-6, packed_token_s=1e-8, problem_s=1e-6, write_bytes_per_s=1e9, hash_bytes_per_s=1e9)
    peaks = dict(flop_per_s=1e15, update_flop_per_s=1e14, bytes_per_s=2e12, share=0.5)
    found = Phases.on_paper(CONFIG, length=2048, **peaks, launch_s=1e-6, launches_per_block=(50, 16), **host)
    assert found.token_s == train_flop_per_token(CONFIG, 2048) / 0.5e15
    assert found.update_token_s == pytest.approx(10 * found.token_s)
    assert found.pass_s == pytest.approx(12 * 50e-6)
    weights = 103_121_000  # that multiply
    assert found.optimizer_s == pytest.approx(40 * weights / 1e12, rel=1e-3)
    # 412 MB of weights take longer than 192 launches
    assert found.decode_step_s == pytest.approx(4 * weights / 1e12, rel=1e-3)
    keys_values = 8 * 12 * 2 * 64 * 1024 / 1e12
    assert found.decode_token_s == pytest.approx(732.1e6 / 3 / 0.5e14 + keys_values, rel=0.01)
    slow = Phases.on_paper(CONFIG, length=2048, **peaks, launch_s=1e-5, launches_per_block=(50, 16), **host)
    assert slow.decode_step_s == pytest.approx(12 * 16e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: replace(PHASES, token_s=0), "Phases: token_s must be positive and finite, got 0"),
        (lambda: replace(PHASES, pass_s=-1), "Phases: pass_s must be at least 0 and finite, got -1"),
        (lambda: replace(PHASES, overlap=2), "Phases: overlap must be in 0 .. 1, got 2"),
        (
            lambda: ddp_step_seconds(CONFIG, PHASES, LINKS, tokens=0, ranks=1),
            "tokens must be positive and finite, got 0",
        ),
        (
            lambda: fsdp_step_seconds(CONFIG, PHASES, LINKS, tokens=9, ranks=0),
            "ranks must be positive and finite, got 0",
        ),
        (
            lambda: ddp_step_seconds(CONFIG, PHASES, LINKS, tokens=9, ranks=1, imbalance=0.5),
            "imbalance must be at least 1, got 0.5",
        ),
        (lambda: decode_seconds([], 1, 1.0, 1.0), "needs lengths of at least 1 token"),
        (lambda: decode_seconds([3, 0], 1, 1.0, 1.0), "needs lengths of at least 1 token, got .3, 0."),
        (lambda: decode_seconds([3], 0, 1.0, 1.0), "decode_seconds: slots must be positive and finite, got 0"),
        (
            lambda: rl_step_seconds(
                CONFIG, PHASES, LINKS, prompt_lengths_P=np.ones(2), lengths_PG=np.ones((2, 3)), ranks=4
            ),
            "at least one prompt a rank, got .2, 3., 2 prompts and 4 ranks",
        ),
        (lambda: evaluation_seconds([], 2), "needs at least one part"),
        (lambda: generator_cores(1.0, 0.0), "generator_cores: core_tokens_per_s must be positive and finite, got 0"),
        (lambda: grading_cores(float("inf"), 1.0), "grading_cores: samples_per_s must be positive and finite, got inf"),
        (lambda: efficiency(1.0, 1.0, 0), "efficiency: ranks must be positive and finite, got 0"),
    ],
)
def test_what_cannot_be_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
