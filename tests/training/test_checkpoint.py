"""Checkpoints: what other libraries read, and what survives a crash."""

import contextlib
import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.model import decoder
from fastreason.training import checkpoint
from fastreason.training.optimizer import Optimizer, OptimSettings

from ..model.test_decoder import random_model


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.build(["symbolic", "zoo"])


def make(tokenizer, seed=0):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed)
    optimizer = Optimizer(model, OptimSettings())
    loss = model(torch.arange(9), Segments.from_lengths([9])).square().mean()
    loss.backward()
    optimizer.step(0.5)
    return model, optimizer


def test_transformers_and_tokenizers_read_it(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

    model, optimizer = make(tokenizer)
    checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": 1})
    theirs, info = Qwen2ForCausalLM.from_pretrained(tmp_path / "c", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "c")) is Qwen2ForCausalLM
    problems = fr.TaskStream(fr.Mixture.uniform(op=[3], themes=["symbolic", "zoo"]), seed=1)[0:4]
    their_tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "c")
    for text in problems.documents:
        ids = tokenizer.encode(text)
        assert their_tokenizer(text, add_special_tokens=False)["input_ids"] == ids.tolist()
        tokens = torch.from_numpy(ids).long()
        ours = model.logits(model(tokens, Segments.from_lengths([len(tokens)])))
        with torch.no_grad():
            torch.testing.assert_close(theirs.eval()(tokens[None]).logits[0], ours.detach(), atol=3e-5, rtol=3e-5)
    assert their_tokenizer.eos_token_id == tokenizer.eos_id
    assert their_tokenizer.pad_token_id == tokenizer.pad_id
    assert theirs.generation_config.eos_token_id == [tokenizer.answer_close_id, tokenizer.eos_id]


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_a_model_alone_is_saved_and_read(tmp_path, tokenizer, with_tokenizer):
    model, _ = make(tokenizer)
    model.save_pretrained(tmp_path / "new" / "m", tokenizer if with_tokenizer else None)
    again = fr.Decoder.from_pretrained(tmp_path / "new" / "m")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert (tmp_path / "new" / "m" / "tokenizer.json").exists() == with_tokenizer


def test_what_transformers_writes_is_read(tmp_path, tokenizer):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    theirs = Qwen2ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = checkpoint.load_model(tmp_path)
    tokens = torch.arange(11)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.logits(ours(tokens, Segments.from_lengths([11]))), theirs(tokens[None]).logits[0], atol=1e-5, rtol=1e-5
        )


def test_a_round_trip_keeps_every_bit(tmp_path, tokenizer):
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 7, "tokens": 99})
    again = checkpoint.load_model(folder)
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    other = Optimizer(again, OptimSettings())
    checkpoint.load_optimizer(folder, other)
    before, after = optimizer.state_tensors(), other.state_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert checkpoint.load_progress(folder) == {"step": 7, "tokens": 99}
    restored = fr.Tokenizer.from_pretrained(folder)
    text = fr.TaskStream(fr.Mixture.uniform(op=[4], themes=["zoo"]))[0].documents[0]
    assert (restored.encode(text) == tokenizer.encode(text)).all()
    assert not list(folder.rglob("*.pkl")) + list(folder.rglob("*.pt")) + list(folder.rglob("*.bin"))


@pytest.mark.parametrize("crash_at", range(4))
def test_a_crash_at_any_point_leaves_a_whole_checkpoint(tmp_path, tokenizer, monkeypatch, crash_at):
    """Stops before each of the operations that change names, as a power cut would."""
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 1})
    count = 0
    real_rename, real_rmtree = type(folder).rename, shutil.rmtree

    def crash_or(action):
        nonlocal count
        if count == crash_at:
            raise KeyboardInterrupt
        count += 1
        return action()

    monkeypatch.setattr(type(folder), "rename", lambda self, to: crash_or(lambda: real_rename(self, to)))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: crash_or(lambda: real_rmtree(*a, **k)))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the crash may come in either of the two
        for step in (2, 3):
            checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": step})
    monkeypatch.undo()
    found = checkpoint.find_checkpoint(folder)
    assert found == folder
    assert checkpoint.load_progress(found)["step"] in (1, 2)
    checkpoint.load_model(found)
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 4})
    assert checkpoint.load_progress(folder)["step"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_no_checkpoint_is_no_error_and_damage_is_named(tmp_path, tokenizer):
    assert checkpoint.find_checkpoint(tmp_path / "none") is None
    with pytest.raises(ValueError, match=r"config\.json does not exist"):
        checkpoint.load_model(tmp_path)
    model, _ = make(tokenizer)
    checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, None, {})
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(ValueError, match="must have shape"):
        checkpoint.load_model(tmp_path / "c")


