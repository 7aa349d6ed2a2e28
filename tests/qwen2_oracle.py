"""transformers' Qwen2 as the judge of our decoder: the same weights, documents one by one.

transformers computes norms, rotary angles and (in its eager attention and its loss) the softmax in float32 whatever
the model's dtype. `in_double` replaces these steps by the same formulas in float64, for the comparison that float32
would blur; without it the judge is transformers as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import fastreason as fr
from fastreason import kernels
from fastreason.kernels import Segments
from fastreason.model.decoder import model_to_hf

from .conftest import REFERENCE


def reference_config() -> fr.ModelConfig:
    """The released 103 M model's; skips the test where the reference data are absent."""
    path = REFERENCE / "model_config.json"
    if not path.is_file():
        pytest.skip("the reference data are not on this machine (../shared/reference)")
    return fr.ModelConfig.from_pretrained(path)


def drawn_model(config: fr.ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> fr.Decoder:
    """Weights of the size that trained ones have, none of them zero or one, so that no term is hidden."""
    with torch.device("meta"):
        model = fr.Decoder(config).to_empty(device="cpu")
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=g)
            if name.endswith("norm"):
                parameter.copy_(1.0 + 0.2 * noise)
            else:
                parameter.copy_(noise * (0.2 if name.endswith("bias") else parameter.shape[1] ** -0.5))
        model.embedding.weight *= 2.0
    return model.to(dtype)


def qwen2(model: fr.Decoder, attention: str = "eager"):
    """transformers' model with a copy of our weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.initialization import no_init_weights

    hf_config, tensors = model_to_hf(model)
    with no_init_weights():
        theirs = Qwen2ForCausalLM(Qwen2Config(**hf_config, attn_implementation=attention))
    missing = theirs.load_state_dict(tensors, strict=False, assign=True)
    assert missing.missing_keys == ([] if "lm_head.weight" in tensors else ["lm_head.weight"])
    assert not missing.unexpected_keys
    theirs.tie_weights()
    return theirs.eval()


@contextmanager
def in_double() -> Iterator[None]:
    """Norms and rotary angles in the dtype of the model; use with attention "sdpa", whose softmax is in it already."""
    from transformers.models.qwen2 import modeling_qwen2

    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def angles(self, x, position_ids):
        dim = self.config.head_dim
        exponents = torch.arange(0, dim, 2, dtype=x.dtype) / dim
        half = position_ids[..., None] * (1.0 / self.config.rope_parameters["rope_theta"] ** exponents)
        full = torch.cat((half, half), dim=-1)
        return full.cos(), full.sin()

    with (
        patch.object(modeling_qwen2.Qwen2RMSNorm, "forward", norm),
        patch.object(modeling_qwen2.Qwen2RotaryEmbedding, "forward", angles),
    ):
        yield


def documents_of(config: fr.ModelConfig, lengths: tuple[int, ...], seed: int = 1) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(config.vocab_size, (n,), generator=g) for n in lengths]


def ours_on(model: fr.Decoder, documents: list[Tensor]) -> dict[str, Tensor]:
    """Logits and loss of packed documents, and the gradient of every weight under its name in transformers."""
    tokens, segments = torch.cat(documents), Segments.from_lengths([len(d) for d in documents])
    logits = model.logits(model(tokens, segments))
    target = torch.ones(len(tokens), dtype=torch.bool)
    target[segments.start] = False
    target = target.nonzero().squeeze(1)
    loss = kernels.cross_entropy(logits[target - 1], tokens[target])
    loss.backward()
    with torch.device("meta"):
        gradients = fr.Decoder(model.config)
    gradients.load_state_dict({name: p.grad for name, p in model.named_parameters()}, assign=True)
    return {"logits": logits.detach(), "loss": loss.detach(), **model_to_hf(gradients)[1]}


def theirs_on(theirs, documents: list[Tensor]) -> dict[str, Tensor]:
    """The same of transformers' model, which sees one document at a time."""
    logits = [theirs(d[None], use_cache=False).logits[0] for d in documents]
    # its own loss would go through float32
    loss = cross_entropy(torch.cat([x[:-1] for x in logits]), torch.cat([d[1:] for d in documents]))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    return {"logits": torch.cat(logits).detach(), "loss": loss.detach(), **gradients}


def deviation(got: Tensor, want: Tensor) -> float:
    """The largest difference as a share of the largest value: max |got - want| / max |want|."""
    return float((got - want).abs().max() / want.abs().max())


def deviations(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    """By name: "logits", "loss" and every weight, whose gradient is compared."""
    assert got.keys() == want.keys()
    return {name: deviation(got[name], want[name]) for name in want}
