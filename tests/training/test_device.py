"""Stages run where the weights lie. Without a GPU torch's `meta` device stands in for one.

A mode fails where an operation mixes tensors of the device with ones of the CPU (numbers apart), and answers copies
from the device, which holds no values, with zeros. Kernels are chosen as on a GPU: their fake registrations give the
shapes.
What this cannot see: values, and whether a kernel runs.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import fastreason as fr
from fastreason import kernels
from fastreason.kernels.triton_support import as_if_on
from fastreason.rl.groups import Groups
from fastreason.rl.loop import PolicySettings, policy_step, update
from fastreason.runtime import distributed
from fastreason.sampling.device_decoding import DeviceDecoding, Size
from fastreason.training import supervised, supervised_settings
from fastreason.training.parallel import Replica

MIX = fr.Mixture.from_dict({"op": [2], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99})
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

# launches read the table of segments and the settings of a loss on CPU; wrappers check the devices of all else
READS_ON_CPU = tuple(f"fastreason.{name}" for name in ("attention", "rope_attention", "policy_loss", "cross_entropy"))


class OneDevice(TorchDispatchMode):
    """Fails where tensors of two devices meet. Counts copies to the device and from it: on a GPU the host waits for
    the latter."""

    def __init__(self):
        super().__init__()
        self.to_device = self.from_device = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, torch.Tensor)]
        on_meta = any(x.is_meta for x in tensors)
        if func in (torch.ops.aten._local_scalar_dense.default,) and on_meta:
            self.from_device += 1
            return 1.0
        if func is COPIES[0] and not on_meta and torch.device((kwargs or {}).get("device") or "cpu").type == "meta":
            self.to_device += 1
        if func in COPIES and on_meta:
            to = args[0].device if func is COPIES[1] else (kwargs or {}).get("device") or args[0].device
            if torch.device(to).type == "cpu":
                self.from_device += 1
                return torch.zeros(tensors[0].shape, dtype=(kwargs or {}).get("dtype") or tensors[0].dtype)
        elif on_meta and not str(func).startswith(READS_ON_CPU) and any(x.ndim and not x.is_meta for x in tensors):
            raise AssertionError(f"{func}: {[(str(x.device), tuple(x.shape)) for x in tensors]}")
        return func(*args, **(kwargs or {}))


@contextmanager
def device():
    # torch has no autocast for meta
    with OneDevice() as mode, as_if_on(90), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "is_autocast_enabled", lambda device: False)
        patch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())
        yield mode


@pytest.fixture
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture
def model(tokenizer):
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=16))
    model.reset_parameters(0)
    return model


def test_the_mode_notices_a_tensor_that_was_left_behind():
    with device(), pytest.raises(AssertionError, match="cpu"):
        torch.zeros(3, device="meta") + torch.ones(3)
    with device(), pytest.raises(AssertionError, match="cpu"):
        torch.zeros(3, device="meta")[torch.arange(2)]


def test_supervised_loss_and_its_gradient(model, tokenizer):
    batch = fr.TaskStream(MIX, seed=0).packed(0, 1, 512, tokenizer)
    model.to("meta")
    with device():
        supervised.supervised_loss(model, batch, "solution").backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())


def test_a_step_copies_each_part_to_the_device_at_once_and_waits_for_the_loss_alone(model, tokenizer):
    """What attention needs of the layout travels with the tokens, for backward too."""
    settings = supervised.SupervisedSettings(
        [supervised_settings.Phase(1.0, [{"op": [2], "themes": ["symbolic"]}])], accumulate=3, precision="float32"
    )
    batch = fr.TaskStream(MIX, seed=0).packed(0, 1, 512, tokenizer)
    model.to("meta")
    with device() as mode:
        supervised.step_loss(Replica(model, "ddp"), batch, 100, settings)
    assert (mode.to_device, mode.from_device) == (3, 1)


# gspo keeps sequences whole; dapo leaves out zero-advantage groups; a KL reads the reference's log-probabilities or
# logits
@pytest.mark.parametrize(
    "change",
    [{}, {"loss": "gspo"}, {"loss": "dapo"}, {"kl_coef": 0.1}, {"kl_coef": 0.1, "kl": "exact"}, {"minibatches": 2}],
)
@pytest.mark.parametrize("of_tokens", [False, True])
def test_policy_update(model, tokenizer, change, of_tokens):
    settings = PolicySettings(prompts=4, samples=4, mixture=[{"op": [2], "themes": ["symbolic"]}], **change)
    problems = fr.TaskStream(MIX, seed=1, split="rl")[0:4]
    samples = fr.Rollout(model, tokenizer).generate(problems, 4, max_new_tokens=24, seed=1)
    shape = samples.tokens.shape if of_tokens else (16,)
    advantages = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model.to("meta")
    reference = model if settings.kl_coef else None
    taken = []

    class NoOptimizer:
        def step(self, done):
            taken.append(all(parameter.grad.is_meta for parameter in model.parameters()))
            return 0.0

    with device() as mode:
        history = update(model, NoOptimizer(), Groups.of(samples, advantages), advantages, settings, 0.0,
                         reference=reference)  # fmt: skip
    assert taken == [True] * len(history) == [True] * settings.minibatches
    # of every part: its groups and all that goes with them, then the borders of sequences; and the statistics back
    parts = settings.minibatches
    assert (mode.to_device, mode.from_device) == (parts * (2 if settings.loss == "gspo" else 1), parts)


def test_a_loss_for_a_loop_of_ones_own(model, tokenizer):
    settings = PolicySettings(prompts=4, samples=4, mixture=[{"op": [2], "themes": ["symbolic"]}])
    samples = fr.Rollout(model, tokenizer).generate(fr.TaskStream(MIX, seed=1, split="rl")[0:4], 4, max_new_tokens=24)
    model.to("meta")
    with device():
        policy_step(model, samples, torch.ones(4, 4), settings).loss.backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())


def test_prefill_and_steps_of_decoding(model, monkeypatch):
    model.to("meta")
    drawn = []

    def sample(logits, *, prompts_N, samples_N, positions_N, seed):
        assert all(x.is_meta and x.shape == logits.shape[:1] for x in (prompts_N, samples_N, positions_N))
        drawn.append(logits.shape)
        return torch.zeros_like(positions_N), *torch.zeros(2, len(logits), device="meta")

    monkeypatch.setattr(kernels, "sample", sample)
    with device(), torch.inference_mode():
        decoding = DeviceDecoding(model, Size(200, 3, prompt=9, capacity=8), {"seed": 0}, np.array([3]))
        # one prompt without a prefix
        decoding.prefill(np.array([0, 2, 1]), [np.arange(6), np.arange(1), np.arange(8)])
        slots = np.arange(200)
        decoding.start(slots, np.ones((4, 200), dtype=np.int64), np.zeros(200, dtype=np.int64))
        for count in (200, 3):
            decoding.arrange(slots[:count], slots[:count] % 3)
            decoding.advance(2)
    assert drawn == [(200, model.config.vocab_size)] * 2 + [(128, model.config.vocab_size)] * 2


def test_where_a_model_is_put(monkeypatch):
    assert distributed.chosen_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.chosen_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="without a GPU"):
        distributed.chosen_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert distributed.chosen_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.chosen_device("cuda") == torch.device("cuda", 3)
    assert distributed.chosen_device("cpu") == torch.device("cpu")


def test_a_recipe_that_asks_for_a_missing_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="without a GPU"):
        fr.run("smoke", out=tmp_path / "run", overrides={"device": "cuda"})
    assert not (tmp_path / "run").exists()
