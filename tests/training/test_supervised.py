"""Pre-training and mid-training: the loss, learning, and continuing after a stop as if nothing had happened."""

import json

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.model.flop import train_flop
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.training import checkpoint, supervised
from fastreason.training.optimizer import OptimSettings
from fastreason.training.supervised import (
    count_targets,
    replay,
    split_batch,
    supervised_loss,
    train,
    validation_batches,
    validation_loss,
)
from fastreason.training.supervised_settings import Phase, SupervisedSettings

PART = {"op": [2], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99}
MIX = fr.Mixture.from_dict(PART)


def settings(**changes) -> SupervisedSettings:
    base = {"phases": [Phase(until=1.0, mixture=[PART])], "tokens": 20_000, "batch_tokens": 512}
    return SupervisedSettings(**(base | changes))


def fresh(seed=0) -> tuple[fr.Decoder, fr.Tokenizer]:
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=2))
    model.reset_parameters(seed)
    return model, tokenizer


def start(model, tokenizer, chosen, folder, stop=None):
    return train(
        "pretrain",
        model,
        tokenizer,
        chosen,
        seed=0,
        folder=folder / "c",
        log=MetricsLog(folder / "metrics.jsonl"),
        stop=stop or StopRequest(),
    )


@pytest.mark.parametrize("loss_on", ["solution", "all"])
def test_the_loss_is_that_of_each_document_alone(loss_on):
    model, tokenizer = fresh()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    stream = fr.TaskStream(MIX, seed=0)
    batch = stream.packed(0, 2, 200, tokenizer)
    losses = []
    from fastreason.kernels import Segments

    for document in stream[0 : batch.next_index].documents:
        ids = torch.from_numpy(tokenizer.encode(document)).long()
        logits = model.logits(model(ids, Segments.from_lengths([len(ids)])))
        each = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        first = len(tokenizer.encode(document.split(" <solution>")[0] + " <solution>")) if loss_on == "solution" else 1
        losses.append(each[first - 1 :])
    torch.testing.assert_close(supervised_loss(model, batch, loss_on), torch.cat(losses).mean(), atol=1e-5, rtol=1e-5)


def test_it_learns_what_it_is_shown(tmp_path):
    model, tokenizer = fresh()
    chosen = settings(tokens=120_000, optim=OptimSettings(matrix_lr=0.02, lr=0.01))
    progress = start(model, tokenizer, chosen, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 3 * lines[-1]["loss"]
    assert lines[-1]["loss"] < 0.7
    assert progress["finished"]
    assert progress["tokens"] >= 120_000
    assert [line["step"] for line in lines] == [*range(10, lines[-1]["step"], 10), lines[-1]["step"]]


@pytest.mark.parametrize("stop_at", [1, 7])
def test_a_stop_and_a_resume_change_no_bit(tmp_path, stop_at):
    chosen = settings(phases=[Phase(0.4, [PART]), Phase(1.0, [PART | {"op": [3]}])])
    tokenizer = fr.Tokenizer.for_mixtures([MIX + MIX.replace(op=3)])
    whole = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=2))
    whole.reset_parameters(0)
    (tmp_path / "whole").mkdir()
    start(whole, tokenizer, chosen, tmp_path / "whole")

    class StopAt(StopRequest):
        """Asks to stop at its n-th look."""

        looks = 0

        @property
        def requested(self):
            StopAt.looks += 1
            return StopAt.looks >= stop_at

        @requested.setter
        def requested(self, value):
            pass

    (tmp_path / "parts").mkdir()
    parts = fr.Decoder(whole.config)
    parts.reset_parameters(0)
    with pytest.raises(Interrupted):
        start(parts, tokenizer, chosen, tmp_path / "parts", StopAt())
    step = checkpoint.load_progress(tmp_path / "parts" / "c")["step"]
    assert 0 < step < 20
    resumed = fr.Decoder(whole.config)  # other weights: all must come from the checkpoint
    resumed.reset_parameters(99)
    progress = start(resumed, tokenizer, chosen, tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    read = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("whole", "parts")]
    for a, b in zip(*read, strict=True):
        assert without_times(a) == without_times(b)
    # a finished stage is not done again
    again = start(resumed, tokenizer, chosen, tmp_path / "parts")
    assert again["step"] == progress["step"]


