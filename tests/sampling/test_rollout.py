"""Sampling: against transformers' generate, against the model's own log-probabilities, and free of the batch."""

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers, trainers

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.sampling.continuous_batching import ContinuousBatch
from fastreason.sampling.cpp_backend import CoreDecoding
from fastreason.sampling.stop_sequences import Stopping

from ..model.test_decoder import qwen2, random_model

MIX = fr.Mixture.uniform(op=[2, 3, 4, 5], themes=["symbolic"], max_value=99)
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}  # several heads of keys and values, shared by queries


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture(scope="module")
def model(tokenizer):
    """Flat enough that samples differ, peaked enough that they end at different lengths."""
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **HEADS), torch.float32, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    return model


def transformers_greedy(theirs, prompts, tokenizer, max_new_tokens, stop):
    """One left-padded batch through transformers' own loop: the new tokens of each prompt, [PAD] behind the end."""
    ids = [torch.from_numpy(tokenizer.encode(prompt)).long() for prompt in prompts]
    width = max(map(len, ids))
    tokens = torch.stack([torch.nn.functional.pad(x, (width - len(x), 0), value=tokenizer.pad_id) for x in ids])
    out = theirs.generate(
        tokens,
        attention_mask=(tokens != tokenizer.pad_id).long(),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=stop,
        pad_token_id=tokenizer.pad_id,
    )
    return out[:, width:].numpy()


@pytest.mark.parametrize(
    "backend, count", [("cpp", 200), ("torch", 40), pytest.param("torch", 200, marks=pytest.mark.slow)]
)
def test_greedy_is_transformers_generate(tokenizer, backend, count):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **HEADS), torch.float32, seed=1)
    problems = fr.TaskStream(MIX, seed=5)[0:count]
    stop = [33]  # which about half of these samples come to
    engine = fr.Rollout(model, tokenizer, backend=backend)
    ours = engine.generate(problems, temperature=0.0, max_new_tokens=24, stop=stop)
    theirs = transformers_greedy(qwen2(model), problems.prompts, tokenizer, 24, stop)
    assert ours.tokens.shape == theirs.shape
    # Both round, so a tie of the two best logits may go either way. None of these 4,800 choices is one: the
    # closest two logits in float64 are 2.9e-5 apart, where those in float32 are wrong by 2.1e-6.
    assert np.array_equal(ours.tokens, theirs)
    assert 0 < ours.finished.sum() < count


def trainer_logprobs(model, out, n, temperature):
    """Log-probabilities of all samples from one pass over the group layout, as training computes them."""
    prompt_lengths = np.diff(out.prompt_offsets)
    segments = Segments.from_groups(prompt_lengths.tolist(), torch.from_numpy(out.lengths.reshape(-1, n)))
    parts = []
    for p in range(len(prompt_lengths)):
        parts.append(out.prompt_tokens[out.prompt_offsets[p] : out.prompt_offsets[p + 1]])
        parts += [out.tokens[row, : out.lengths[row]] for row in range(p * n, (p + 1) * n)]
    tokens = torch.from_numpy(np.concatenate(parts)).long()
    with torch.no_grad():
        logprobs = (model.logits(model(tokens, segments)).float() / temperature).log_softmax(-1)
    found = np.zeros_like(out.logprobs)
    is_response = segments.prefix >= 0
    ends = (segments.start + segments.length - 1)[segments.prefix[is_response]]  # of the prompts
    for row, (begin, end) in enumerate(zip(segments.start[is_response].tolist(), ends.tolist(), strict=True)):
        source = [end, *range(begin, begin + int(out.lengths[row]) - 1)]
        found[row, : out.lengths[row]] = logprobs[source, tokens[begin : begin + int(out.lengths[row])]]
    return found


