"""Pre-training and mid-training: the loss, learning, and continuing after a stop as if nothing had happened."""

import json

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import checkpoint
from fastreason.metrics import Interrupted, MetricsLog, StopRequest
from fastreason.optim import OptimSettings
from fastreason.supervised import Phase, SupervisedSettings, supervised_loss, train

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
            return StopAt.looks > 2 * stop_at - 2

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
        assert {k: v for k, v in a.items() if not k.endswith(("seconds", "_s"))} == {
            k: v for k, v in b.items() if not k.endswith(("seconds", "_s"))
        }
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
        start(model, tokenizer, settings(phases=[Phase(0.25, [PART]), Phase(1.0, [PART | {"op": [3]}])]), tmp_path)
    share = np.mean([ops == (2,) for ops in seen])
    assert seen == sorted(seen)
    assert 0.2 < share < 0.32


def test_a_loss_that_is_not_finite_stops_the_stage_and_keeps_the_checkpoint(tmp_path):
    model, tokenizer = fresh()
    with torch.no_grad():
        model.final_norm[0] = float("nan")
    with pytest.raises(FloatingPointError, match="pretrain: the loss is nan at step 1"):
        start(model, tokenizer, settings(), tmp_path)
    assert checkpoint.find_checkpoint(tmp_path / "c") is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": 0}, "tokens >= 1"),
        ({"batch_tokens": 10}, "batch_tokens >= 64, got 20000 and 10"),
        ({"phases": [Phase(0.5, [PART])]}, r"the last at 1.0, got \[0.5\]"),
        ({"phases": [Phase(0.5, [PART]), Phase(0.2, [PART])]}, "rising shares"),
        ({"phases": []}, r"got \[\]"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)