def test_phases_follow_each_other(tmp_path):
    seen = []
    real = fr.TaskStream.packed

    def spy(stream, *arguments, **named):
        seen.append(stream.mixture.ops)
        return real(stream, *arguments, **named)

    tokenizer = fr.Tokenizer.for_mixtures([MIX + MIX.replace(op=3)])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fr.TaskStream, "packed", spy)
        start(
            model,
            tokenizer,
            settings(prefetch=0, phases=[Phase(0.25, [PART]), Phase(1.0, [PART | {"op": [3]}])]),
            tmp_path,
        )
    share = np.mean([ops == (2,) for ops in seen])
    assert seen == sorted(seen)
    assert 0.2 < share < 0.32


def test_a_loss_that_is_not_finite_stops_the_stage_and_keeps_the_checkpoint(tmp_path):
    model, tokenizer = fresh()
    with torch.no_grad():
        model.final_norm[0] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"pretrain: the loss is nan at step 1, whose batch begins at problem 0"
    ):
        start(model, tokenizer, settings(), tmp_path)
    assert checkpoint.find_checkpoint(tmp_path / "c") is None
    assert replay(tmp_path / "c-failed")[2].isnan()


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_fails_can_be_repeated(tmp_path, kind):
    """The sixth step goes wrong: its weights and its batch come back, and the fifth step's checkpoint stays."""
    model, tokenizer = fresh()
    calls, batches = 0, []
    real = supervised.supervised_loss

    def loss(model, batch, *how):
        nonlocal calls
        calls += 1
        batches.append(batch)
        value = real(model, batch, *how)
        if calls < 6:
            return value
        if kind == "loss":
            return value * torch.inf
        value.register_hook(lambda gradient: gradient * torch.nan)
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "supervised_loss", loss)
        with pytest.raises(
            FloatingPointError, match=r"at step 6, whose batch begins at problem \d+ of phase 0; to repeat"
        ):
            start(model, tokenizer, settings(save_every_s=0.0), tmp_path)
    progress = checkpoint.load_progress(checkpoint.find_checkpoint(tmp_path / "c"))
    assert progress["step"] == 5
    again, batch, value = replay(tmp_path / "c-failed")
    saved = checkpoint.load_model(tmp_path / "c")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), saved.parameters(), strict=True))
    assert (batch.tokens == batches[-1].tokens).all()
    assert value == real(saved, batches[-1], "solution")
    assert again.embedding.weight.grad.isfinite().all()


@pytest.mark.parametrize("loss_on", ["solution", "all"])
def test_accumulation_gives_the_update_of_one_large_batch(loss_on):
    def gradients(parts):
        model, tokenizer = fresh()
        with torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        batch = fr.TaskStream(MIX, seed=0).packed(0, 1, 1024, tokenizer)
        pieces = split_batch(batch, parts)
        # no document is lost, cut or moved, and the parts are about as long
        assert np.concatenate([piece.starts for piece in pieces]).tolist() == batch.starts.tolist()
        assert len(pieces) == min(parts, len(batch.starts))
        assert max(piece.lengths.sum() for piece in pieces) < 1024 / parts + 2 * batch.lengths.max()
        total, loss = count_targets(batch, loss_on), 0.0
        for piece in pieces:
            share = count_targets(piece, loss_on) / total
            part_loss = supervised_loss(model, piece, loss_on) * share
            part_loss.backward()
            loss += part_loss.item()
        return loss, [parameter.grad for parameter in model.parameters()]

    want_loss, want = gradients(1)
    for parts in (2, 3, 1000):
        loss, got = gradients(parts)
        assert loss == pytest.approx(want_loss, abs=1e-6)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointed_activations_leave_the_weights_as_they_are_and_keep_less(tmp_path, precision):
    trained, kept = [], []
    for number, checkpointed in enumerate((False, True)):
        model, tokenizer = fresh()
        chosen = settings(
            tokens=1_500, precision=precision, accumulate=2, checkpoint_activations=checkpointed
        )  # fmt: skip
        start(model, tokenizer, chosen, tmp_path / str(number))
        trained.append(model)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            supervised_loss(model, fr.TaskStream(MIX, seed=0).packed(0, 1, 512, tokenizer), "all", precision)
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in trained), strict=True))
    assert kept[1] < 0.6 * kept[0]  # a copy of the head's matrix, logits and embeddings remain