def test_logprobs_are_those_of_training(model, tokenizer):
    problems, n, temperature = fr.TaskStream(MIX, seed=6)[0:125], 8, 0.8
    out = fr.Rollout(model, tokenizer).generate(problems, n, temperature=temperature, max_new_tokens=30)
    assert len(out.tokens) == 1000
    # worst seen: 1.5e-6
    np.testing.assert_allclose(out.logprobs, trainer_logprobs(model, out, n, temperature), rtol=0, atol=1e-5)
    assert np.array_equal(out.logprobs, out.sampled_logprobs)  # without filters they are one
    behind = np.arange(out.tokens.shape[1]) >= out.lengths[:, None]
    assert not out.logprobs[behind].any() and (out.tokens[behind] == tokenizer.pad_id).all()


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_samples_in_bfloat16(model, tokenizer, backend):
    half = fr.Decoder(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    engine = fr.Rollout(half, tokenizer, backend=backend)
    out = engine.generate(fr.TaskStream(MIX, seed=6)[0:6], 4, max_new_tokens=20)
    # both round to 8 bits, at other places; worst seen: 0.0094
    np.testing.assert_allclose(out.logprobs, trainer_logprobs(half, out, 4, 1.0), rtol=0, atol=0.03)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_sample_with_torch(model, tokenizer, dtype):
    other = fr.Decoder(model.config).to(dtype)
    other.load_state_dict(model.state_dict())
    out = fr.Rollout(other, tokenizer).generate(fr.TaskStream(MIX, seed=6)[0:2], 2, max_new_tokens=4)
    np.testing.assert_allclose(out.logprobs, trainer_logprobs(other, out, 2, 1.0), rtol=0, atol=0.005)
    with pytest.raises(ValueError, match=f'"cpp" needs float32 or bfloat16 on CPU, got {dtype} on cpu'):
        fr.Rollout(other, tokenizer, backend="cpp")


def same_samples(a, rows_a, b, rows_b):
    """Tokens and log-probabilities alike to the bit, whatever the width of either."""
    assert np.array_equal(a.lengths[rows_a], b.lengths[rows_b])
    width = a.lengths[rows_a].max()
    for name in ("tokens", "logprobs", "sampled_logprobs"):
        assert np.array_equal(getattr(a, name)[rows_a, :width], getattr(b, name)[rows_b, :width]), name
    assert np.array_equal(a.finished[rows_a], b.finished[rows_b])


# In the core the logits have the same bits; in torch they need float64, whose last bits no draw comes near.
@pytest.mark.parametrize(
    "backend, dtype", [("cpp", torch.float32), ("cpp", torch.bfloat16), ("torch", torch.float64)], ids=str
)
def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(tokenizer, backend, dtype):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **HEADS), dtype, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    problems = fr.TaskStream(MIX, seed=7)[0:9]
    limit = 40 if backend == "cpp" else 12  # torch takes its time

    def samples(problems, n, **engine):
        seed, top_p = engine.pop("seed", 3), 0.95
        rollout = fr.Rollout(model, tokenizer, backend=backend, **engine)
        ids = problems.indices
        return rollout.generate(problems, n, max_new_tokens=limit, seed=seed, top_p=top_p, prompt_ids=ids)

    def equal(other, rows=slice(None), of=slice(None)):
        if backend == "torch":
            width = other.lengths[rows].max()
            assert np.array_equal(other.tokens[rows, :width], together.tokens[of, :width])
        else:
            same_samples(other, rows, together, of)

    together = samples(problems, 4)
    assert together.finished.sum() < 36 and len(set(together.lengths)) > 2  # they end apart
    for max_sequences in (1, 3, 8, 17) if backend == "cpp" else (17,):
        equal(samples(problems, 4, max_sequences=max_sequences))
    equal(samples(problems, 4, kv_memory_mb=1.5))
    equal(samples(problems.stream[5:6], 4), of=slice(20, 24))
    order = np.array([6, 2, 8, 0, 1, 7, 3, 5, 4])
    equal(samples(problems.stream[order], 4), of=(order[:, None] * 4 + np.arange(4)).flatten())
    # fewer samples are the first of more samples
    equal(samples(problems, 2), of=(np.arange(9)[:, None] * 4 + np.arange(2)).flatten())
    equal(samples(problems, 23), rows=(np.arange(9)[:, None] * 23 + np.arange(4)).flatten())
    another = samples(problems, 4, seed=4)
    assert not np.array_equal(another.lengths, together.lengths)


