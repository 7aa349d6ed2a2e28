"""The decoder against transformers' Qwen2, and decoding step by step against one forward pass."""

import pytest
import torch
from fastreason.kernels import Segments

import fastreason as fr
from fastreason.pretrained import model_from_hf, model_to_hf

SHAPES = {
    "tiny": fr.ModelConfig.preset("tiny", vocab_size=50),
    "one key-value head": fr.ModelConfig(vocab_size=31, num_attention_heads=4, num_key_value_heads=1),
    "all heads": fr.ModelConfig(vocab_size=31, num_attention_heads=4, num_key_value_heads=4, rope_theta=10000.0),
}


def random_model(config: fr.ModelConfig, dtype=torch.float64, seed=0) -> fr.Decoder:
    """Every weight random, so that no term is hidden behind a zero."""
    model = fr.Decoder(config)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)
    return model.to(dtype)


def qwen2(model: fr.Decoder):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hf_config, tensors = model_to_hf(model)
    theirs = Qwen2ForCausalLM(Qwen2Config(**hf_config, attn_implementation="eager")).to(model.embedding.weight.dtype)
    missing = theirs.load_state_dict(tensors, strict=False)
    assert missing.missing_keys == ["lm_head.weight"]
    assert not missing.unexpected_keys
    theirs.tie_weights()
    return theirs.eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-6), (torch.float32, 2e-4)])
def test_logits_are_those_of_transformers(shape, dtype, tolerance):
    # transformers computes norms and angles in float32 whatever the model's dtype
    model = random_model(SHAPES[shape], dtype)
    theirs = qwen2(model)
    g = torch.Generator().manual_seed(1)
    documents = [torch.randint(model.config.vocab_size, (n,), generator=g) for n in (9, 1, 14, 5)]
    ours = model.logits(model(torch.cat(documents), Segments.from_lengths([len(d) for d in documents])))
    with torch.no_grad():
        expected = torch.cat([theirs(d[None]).logits[0] for d in documents])
    torch.testing.assert_close(ours.detach(), expected, atol=tolerance, rtol=tolerance)


def test_gradients_are_those_of_transformers():
    model = random_model(SHAPES["tiny"])
    theirs = qwen2(model)
    tokens = torch.randint(50, (12,), generator=torch.Generator().manual_seed(2))
    logits = model.logits(model(tokens, Segments.from_lengths([12])))
    torch.nn.functional.cross_entropy(logits[:-1], tokens[1:]).backward()
    theirs(tokens[None], labels=tokens[None]).loss.backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    hf = dict(theirs.named_parameters())
    torch.testing.assert_close(ours["embedding.weight"], hf["model.embed_tokens.weight"].grad, atol=1e-6, rtol=1e-3)
    layer = "model.layers.1."
    qkv = torch.cat([hf[f"{layer}self_attn.{n}_proj.weight"].grad for n in "qkv"])
    torch.testing.assert_close(ours["blocks.1.qkv.weight"], qkv, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(
        ours["blocks.1.mlp_norm"], hf[layer + "post_attention_layernorm.weight"].grad, atol=1e-6, rtol=1e-3
    )


def test_a_group_is_its_sequences():
    model = random_model(SHAPES["tiny"])
    tokens = torch.randint(50, (3 + 4 + 2,), generator=torch.Generator().manual_seed(3))
    together = model(tokens, Segments.from_groups([3], torch.tensor([[4, 2]])))
    first = model(tokens[:7], Segments.from_lengths([7]))
    second = model(tokens[[0, 1, 2, 7, 8]], Segments.from_lengths([5]))
    torch.testing.assert_close(together[:7], first, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(together[7:], second[3:], atol=1e-10, rtol=1e-10)


def test_documents_do_not_see_each_other():
    model = random_model(SHAPES["tiny"])
    tokens = torch.arange(10)
    segments = Segments.from_lengths([4, 6])
    before = model(tokens, segments)
    changed = tokens.clone()
    changed[1] = 40
    after = model(changed, segments)
    assert torch.equal(before[4:], after[4:])
    assert not torch.equal(before[1:4], after[1:4])


def test_weights_are_a_function_of_the_seed():
    models = [fr.Decoder(SHAPES["tiny"]) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        model.reset_parameters(seed)
    a, b, c = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    # each block starts as the identity
    hidden = models[0](torch.arange(5), Segments.from_lengths([5]))
    embedded = models[0].embedding(torch.arange(5))
    torch.testing.assert_close(hidden, embedded / (embedded.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def test_presets_have_the_sizes_they_are_named_after():
    size = {name: fr.Decoder(fr.ModelConfig.preset(name)).num_parameters for name in ("tiny", "10m", "100m")}
    assert 0.14e6 < size["tiny"] < 0.2e6
    assert 9e6 < size["10m"] < 12e6
    assert 95e6 < size["100m"] < 115e6


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vocab_size": 0}, "vocab_size must be positive, got 0"),
        ({"hidden_size": 62}, "even multiple of num_attention_heads, got 62 and 4"),
        ({"hidden_size": 36}, "even multiple of num_attention_heads, got 36 and 4"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads, got 4 and 3"),
    ],
)
def test_refuses_impossible_shapes(change, message):
    with pytest.raises(ValueError, match=message):
        fr.ModelConfig(**({"vocab_size": 10} | change))
    with pytest.raises(ValueError, match="name must be one of tiny, 10m, 100m, got 'huge'"):
        fr.ModelConfig.preset("huge")


def test_from_hf_refuses_what_is_not_this_model():
    config, tensors = model_to_hf(random_model(SHAPES["tiny"]))
    with pytest.raises(ValueError, match="need model_type qwen2"):
        model_from_hf(config | {"model_type": "llama"}, tensors)
    with pytest.raises(ValueError, match=r"model.norm.weight must have shape \(64,\), got nothing"):
        model_from_hf(config, {k: v for k, v in tensors.items() if k != "model.norm.weight"})
    with pytest.raises(ValueError, match="unknown weight 'extra'"):
        model_from_hf(config, tensors | {"extra": torch.zeros(1)})