def test_a_full_disk_keeps_the_checkpoint_of_before(tmp_path, tokenizer, monkeypatch):
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 1})
    no_space = OSError(errno.ENOSPC, "No space left on device")

    def full(*arguments, **named):
        raise no_space

    # at the first file, in the weights and in the optimizer (as safetensors reports it), in the counters, at the flush
    halfway = lambda *a, **k: (_ for _ in ()).throw(checkpoint.SafetensorError("I/O error: No space left"))  # noqa: E731
    for module, name, failure in [
        (checkpoint, "save_model", full),
        (decoder, "write_tensors", halfway),
        (checkpoint, "write_tensors", halfway),
        (checkpoint, "_write_json", full),
        (checkpoint, "flush", full),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failure)
            with pytest.raises(OSError, match=r"c could not be written .*No space left.*; the previous checkpoint"):
                checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 2})
        assert [path.name for path in tmp_path.iterdir()] == ["c"]
        assert checkpoint.load_progress(checkpoint.find_checkpoint(folder))["step"] == 1
    monkeypatch.setattr(checkpoint, "flush", full)
    with pytest.raises(OSError) as failed:
        checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 2})
    assert failed.value.errno == errno.ENOSPC


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("survived", range(8))
def test_a_crash_anywhere_in_the_last_save_leaves_what_is_to_be_kept(tmp_path, tokenizer, monkeypatch, keep, survived):
    """The `survived`-th rename or removal of the save of step 4 is its last; the next start settles what is left."""
    model, optimizer = make(tokenizer)
    for step in range(1, 4):
        checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": step}, keep=keep)
    left = [survived]

    def counted(real):
        def call(*arguments, **options):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(checkpoint.shutil, "rmtree", counted(checkpoint.shutil.rmtree))
        with contextlib.suppress(KeyboardInterrupt):
            checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": 4}, keep=keep)
    assert checkpoint.find_checkpoint(tmp_path / "c", keep) == tmp_path / "c"
    last = checkpoint.load_progress(tmp_path / "c")["step"]
    assert last in (3, 4)
    kept = checkpoint.kept_checkpoints(tmp_path / "c")
    wanted = list(range(1, last))[1 - keep :] if keep > 1 else []
    assert [checkpoint.load_progress(path)["step"] for path in kept] == wanted
    if last == 4:
        assert {path.name for path in tmp_path.iterdir()} == {"c", *(path.name for path in kept)}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_n_are_kept(tmp_path, tokenizer, keep):
    model, optimizer = make(tokenizer)
    for step in range(1, 6):
        checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": step}, keep=keep)
    names = [f"c-{step:08d}" for step in range(6 - keep, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", *names]
    assert [path.name for path in checkpoint.kept_checkpoints(tmp_path / "c")] == names
    for path in tmp_path.iterdir():
        checkpoint.check_files(path)
    assert [checkpoint.load_progress(tmp_path / name)["step"] for name in names] == list(range(6 - keep, 5))


def test_a_kept_checkpoint_survives_a_crash_between_the_renames(tmp_path, tokenizer):
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    for step in (1, 2, 3):
        checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": step}, keep=3)
    shutil.copytree(folder, tmp_path / "c.old")  # as if the crash came right behind `new.rename(folder)`
    (tmp_path / "c.new").mkdir()
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 4}, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "c-00000002", "c-00000003"]


# the weights, the optimizer, the counters, and what transformers reads
@pytest.mark.parametrize(
    "name", ["model.safetensors", "state/optimizer.safetensors", "state/progress.json", "config.json", "tokenizer.json"]
)
def test_a_changed_or_missing_file_is_found_and_nothing_is_removed(tmp_path, tokenizer, name):
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    for step in (1, 2):
        checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": step}, keep=2)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} has changed since .* resume from .*c-00000001, rename"):
        checkpoint.find_checkpoint(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        checkpoint.find_checkpoint(folder)
    assert checkpoint.load_progress(tmp_path / "c-00000001")["step"] == 1
    # the advice works
    folder.rename(tmp_path / "away")
    (tmp_path / "c-00000001").rename(folder)
    assert checkpoint.load_progress(checkpoint.find_checkpoint(folder))["step"] == 1


def test_files_that_cannot_be_read_are_named(tmp_path, tokenizer):
    model, optimizer = make(tokenizer)
    folder = tmp_path / "c"
    checkpoint.save_checkpoint(folder, model, tokenizer, optimizer, {"step": 1})
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        checkpoint.load_model(folder)
    (folder / "state" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"optimizer\.safetensors cannot be read"):
        checkpoint.load_optimizer(folder, optimizer)
    for content, message in (
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", r"must hold an object, got \[\]"),
    ):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"config\.json {message}"):
            checkpoint.load_model(folder)
    (folder / "state" / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"checksums\.json does not exist; move .*the stage starts again"):
        checkpoint.find_checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_any_dtype_go_on_with_every_bit(tmp_path, tokenizer, dtype):
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float64).to(dtype)
    with torch.no_grad():
        model.final_norm += torch.tensor(2.0**-40, dtype=dtype)  # which float32 cannot hold
    checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, None, {"finished": True})
    again = fr.Decoder(model.config).to(dtype)
    checkpoint.restore(tmp_path / "c", again, Optimizer(again, OptimSettings()))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_of_another_model_is_refused(tmp_path, tokenizer):
    model, optimizer = make(tokenizer)
    checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": 1})
    other = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=2))
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(ValueError, match="has num_hidden_layers = 4, but this one has 2"):
        checkpoint.restore(tmp_path / "c", other, Optimizer(other, OptimSettings()))
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_the_model_card_states_the_facts(tmp_path, tokenizer):
    model, _ = make(tokenizer)
    checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, None, {"step": 12}, facts={"stage": "midtrain"})
    card = (tmp_path / "c" / "README.md").read_text()
    facts = json.loads(card.split("```json\n")[1].split("```")[0])
    assert facts == {"stage": "midtrain", "progress": {"step": 12}}
    assert f"{model.num_parameters:,}-parameter" in card
    # a reader may add to the card without harm
    (tmp_path / "c" / "README.md").write_text(card + "Mine.")
    assert checkpoint.find_checkpoint(tmp_path / "c")