def test_a_large_rollout_is_the_same_in_any_slots(tokenizer):
    """Enough tokens that a logit which moved by a last bit would show: 77,000 draws, three ways."""
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **HEADS), torch.float32, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    problems = fr.TaskStream(MIX, seed=11)[0:60]
    out = [
        fr.Rollout(model, tokenizer, max_sequences=slots).generate(problems, 32, max_new_tokens=40)
        for slots in (512, 77)
    ]
    same_samples(*(x for o in out for x in (o, slice(None))))


def test_torch_and_the_core_agree(model, tokenizer):
    problems = fr.TaskStream(MIX, seed=12)[0:7]
    core, torch_ = (
        fr.Rollout(model, tokenizer, max_sequences=20, backend=backend).generate(problems, 5, max_new_tokens=30)
        for backend in ("cpp", "torch")
    )
    # a draw may fall on the other side of a border that moved by 1e-7: in these 35 samples none does
    assert np.array_equal(core.tokens, torch_.tokens)
    np.testing.assert_allclose(core.logprobs, torch_.logprobs, rtol=0, atol=1e-5)


def filtered(p, top_k=0, top_p=1.0, min_p=0.0):
    """What the filters leave of probabilities p [V], by sorting and sums in float64."""
    order = np.argsort(-p, kind="stable")
    keep = np.zeros(len(p), dtype=bool)
    keep[order[: top_k or len(p)]] = True
    p = np.where(keep, p, 0.0) / p[keep].sum()
    keep[order[1:][np.cumsum(p[order])[:-1] >= top_p]] = False
    keep &= p >= min_p * p.max()
    return np.where(keep, p, 0.0) / p[keep].sum()


@pytest.mark.parametrize(
    "filters", [dict(), dict(top_k=12), dict(top_p=0.8), dict(min_p=0.1), dict(top_k=40, top_p=0.9, min_p=0.02)]
)
def test_draws_follow_the_distribution(tokenizer, filters):
    """A million first tokens in five cases, against the softmax and what the filters leave of it, by chi-squared."""
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **HEADS), torch.float32, seed=2)
    with torch.no_grad():
        model.embedding.weight *= 0.3
    prompt = fr.TaskStream(MIX, seed=8)[0].prompts
    n, temperature = 200_000, 0.7
    out = fr.Rollout(model, tokenizer, max_sequences=40_000).generate(
        prompt, n, temperature=temperature, max_new_tokens=1, seed=1, **filters
    )
    tokens = torch.from_numpy(tokenizer.encode(prompt[0])).long()
    logits = model.logits(model(tokens, Segments.from_lengths([len(tokens)])))[-1].detach().double()
    full = (logits / temperature).softmax(-1).numpy()
    kept = filtered(full, **filters)
    counts = np.bincount(out.tokens[:, 0], minlength=len(kept))
    assert not counts[kept == 0].any()
    expected = kept * n
    likely = expected > 5
    assert likely.sum() > 8
    # the rare ones count as one
    bins = np.append(counts[likely], counts[~likely].sum()), np.append(expected[likely], expected[~likely].sum())
    some = bins[1] > 0
    statistic = ((bins[0] - bins[1])[some] ** 2 / bins[1][some]).sum()
    degrees = some.sum() - 1
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)
    np.testing.assert_allclose(out.logprobs[:, 0], np.log(full[out.tokens[:, 0]]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(out.sampled_logprobs[:, 0], np.log(kept[out.tokens[:, 0]]), rtol=0, atol=1e-5)


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
    assert out.finish_reason.tolist() == ["stop" if finished else "length" for finished in out.finished]


def test_stop_sequences_are_ids_or_strings(model, tokenizer):
    problems, n = fr.TaskStream(MIX, seed=9)[0:8], 4
    engine = fr.Rollout(model, tokenizer)
    free = engine.generate(problems, n, max_new_tokens=40, stop=[])
    assert (free.lengths == 40).all() and not free.finished.any()
    row = free.tokens[5].tolist()
    pair = tokenizer.decode(row[7:9])
    for stop in ([int(row[8])], pair, [pair, tokenizer.decode([row[20]])], [pair[1:-1]]):
        out = engine.generate(problems, n, max_new_tokens=40, stop=stop)
        for sample in range(8 * n):
            end = first_end(tokenizer, free.tokens[sample], stop)
            assert out.lengths[sample] == (end or 40)
            assert out.finished[sample] == (end is not None)
            assert np.array_equal(out.tokens[sample, : end or 40], free.tokens[sample, : end or 40])
        assert out.finished[5]


def first_end(tokenizer, tokens, stop):
    """How many tokens there are when one of the stop sequences first stands in them, or None."""
    for length in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:length])
        for item in [stop] if isinstance(stop, str) else stop:
            if item in text if isinstance(item, str) else item == tokens[length - 1]:
                return length
    return None


