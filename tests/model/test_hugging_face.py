"""Hugging Face folders in both directions: which configurations are read, and what others need of what is saved."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.model.config import config_from_hf
from fastreason.model.decoder import load_model, model_from_hf, model_to_hf

from ..conftest import REFERENCE
from ..qwen2_oracle import deviation, drawn_model

SMALL = fr.ModelConfig(31, num_hidden_layers=2)
ROPE = {"rope_type": "default", "rope_theta": 5000.0}
MIX = fr.Mixture.uniform(op=[3], themes=["symbolic", "zoo"])


def config_json(**changes):
    """A config.json of SMALL; a field that is changed to ... is left out."""
    content = model_to_hf(fr.Decoder(SMALL))[0] | changes
    return {name: value for name, value in content.items() if value is not ...}


def logits_of(model, tokens):
    if isinstance(model, fr.Decoder):
        return model.logits(model(tokens, Segments.from_lengths([len(tokens)]))).detach()
    with torch.no_grad():
        return model.eval()(tokens[None]).logits[0]


# ---- which configurations are read


def test_what_a_config_leaves_out_is_as_in_transformers():
    from transformers import Qwen2Config

    theirs = Qwen2Config()
    ours = config_from_hf({"model_type": "qwen2"})
    for field in dataclasses.fields(fr.ModelConfig):
        if field.name == "rope_theta":
            assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
        elif field.name == "head_dim":
            assert ours.head_dim == theirs.hidden_size // theirs.num_attention_heads
        else:
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


def test_what_transformers_writes_of_any_config_is_known():
    """Every field that this version of transformers may put into a config.json of Qwen2."""
    from transformers import Qwen2Config

    content = Qwen2Config(pad_token_id=0).to_dict() | json.loads(Qwen2Config().to_json_string(use_diff=True))
    assert config_from_hf(content | {"architectures": ["Qwen2ForCausalLM"]}).hidden_size == 4096


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5000.0},
        {"rope_theta": 5000, "rope_scaling": None},
        {"rope_theta": 5000.0, "rope_scaling": {"type": "default"}},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 5000.0}},
        {"rope_parameters": ROPE},
        {"rope_parameters": ROPE, "rope_theta": 5000.0},
    ],
    ids=str,
)
def test_the_rotary_base_may_stand_in_three_places(rope):
    assert config_from_hf(config_json(rope_theta=..., rope_parameters=...) | rope).rope_theta == 5000.0


def test_the_released_config_is_read():
    if not REFERENCE.is_dir():
        pytest.skip("the reference data are not on this machine (../shared/reference)")
    assert fr.ModelConfig.from_pretrained(REFERENCE / "model_config.json") == fr.ModelConfig.preset("100m")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "llama"}, "model_type must be 'qwen2', got 'llama'"),
        ({"model_type": ...}, "model_type must be 'qwen2', got None"),
        (
            {"architectures": ["Qwen2Model"]},
            r"architectures must be \['Qwen2ForCausalLM'\] or None, got \['Qwen2Model'\]",
        ),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"attention_bias": False}, "attention_bias must be True or None, got False"),
        ({"attention_dropout": 0.1}, "attention_dropout must be 0.0 or None, got 0.1"),
        ({"use_sliding_window": True}, "use_sliding_window must be False or None, got True"),
        ({"use_mrope": True}, "use_mrope must be False or None, got True"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config must be None, got \{'bits': 4\}"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types must all be 'full_attention', got"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.rope_type must be 'default', got 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type must be 'default', got 'yarn'"),
        ({"rope_parameters": ROPE | {"factor": 2.0}}, "rope_parameters.factor is an unknown field, got 2.0"),
        ({"rope_parameters": "none"}, "rope_parameters must be an object, got 'none'"),
        ({"rope_parameters": ROPE}, r"there must be one rope_theta, got \{'rope_theta': 1000000.0, 'rope_param"),
        ({"num_experts": 8}, "num_experts is an unknown field, got 8; remove it if"),
        ({"hidden_size": "64"}, "hidden_size must be an integer, got '64'"),
        ({"hidden_size": 64.0}, "hidden_size must be an integer, got 64.0"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false, got 1"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be a number, got '1e-6'"),
        ({"head_dim": 7}, "head_dim must be even and positive, or 0, got 7"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads, got 4 and 3"),
    ],
)
def test_a_config_that_the_decoder_does_not_compute_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config_from_hf(config_json(**changes))
    fr.Decoder(SMALL).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config_json(**changes)))
    for load in (fr.Decoder.from_pretrained, fr.ModelConfig.from_pretrained):
        with pytest.raises(ValueError, match=f"{tmp_path}: .*{message}"):
            load(tmp_path)


def test_null_key_value_heads_are_as_many_as_query_heads():
    assert config_from_hf(config_json(num_key_value_heads=None)).num_key_value_heads == 4


def test_weights_that_do_not_fit_are_named(tmp_path):
    config, tensors = model_to_hf(drawn_model(SMALL))
    for change, message in [
        ({"model.norm.weight": None}, r"model.norm.weight must have shape \(64,\), .*, got nothing"),
        (
            {"model.norm.weight": torch.ones(63)},
            r"model.norm.weight must have shape \(64,\), .*, got \(63,\)",
        ),
        ({"model.norm.weight": torch.ones(64).int()}, r"model.norm.weight must be .*, got torch.int32"),
        (
            {"model.layers.2.mlp.up_proj.weight": torch.ones(1)},
            "'model.layers.2.mlp.up_proj.weight' is not a weight of",
        ),
        ({"lm_head.weight": torch.ones(31, 64)}, "lm_head.weight differs from the embedding, so tie_word_embeddings"),
    ]:
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        with pytest.raises(ValueError, match=f"weights: {message}"):
            model_from_hf(config, changed)
    with pytest.raises(ValueError, match=r"lm_head.weight must have shape \(31, 64\), .*, got nothing"):
        model_from_hf(config | {"tie_word_embeddings": False}, tensors)
    with pytest.raises(ValueError, match=r"load_model: dtype must be torch.float32 or .*, got torch.int64"):
        model_from_hf(config, tensors, torch.int64)
    # a shared head that was written all the same
    shared = model_from_hf(config, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert shared.head is None


# ---- from transformers to us


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head_dim", [None, 24])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharded", [False, True])
def test_what_transformers_saves_is_read(tmp_path, tied, head_dim, stored, sharded):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    own = {} if head_dim is None else {"head_dim": head_dim}
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=tied,
        rope_parameters=ROPE,
        **own,
    )
    theirs = Qwen2ForCausalLM(config).to(stored)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == sharded
    ours = fr.Decoder.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert (ours.head is None) == tied and ours.config.head_dim == (head_dim or 8)
    tokens = torch.arange(11)
    # read again: theirs.float() would keep the rotary angles that `to(stored)` rounded
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert deviation(logits_of(ours, tokens), logits_of(theirs, tokens)) < 1e-6
    half = fr.Decoder.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert torch.equal(half.embedding.weight, ours.embedding.weight.bfloat16())


def test_a_sharded_folder_that_is_not_whole_is_named(tmp_path):
    config, tensors = model_to_hf(drawn_model(SMALL))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        load_model(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    save_file(tensors, tmp_path / "a.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "a.safetensors")}))
    assert torch.equal(load_model(tmp_path).embedding.weight, tensors["model.embed_tokens.weight"])
    for content, message in [
        ({}, "index.json: weight_map is missing"),
        ({"weight_map": {"model.norm.weight": 3}}, r"weight_map.'model.norm.weight' must be a string, got 3"),
        ({"weight_map": {"model.norm.weight": "../a.safetensors"}}, r"must name files beside it, got '\.\./a\.safet"),
        ({"weight_map": {"model.norm.weight": "b.safetensors"}}, r"b\.safetensors does not exist"),
    ]:
        index.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path)


# ---- from us to transformers and what reads its folders


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"head_dim": 24}], ids=str)
def test_transformers_reads_what_we_save(tmp_path, changes, dtype, tolerance):
    from transformers import AutoModelForCausalLM, Qwen2ForCausalLM

    ours = drawn_model(dataclasses.replace(SMALL, **changes), dtype)
    ours.save_pretrained(tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is Qwen2ForCausalLM and theirs.dtype == dtype
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.arange(20)
    assert deviation(logits_of(ours, tokens), logits_of(theirs, tokens)) < tolerance
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (ours.head is not None)
    again = fr.Decoder.from_pretrained(tmp_path, dtype=dtype)
    assert again.config == ours.config == fr.ModelConfig.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    folder = tmp_path_factory.mktemp("saved")
    model = drawn_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    model.save_pretrained(folder, tokenizer)
    return folder, model, tokenizer


def test_the_folder_says_what_its_readers_ask(saved):
    """The fields that transformers 4 and 5, vLLM and TRL look at."""
    folder, model, tokenizer = saved
    names = {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names | {"README.md", "tokenization_fastreason.py"}
    config, generation, words = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("config", "generation_config", "tokenizer_config")
    )
    wanted = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "dtype": "float32",
        "torch_dtype": "float32",
        "rope_theta": model.config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.config.rope_theta},
        "max_position_embeddings": model.config.max_position_embeddings,
        "vocab_size": len(tokenizer),
        "head_dim": 32,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "use_cache": True,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    assert {name: config[name] for name in wanted} == wanted
    assert generation == {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": [tokenizer.answer_close_id, tokenizer.eos_id],
        "pad_token_id": tokenizer.pad_id,
        "do_sample": True,
    }
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (words["eos_token"], words["pad_token"]) == ("[EOS]", "[PAD]")


def test_auto_tokenizer_gives_our_ids(saved):
    """Of a Qwen2 model transformers 5 takes the word pieces of Qwen2, unless the folder names a class."""
    from transformers import AutoTokenizer

    folder, _, tokenizer = saved
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in fr.TaskStream(MIX, seed=1)[0:4].documents:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids.tolist()
        assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (
        tokenizer.eos_id,
        tokenizer.pad_id,
        tokenizer.bos_id,
    )


def test_auto_tokenizer_gives_our_ids_with_the_code_of_the_folder(saved, tmp_path):
    """In a process of its own: transformers copies such code into a cache whose place it reads once."""
    code = (
        "import sys; from transformers import AutoTokenizer;"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True);"
        "print(type(tokenizer).__name__, *tokenizer(sys.argv[2])['input_ids'])"
    )
    text = fr.TaskStream(MIX, seed=1)[0].documents[0]
    out = subprocess.run(
        [sys.executable, "-c", code, str(saved[0]), text],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[0] == "FastreasonTokenizer"
    assert [int(x) for x in out[1:]] == saved[2].encode(text).tolist()


def test_transformers_generates_what_we_generate(saved):
    """Greedily, with nothing but the folder: it stops where the generation config says."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, model, tokenizer = saved
    theirs, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    problems = fr.TaskStream(MIX, seed=3)[0:4]
    ours = fr.Rollout(model, tokenizer).generate(problems, temperature=0.0, max_new_tokens=12)
    for row, prompt in enumerate(problems.prompts):
        ids = words(prompt, return_tensors="pt")
        out = theirs.generate(**ids, do_sample=False, max_new_tokens=12)[0, ids["input_ids"].shape[1] :]
        assert ours.tokens[row, : ours.lengths[row]].tolist() == out.tolist()


