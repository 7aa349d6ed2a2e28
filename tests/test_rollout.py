"""Sampling: against transformers' generate, against the model's own log-probabilities, and free of the batch."""

import numpy as np
import pytest
import torch
from fastreason.kernels import Segments

import fastreason as fr

from .test_model import qwen2, random_model

MIX = fr.Mixture.uniform(op=[2, 3, 4, 5], themes=["symbolic"], max_value=99)


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture(scope="module")
def model(tokenizer):
    """Flat enough that samples differ, peaked enough that they end at different lengths."""
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    return model


def test_greedy_is_transformers_generate(tokenizer):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), seed=1)  # float64: no ties
    problems = fr.TaskStream(MIX, seed=5)[0:6]
    ours = fr.Rollout(model, tokenizer).generate(problems, temperature=0.0, max_new_tokens=24)
    theirs = qwen2(model)
    for row, prompt in enumerate(problems.prompts):
        ids = torch.from_numpy(tokenizer.encode(prompt)).long()[None]
        out = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=[tokenizer.answer_close_id, tokenizer.eos_id],
            pad_token_id=tokenizer.pad_id,
        )[0, ids.shape[1] :]
        assert ours.tokens[row, : ours.lengths[row]].tolist() == out.tolist()


def test_logprobs_are_those_of_one_forward_pass(model, tokenizer):
    problems, n, temperature = fr.TaskStream(MIX, seed=6)[0:5], 3, 0.8
    out = fr.Rollout(model, tokenizer).generate(problems, n, temperature=temperature, max_new_tokens=30)
    for row in range(5 * n):
        prompt = out.prompt_tokens[out.prompt_offsets[row // n] : out.prompt_offsets[row // n + 1]]
        new = out.tokens[row, : out.lengths[row]]
        tokens = torch.from_numpy(np.concatenate([prompt, new])).long()
        logits = model.logits(model(tokens, Segments.from_lengths([len(tokens)]))).detach() / temperature
        at = torch.arange(len(prompt) - 1, len(tokens) - 1)
        expected = logits.log_softmax(-1)[at, tokens[at + 1]]
        np.testing.assert_allclose(out.logprobs[row, : out.lengths[row]], expected, atol=2e-5)
        assert not out.logprobs[row, out.lengths[row] :].any()
        assert (out.tokens[row, out.lengths[row] :] == tokenizer.pad_id).all()


def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(tokenizer):
    # float64, so that the order of sums cannot move a draw across a boundary
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    problems = fr.TaskStream(MIX, seed=7)[0:9]
    together = fr.Rollout(model, tokenizer).generate(
        problems, 4, max_new_tokens=40, seed=3, prompt_ids=problems.indices
    )
    chunked = fr.Rollout(model, tokenizer, max_sequences=8).generate(
        problems, 4, max_new_tokens=40, seed=3, prompt_ids=problems.indices
    )
    assert np.array_equal(together.tokens, chunked.tokens)
    one = problems.stream[5:6]
    alone = fr.Rollout(model, tokenizer).generate(one, 4, max_new_tokens=40, seed=3, prompt_ids=one.indices)
    width = alone.tokens.shape[1]
    assert np.array_equal(together.tokens[20:24, :width], alone.tokens)
    assert together.lengths[20:24].max() == width
    # fewer samples are the first of more samples
    fewer = fr.Rollout(model, tokenizer).generate(problems, 2, max_new_tokens=40, seed=3, prompt_ids=problems.indices)
    assert np.array_equal(fewer.lengths, together.lengths.reshape(9, 4)[:, :2].flatten())
    another = fr.Rollout(model, tokenizer).generate(problems, 4, max_new_tokens=40, seed=4, prompt_ids=problems.indices)
    assert not np.array_equal(together.lengths, another.lengths)


def test_draws_follow_the_distribution(tokenizer):
    """First tokens of many samples against the softmax, by a chi-squared statistic."""
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=2)
    with torch.no_grad():
        model.embedding.weight *= 0.3
    prompt = fr.TaskStream(MIX, seed=8)[0].prompts
    n, temperature = 20000, 0.7
    out = fr.Rollout(model, tokenizer, max_sequences=n).generate(
        prompt, n, temperature=temperature, max_new_tokens=1, seed=1
    )
    tokens = torch.from_numpy(tokenizer.encode(prompt[0])).long()
    logits = model.logits(model(tokens, Segments.from_lengths([len(tokens)])))[-1].detach().double()
    expected = (logits / temperature).softmax(-1).numpy() * n
    counts = np.bincount(out.tokens[:, 0], minlength=len(expected))
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    degrees = likely.sum() - 1
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)
    assert likely.sum() > 20


def test_it_stops_at_the_answer_and_at_the_limit(model, tokenizer):
    problems = fr.TaskStream(MIX, seed=9)[0:8]
    out = fr.Rollout(model, tokenizer).generate(problems, 8, max_new_tokens=50)
    stop = (tokenizer.answer_close_id, tokenizer.eos_id)
    for row in range(64):
        new = out.tokens[row, : out.lengths[row]]
        assert not np.isin(new[:-1], stop).any()
        assert out.finished[row] == (new[-1] in stop)
        if not out.finished[row]:
            assert out.lengths[row] == 50
    assert 0 < out.finished.sum() < 64
    assert out.num_new_tokens == out.lengths.sum()


def test_prompts_may_be_texts_and_positions_set_the_limit(tokenizer):
    problems = fr.TaskStream(MIX, seed=9)[0:2]
    longest = max(len(tokenizer.encode(prompt)) for prompt in problems.prompts)
    config = fr.ModelConfig(vocab_size=len(tokenizer), max_position_embeddings=longest + 10)
    engine = fr.Rollout(random_model(config, torch.float32), tokenizer)
    a, b = (engine.generate(prompts, 2, seed=1) for prompts in (problems, problems.prompts))
    assert np.array_equal(a.tokens, b.tokens)
    assert a.tokens.shape[1] <= 10


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, p: e.generate(p, 0), "need n >= 1, .* got 0, 256 and 1.0"),
        (lambda e, p: e.generate(p, temperature=-1.0), "temperature >= 0"),
        (lambda e, p: e.generate([]), "at least one prompt"),
        (lambda e, p: e.generate([""]), "no empty one"),
        (lambda e, p: e.generate(["a " * 600]), "leaves no room in 512 positions"),
    ],
)
def test_bad_calls(model, tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(fr.Rollout(model, tokenizer), fr.TaskStream(MIX)[0:1])


def test_a_model_with_too_small_a_vocabulary_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the model only 10"):
        fr.Rollout(fr.Decoder(fr.ModelConfig(vocab_size=10)), tokenizer)