def test_a_stop_string_may_end_with_a_part_of_a_character(tmp_path):
    """In byte-level tokens without merges the euro sign is three; the string is there with the last of them."""
    file = tokenizers.Tokenizer(tokenizers.models.BPE())
    file.pre_tokenizer, file.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=258, special_tokens=["[PAD]", "[EOS]"], initial_alphabet=alphabet)
    file.train_from_iterator([], trainer)
    file.save(str(tmp_path / "tokenizer.json"))
    tokenizer = fr.Tokenizer.from_pretrained(tmp_path)
    text, string = "it costs 5 \N{EURO SIGN} or 6", "5 \N{EURO SIGN}"
    tokens, stopping = tokenizer.encode(text)[None], Stopping(tokenizer, string)
    ends = [bool(stopping.ends(tokens, np.array([0]), np.array([k]))[0]) for k in range(1, tokens.shape[1] + 1)]
    assert ends.index(True) + 1 == len(text[: text.index(string)]) + len(string.encode())


def counted(steps):
    """`CoreDecoding.decode` that notes how many sequences each step has."""
    decode = CoreDecoding.decode

    def count(self, slots, *rest):
        steps.append(len(slots))
        return decode(self, slots, *rest)

    return count


def test_a_stream_gives_prompts_as_they_finish(model, tokenizer):
    problems, n = fr.TaskStream(MIX, seed=9)[0:12], 3
    engine = fr.Rollout(model, tokenizer, max_sequences=8)
    whole = engine.generate(problems, n, max_new_tokens=30)
    calls, seen = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoreDecoding, "decode", counted(calls))
        for p, out in engine.stream(problems, n, max_new_tokens=30):
            seen.append((p, len(calls)))
            assert torch.is_inference_mode_enabled() is False
            same_samples(out, slice(None), whole, slice(p * n, p * n + n))
            assert np.array_equal(out.prompt_tokens, tokenizer.encode(problems.prompts[p]))
    assert sorted(p for p, _ in seen) == list(range(12))
    assert seen[0][1] < seen[-1][1] / 2  # the first came long before the last was done
    stream = engine.stream(problems, n, max_new_tokens=30)
    next(stream)
    engine.generate(problems, n, max_new_tokens=2)
    with pytest.raises(RuntimeError, match="another generate or stream began"):
        list(stream)