@pytest.mark.parametrize("which", ["ours", "released"])
def test_a_tokenizer_that_transformers_saved_is_read(which, tmp_path):
    from transformers import PreTrainedTokenizerFast

    if which == "ours":
        fr.Tokenizer.for_mixtures([MIX]).save_pretrained(tmp_path)
    elif not REFERENCE.is_dir():
        pytest.skip("the reference data are not on this machine (../shared/reference)")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path if which == "ours" else REFERENCE)
    theirs(["a", "b c"], padding=True)  # which it remembers in the file
    theirs.save_pretrained(tmp_path / "again")
    ours = fr.Tokenizer.from_pretrained(tmp_path / "again")
    for text in fr.TaskStream(MIX, seed=2)[0:20].documents:
        ids = ours.encode(text)
        assert ids.tolist() == theirs(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids) == text
    assert (ours.eos_id, ours.pad_id, ours.bos_id) == (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id)


def test_a_tokenizer_without_some_tokens_is_saved_beside_a_model(tmp_path):
    """Other people's tokenizers know no </answer>, and need not have a token to begin with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    theirs = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    theirs.add_special_tokens(["<|end|>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "tokenizer_class": "Mine"}))
    tokenizer = fr.Tokenizer.from_pretrained(tmp_path)
    fr.Decoder(dataclasses.replace(SMALL, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "m", tokenizer)
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [256], "pad_token_id": 256, "do_sample": True}
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["eos_token_id"] == 256 and "bos_token_id" not in config
    assert json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())["eos_token"] == "<|end|>"
    again = fr.Tokenizer.from_pretrained(tmp_path / "m")
    assert again == tokenizer and np.array_equal(again.encode("a<|end|>"), tokenizer.encode("a<|end|>"))


# ---- a head of its own, elsewhere in the library


def test_a_head_of_its_own_is_trained_counted_and_drawn():
    from torch.utils.flop_counter import FlopCounterMode

    from fastreason.model.flop import train_flop
    from fastreason.training.optimizer import Muon, Optimizer, OptimSettings

    config = dataclasses.replace(SMALL, tie_word_embeddings=False, head_dim=24)
    model = fr.Decoder(config)
    model.reset_parameters(0)
    assert model.head is not None
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(model.head.weight, model.embedding.weight)
    assert (
        model.num_parameters
        == fr.Decoder(dataclasses.replace(config, tie_word_embeddings=True)).num_parameters + 31 * 64
    )

    # documents of one token read one key
    with FlopCounterMode(display=False) as counter:
        model.logits(model(torch.arange(10), Segments.from_lengths([1] * 10))[:3]).sum().backward()
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op) in ("aten.mm", "aten.addmm"))
    attention = 3 * 4 * config.num_hidden_layers * 4 * 24 * 10
    assert train_flop(config, np.ones(10), num_logits=3) - attention == counted

    optimizer = Optimizer(model, OptimSettings(weight_decay=0.1))
    assert isinstance(optimizer.matrices, Muon)
    muon = {optimizer.names[p] for group in optimizer.matrices.param_groups for p in group["params"]}
    assert muon == {name for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    undecayed = {
        optimizer.names[p] for g in optimizer.others.param_groups if not g["weight_decay"] for p in g["params"]
    }
    assert {"head.weight", "embedding.weight"} <= undecayed
    both = Optimizer(model, OptimSettings(weight_decay=0.1, decay_embeddings=True))
    decayed = {both.names[p] for g in both.others.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {"head.weight", "embedding.weight"}