def test_accumulation_leaves_the_training_as_it_is(tmp_path):
    """The loss after ten updates agrees to 1e-5: rounding, as Adam magnifies it where gradients are small."""
    losses = []
    for parts in (1, 3):
        (tmp_path / str(parts)).mkdir()
        model, tokenizer = fresh()
        chosen = settings(tokens=5000, accumulate=parts, optim=OptimSettings(matrices="adamw", matrix_lr=1e-3, lr=1e-3))
        start(model, tokenizer, chosen, tmp_path / str(parts))
        lines = MetricsLog(tmp_path / str(parts) / "metrics.jsonl").read()
        losses.append([line["loss"] for line in lines])
        assert all(line["flop"] > 0 for line in lines)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_bfloat16_trains_about_as_float32_does(tmp_path):
    """Products are rounded to 8 bits, weights and updates are not."""
    losses = {}
    for precision in ("float32", "auto", "bfloat16"):
        (tmp_path / precision).mkdir()
        model, tokenizer = fresh()
        chosen = settings(tokens=30_000, precision=precision, validate_every=30, validation_tokens=600)
        start(model, tokenizer, chosen, tmp_path / precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        lines = MetricsLog(tmp_path / precision / "metrics.jsonl").read()
        losses[precision] = [line["loss"] for line in lines] + [lines[-1]["val_loss"]]
    assert losses["auto"] == losses["float32"]  # on a CPU
    assert losses["bfloat16"] != losses["float32"]
    assert losses["float32"][-1] < 0.5 * losses["float32"][0]
    # products are rounded to 8 bits
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize("loss_on", ["solution", "all"])
def test_targets_are_counted_as_the_loss_counts_them(loss_on):
    model, tokenizer = fresh()
    # rows of 30 cut documents, so that some end inside a prompt
    for length in (30, 200):
        batch = fr.TaskStream(MIX, seed=0).packed(0, 3, length, tokenizer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                fr.Decoder, "cross_entropy", lambda model, hidden, targets, shares: int((targets != -100).sum())
            )
            assert count_targets(batch, loss_on) == supervised_loss(model, batch, loss_on)


@pytest.mark.parametrize("prompt, gathered", [(3, False), (20, True)])
def test_where_nearly_all_tokens_have_a_loss_no_hidden_states_are_gathered(prompt, gathered):
    """On a GPU; each token that is kept predicts the same one."""
    tokens, target = torch.arange(100), torch.ones(100, dtype=torch.bool)
    target[:prompt], target[50] = False, False
    rows, labels = supervised._predictors(tokens, target, gathers=True)
    kept, kept_labels = supervised._predictors(tokens, target, gathers=False)
    assert len(labels) % 64 == len(kept_labels) % 64 == 0
    wanted = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    assert (kept is not None) == gathered
    found = enumerate(kept_labels.tolist()) if kept is None else zip(kept.tolist(), kept_labels.tolist(), strict=True)
    assert {at: label for at, label in found if label >= 0} == {at: v for at, v in wanted.items() if v >= 0}
    assert sum(label >= 0 for label in kept_labels.tolist()) == int(target.sum())


def test_validation_does_not_depend_on_the_seed_and_changes_no_step(tmp_path):
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    lines, weights = {}, {}
    for every in (0, 7):
        (tmp_path / str(every)).mkdir()
        model, _ = fresh()
        chosen = settings(tokens=8000, validate_every=every, validation_tokens=2000)
        progress = start(model, tokenizer, chosen, tmp_path / str(every))
        lines[every] = MetricsLog(tmp_path / str(every) / "metrics.jsonl").read()
        weights[every] = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[7], strict=True))
    validated = [line for line in lines[7] if "val_loss" in line]
    assert [line["step"] for line in validated] == [*range(7, progress["step"], 7), progress["step"]]
    assert not any("val_loss" in line for line in lines[0])
    # it is the mean over all targets of documents that training never shows
    batches = list(validation_batches(chosen, tokenizer, 512))
    value = validation_loss(model, batches, "solution")
    assert validated[-1]["val_loss"] == pytest.approx(value, rel=1e-5)
    counts = [count_targets(batch, "solution") for batch in batches]
    each = [supervised_loss(model, batch, "solution").item() for batch in batches]
    assert value == pytest.approx(np.average(each, weights=counts))
    documents = fr.TaskStream(MIX, seed=0, split="val")[0 : batches[-1].next_index].documents
    assert sum(len(tokenizer.encode(document)) for document in documents) == sum(int(b.lengths.sum()) for b in batches)
    assert sum(int(batch.lengths.sum()) for batch in batches) >= 2000


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss(tmp_path):
    model, tokenizer = fresh()
    falls_then_rises = iter([3.0, 1.0, 2.0, 1.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.0, 9.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "validation_loss", lambda *a: next(falls_then_rises))
        start(model, tokenizer, settings(tokens=12_000, validate_every=5, keep=2, save_every_s=0.0), tmp_path)
    best = checkpoint.load_progress(checkpoint.best_checkpoint(tmp_path / "c"))
    assert (best["step"], best["best_loss"]) == (10, 1.0)
    last = checkpoint.load_progress(tmp_path / "c")
    assert [path.name for path in checkpoint.kept_checkpoints(tmp_path / "c")] == [f"c-{last['step'] - 1:08d}"]
    assert last["best_loss"] == 1.0


def test_a_stage_ends_when_its_budget_is_used(tmp_path):
    model, tokenizer = fresh()
    progress = start(model, tokenizer, settings(tokens=8000), tmp_path)
    for i, unit in enumerate(("flop", "tokens", "samples")):
        other, _ = fresh()
        (tmp_path / unit).mkdir()
        chosen = settings(tokens=None, budget=f"{progress[unit] * 0.5} {unit}")
        half = start(other, tokenizer, chosen, tmp_path / unit)
        assert half["finished"], i
        assert half[unit] >= 0.5 * progress[unit]
        assert half["step"] == pytest.approx(0.5 * progress["step"], abs=2)
    other, _ = fresh()
    (tmp_path / "seconds").mkdir()
    timed = start(other, tokenizer, settings(tokens=None, budget="0.2 seconds"), tmp_path / "seconds")
    assert timed["seconds"] >= 0.2
    assert timed["step"] >= 1


def test_the_account_adds_up(tmp_path):
    model, tokenizer = fresh()
    progress = start(model, tokenizer, settings(tokens=5000), tmp_path)
    last = MetricsLog(tmp_path / "metrics.jsonl").read()[-1]
    batches, index, flop, samples = [], 0, 0.0, 0
    stream = fr.TaskStream(MIX, seed=0)
    for _ in range(progress["step"]):
        batch = stream.packed(index, 1, 512, tokenizer)
        index, samples = batch.next_index, samples + len(batch.lengths)
        flop += train_flop(model.config, batch.lengths, count_targets(batch, "solution"))
        batches.append(batch)
    assert progress["flop"] == flop
    assert progress["samples"] == samples == index
    assert last["flop"] == pytest.approx(flop, rel=1e-5)
    assert last["flop_per_s"] == pytest.approx(flop / progress["seconds"], rel=1e-3)
    assert 0 < last["peak_percent"] < 200


def test_a_batch_without_a_target_is_an_error(tmp_path):
    long = [{"op": [9], "themes": ["zoo"]}]  # prompts of hundreds of tokens
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.from_dict(long)])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"pretrain: rows of 64 tokens \(batch_tokens\) are too short for problem 0"):
        start(model, tokenizer, settings(phases=[Phase(1.0, long)], batch_tokens=64), tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"batch_tokens": 10}, "batch_tokens must be at least 64, got 10"),
        ({"phases": [Phase(0.5, [PART])]}, r"the last at 1.0, got \[0.5\]"),
        ({"phases": [Phase(0.5, [PART]), Phase(0.2, [PART])]}, "increasing shares"),
        ({"phases": []}, r"got \[\]"),
        ({"budget": "5 seconds"}, "tokens and budget exclude each other, got 20000 and '5 seconds'"),
        ({"tokens": None, "budget": "5 minutes"}, "a number and one of flop, tokens, seconds, samples"),
        ({"rows": 0}, "rows must be at least 1, got 0"),
        ({"rows": 9}, "rows must be in 1 .. batch_tokens / 64 = 8, got 9"),
        ({"prefetch": -1}, "prefetch must be at least 0, got -1"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"validate_every": -1}, "validate_every must be at least 0, got -1"),
        ({"validation_tokens": 1}, "validation_tokens must be at least 64, got 1"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)