def most_at_once(engine, *args, **kwargs):
    """The output, most sequences at a time, most tokens of prompts (in blocks of 16) at a time, tokens decoded."""
    sequences, held, most = [], {}, 0
    prefill, release = CoreDecoding.prefill, CoreDecoding.release

    def counted_prefill(self, tokens, offsets):
        nonlocal most
        numbers, logits = prefill(self, tokens, offsets)
        held.update(zip(numbers, -(-np.diff(offsets) // 16) * 16, strict=True))
        most = max(most, sum(held.values()))
        return numbers, logits

    def counted_release(self, prompt):
        del held[prompt]
        return release(self, prompt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoreDecoding, "decode", counted(sequences))
        patch.setattr(CoreDecoding, "prefill", counted_prefill)
        patch.setattr(CoreDecoding, "release", counted_release)
        out = engine.generate(*args, **kwargs)
    assert not held
    return out, max(sequences), most, sum(sequences)


def test_memory_for_keys_and_values_is_kept_to(model, tokenizer):
    problems, n, new = fr.TaskStream(MIX, seed=9)[0:10], 8, 32
    free, sequences, _, tokens = most_at_once(fr.Rollout(model, tokenizer), problems, n, max_new_tokens=new)
    assert 70 < sequences <= 80  # some end with their first token
    token_bytes = 2 * 4 * 2 * 16 * 4  # keys and values, layers, heads, head dim, float32
    for budget in (0.5, 0.2):
        out, sequences, prompt_tokens, same_tokens = most_at_once(
            fr.Rollout(model, tokenizer, kv_memory_mb=budget), problems, n, max_new_tokens=new
        )
        assert budget * 0.5e6 < (sequences * new + prompt_tokens) * token_bytes <= budget * 1e6
        assert same_tokens == tokens
        same_samples(out, slice(None), free, slice(None))
    with pytest.raises(ValueError, match=r"kv_memory_mb = 0.01 is not enough for one prompt of \d+ tokens and 32 new"):
        fr.Rollout(model, tokenizer, kv_memory_mb=0.01).generate(problems, n, max_new_tokens=new)


def test_a_slot_is_refilled_as_soon_as_its_sample_ends(model, tokenizer):
    problems, n, slots = fr.TaskStream(MIX, seed=9)[0:10], 8, 16
    engine = fr.Rollout(model, tokenizer, max_sequences=slots)
    steps, draws = [], []
    draw = ContinuousBatch._draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoreDecoding, "decode", counted(steps))
        patch.setattr(ContinuousBatch, "_draw", lambda self, *args: draws.append(len(args[0])) or draw(self, *args))
        out = engine.generate(problems, n, max_new_tokens=40)
    # a first token comes from the prompt, every other from a step; no sample is decoded behind its end
    assert sum(draws) == out.num_new_tokens and sum(steps) == out.num_new_tokens - 10 * n
    # all slots draw until no sample is left to start, which leaves fewer samples than slots
    full = draws.index(next(d for d in draws if d < slots))
    assert out.num_new_tokens - full * slots < slots * 40
    assert full > 80


def test_prompts_may_be_texts_and_positions_set_the_limit(tokenizer):
    problems = fr.TaskStream(MIX, seed=9)[0:8]
    lengths = np.array([len(tokenizer.encode(prompt)) for prompt in problems.prompts])
    config = fr.ModelConfig(vocab_size=len(tokenizer), max_position_embeddings=int(lengths.max()) + 10)
    engine = fr.Rollout(random_model(config, torch.float32), tokenizer)
    a, b = (engine.generate(prompts, 2, seed=1, stop=[]) for prompts in (problems, problems.prompts))
    assert np.array_equal(a.tokens, b.tokens)
    # each prompt as far as its own positions go, whatever others are there
    assert np.array_equal(a.lengths, np.minimum(256, config.max_position_embeddings - lengths).repeat(2))


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("stop", ["3.", ["Be", 5], ["[UNK]"], None], ids=repr)
def test_tokens_beyond_the_tokenizer_end_nothing(tokenizer, backend, stop):
    """A vocabulary padded to a round number, whose padding is drawn often here."""
    size = len(tokenizer)
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=size + 200), torch.float32, seed=4)
    problems = fr.TaskStream(MIX, seed=9)[0:6]
    out = fr.Rollout(model, tokenizer, backend=backend).generate(problems, 8, max_new_tokens=40, stop=stop)
    last = np.take_along_axis(out.tokens, out.lengths[:, None] - 1, axis=1)[:, 0]
    assert (out.tokens >= size).any() and (last[out.finished] < size).all()
    row = out.tokens[(out.tokens >= size).any(1)][0]
    assert tokenizer.decode(row).count("[UNK]") >= (row >= size).sum() > 0
    assert len(fr.grade(problems, out.tokens, tokenizer=tokenizer)) == 48


def test_a_token_beyond_the_tokenizer_may_be_named(tokenizer):
    size = len(tokenizer)
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=size + 200), torch.float32, seed=4)
    engine, problems = fr.Rollout(model, tokenizer), fr.TaskStream(MIX, seed=9)[0:6]
    beyond = list(range(size, size + 200))
    out = engine.generate(problems, 4, max_new_tokens=40, stop=beyond)
    assert out.finished.any() and (out.tokens < size + 200).all()
    with pytest.raises(ValueError, match=rf"stop: must be ids in 0 \.\. {size + 199} .* got {size + 200}"):
        engine.generate(problems, stop=[size + 200])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, p: e.generate(p, 0), "generate: n must be an integer >= 1, got 0"),
        (lambda e, p: e.generate(p, temperature=-1.0), "generate: temperature must be a number >= 0, got -1.0"),
        (lambda e, p: e.generate([]), "at least one text"),
        (lambda e, p: e.generate([""]), "none of them empty"),
        (
            lambda e, p: e.generate(["a", "a " * 600]),
            "prompt 1 has .* tokens, which leaves none of the model.s 512 positions",
        ),
        (lambda e, p: e.generate(p, top_p=0.0), "top_p must be a number > 0"),
        (lambda e, p: e.generate(p, top_k=-1), "top_k must be an integer >= 0"),
        (lambda e, p: e.generate(p, min_p=2.0), "min_p must be a number in 0 .. 1"),
        (lambda e, p: e.generate(p, prompt_ids=np.arange(2)), r"prompt_ids must be int64 \[1\], got shape \(2,\)"),
        (lambda e, p: e.generate(p, stop=[100000]), "must be ids in 0 .. .* got 100000"),
        (lambda e, p: e.generate(p, stop=""), "non-empty strings"),
        (lambda e, p: e.stream(p, 0), "n must be an integer >= 1"),
        (lambda e, p: e.generate(p, max_new_tokens=2.5), "max_new_tokens must be an integer >= 1, got 2.5"),
        (lambda e, p: e.generate(p, n=True), "n must be an integer >= 1, got True"),
        (lambda e, p: e.generate(p, temperature=float("nan")), "temperature must be a number >= 0, got nan"),
        (lambda e, p: e.generate(p, temperature=1e-7), "temperature must be 0 or at least 1e-06"),
        (lambda e, p: e.generate(p, seed=0.5), "seed must be an integer in"),
        (lambda e, p: e.generate(p, prompt_ids=[0.5]), r"prompt_ids must be integers, got float64 \[0.5\]"),
        (lambda e, p: e.generate("a prompt"), "prompts must be a list, got 'a prompt'"),
    ],
)
def test_bad_calls(model, tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(fr.Rollout(model, tokenizer), fr.TaskStream(MIX)[0:1])


def test_bad_engines(model, tokenizer):
    with pytest.raises(ValueError, match="the model has only 10"):
        fr.Rollout(fr.Decoder(fr.ModelConfig(vocab_size=10)), tokenizer)
    with pytest.raises(ValueError, match="Rollout: max_sequences must be an integer >= 1, got 0"):
        fr.Rollout(model, tokenizer, max_sequences=0)
    with pytest.raises(ValueError, match="Rollout: kv_memory_mb must be a number > 0, got nan"):
        fr.Rollout(model, tokenizer, kv_memory_mb=float("nan"))
    with pytest.raises(ValueError, match=r"backend must be .* got 'gpu'"):
        fr.Rollout(model, tokenizer, backend="gpu")
    with pytest.raises(TypeError, match=r"must be token ids and strings, got 1\.5"):
        fr.Rollout(model, tokenizer).generate(["a"], stop=[1.5])
