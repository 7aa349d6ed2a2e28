"""Hugging Face folders of others: each loads as transformers loads it, or one error names file and field."""

import collections
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import fastreason as fr
from fastreason.evaluation.load_sampler import load_sampler
from fastreason.evaluation.samplers import Sampling
from fastreason.model.hugging_face import WeightsMismatch

from ..qwen2_oracle import deviation
from ..torture.folders import byte_pair_tokenizer, damaged, good_folders, laid_out, outcome, put
from .test_hugging_face import logits_of


@pytest.fixture(scope="module")
def good():
    """Word tokens with weights in one file and in two, then byte pairs likewise."""
    return good_folders()


@pytest.fixture
def folder(good, tmp_path):
    """The second: byte pairs, one file, a head of its own."""
    put(good[2], tmp_path)
    return tmp_path


def change(path, **changes):
    """Fields of a JSON file by their dotted names; ... removes one."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *above, last = name.split("__")
        node = content
        for part in above:
            node = node[int(part) if part.isdigit() else part]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    path.write_text(json.dumps(content))


# ---- damaged in any way


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
def test_a_damaged_folder_loads_or_is_refused_by_one_error(good, random):
    """A few of the cases that `python -m tests.torture.folders` tries by the thousand."""
    files, _ = damaged(random, good)
    with laid_out(files) as folder:
        outcome(folder)


def test_the_damage_reaches_every_file_and_both_outcomes(good):
    """Else the test above would show nothing."""
    from random import Random

    outcomes, places = collections.Counter(), set()
    for seed in range(100):
        files, done = damaged(Random(seed), good)
        places |= {what.split()[-1] for what in done}
        with laid_out(files) as folder:
            outcomes.update(outcome(folder).split(", "))
    assert min(outcomes["loaded"], outcomes["refused"]) > 20
    assert places >= {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}
    assert places >= {"model.safetensors", "model.safetensors.index.json", "part-0.safetensors", "part-1.safetensors"}


# ---- sizes that are only claimed


@pytest.mark.parametrize(
    "field, value, weight",
    [
        ("num_hidden_layers", 10**7, "model.layers.2.self_attn.q_proj.weight"),
        ("num_hidden_layers", 3, "model.layers.2.self_attn.q_proj.weight"),
        ("vocab_size", 2**31 - 1, "model.embed_tokens.weight"),
        ("intermediate_size", 2**31 - 1, "model.layers.0.mlp.gate_proj.weight"),
        ("head_dim", 10**8, "model.layers.0.self_attn.q_proj.weight"),
        ("num_attention_heads", 10**8, "model.layers.0.self_attn.q_proj.weight"),
    ],
)
@pytest.mark.parametrize("load", [fr.Decoder.from_pretrained, lambda folder: load_sampler(folder, Sampling())])
def test_claimed_sizes_are_compared_with_the_weights_before_anything_is_built(
    folder, field, value, weight, load, monkeypatch
):
    change(folder / "config.json", **{field: value})
    monkeypatch.setattr("fastreason.model.decoder.Decoder", lambda config: pytest.fail("was built"))
    with pytest.raises(WeightsMismatch, match=rf"{folder}/model\.safetensors: weights: {weight} must have shape"):
        load(folder)


@pytest.mark.parametrize("name, inside", [("num_hidden_layers", False), ("n_layer", False), ("num_layers", True)])
def test_transformers_builds_no_layers_that_have_no_weights(folder, name, inside):
    """The models that our decoder does not compute."""
    claimed = {"model_type": "llama", name: 10**7}
    (folder / "config.json").write_text(json.dumps({"text_config": claimed} if inside else claimed))
    with pytest.raises(
        ValueError, match=f"{name} is 10000000, but there are not that many weights; nor does our decoder"
    ):
        load_sampler(folder, Sampling())


def test_transformers_draws_no_weights_that_are_missing(folder):
    """It would fill them with chance, and an evaluation would measure that."""
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"it has no weight model\.norm\.weight"):
        load_sampler(folder, Sampling(), "transformers")
    with pytest.raises(WeightsMismatch, match=r"model\.norm\.weight must have shape \(8,\), .*, got nothing"):
        load_sampler(folder, Sampling())


# ---- single faults of each kind, and what the error says


@pytest.mark.parametrize(
    "file, changes, message",
    [
        ("config.json", {"layer_types": [["full_attention"]]}, "layer_types.0 must be a string, got"),
        ("config.json", {"rope_parameters__rope_theta": []}, r"rope_parameters.rope_theta must be a number, got \[\]"),
        ("config.json", {"rope_theta": 10**400}, "rope_theta must be a number, got 1000"),
        ("config.json", {"hidden_size": -8}, "hidden_size must be greater than or equal to 1, got -8"),
        ("config.json", {"model_type": {}}, r"model_type must be 'qwen2', got \{\}"),
        ("config.json", {"new": {"a": {"b": {"c": {"d": {}}}}}}, r"new is an unknown field, got \{'a': \{'b': \{'c'"),
        ("tokenizer.json", {"model": 3}, "model must be an object, got 3"),
        ("tokenizer.json", {"model__vocab__a": [1]}, r"model.vocab.a must be an integer, got \[1\]"),
        ("tokenizer.json", {"model__merges": ["a b c"]}, "model.merges.0 must be two tokens, got 'a b c'"),
        ("tokenizer.json", {"model__merges": [["a", 1]]}, r"model.merges.0 must be two tokens, got \['a', 1\]"),
        ("tokenizer.json", {"added_tokens__0__content": ...}, "added_tokens.0.content is missing"),
        ("tokenizer.json", {"pre_tokenizer": None}, "pre_tokenizer must be Splits by a Regex and then ByteLevel"),
        ("tokenizer.json", {"pre_tokenizer__pretokenizers": [3]}, "pre_tokenizer.pretokenizers.0 must be an object"),
        ("tokenizer.json", {"post_processor": {"single": 1}}, "post_processor.single must be a list, got 1"),
        ("tokenizer_config.json", {"pad_token": [1]}, r"pad_token must be a token, got \[1\]"),
        ("tokenizer_config.json", {"eos_token": {"content": 3}}, r"eos_token must be a token, got \{'content': 3\}"),
    ],
    ids=str,
)
def test_the_error_names_file_and_field(folder, file, changes, message):
    change(folder / file, **changes)
    load = fr.Decoder.from_pretrained if file == "config.json" else fr.Tokenizer.from_pretrained
    with pytest.raises(ValueError, match=f"^{folder}: {file}: {message}"):
        load(folder)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read: Expecting value"),
        (b'{"a": 1', "cannot be read: Expecting ',' delimiter"),
        (b'{"a": "\xff"}', "cannot be read: 'utf-8' codec can't decode"),
        (b'{"a": NaN}', "cannot be read: NaN is not a number that JSON allows"),
        (b'{"a": 1e999}', "cannot be read: 1e999 is not a number that JSON allows"),
        (b'{"a": "\\uD800"}', "cannot be read: 'utf-8' codec can't encode"),
        (b'{"a\\udfff": 1}', "cannot be read: 'utf-8' codec can't encode"),
        (b'{"a": 1, "b": 2, "a": 1}', "cannot be read: field 'a' appears twice"),
        (b"[" * 200_000, "cannot be read: it is nested too deeply"),
        (b'{"a":' * 200_000, "cannot be read: it is nested too deeply"),
        (b"[[[[[[1]]]]]]", r"must hold an object, got \[\[\[\[\.\.\.\]\]\]\]"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_what_is_no_json_is_named(folder, file, content, message):
    (folder / file).write_bytes(content)
    load = fr.Decoder.from_pretrained if file == "config.json" else fr.Tokenizer.from_pretrained
    with pytest.raises(ValueError, match=f"^{folder / file} {message}"):
        load(folder)


@pytest.mark.parametrize("length", [250, 256, 5000])
def test_a_name_longer_than_any_file_is_reported_short(folder, length):
    """Of a shard, of a model and of a tokenizer."""
    index = {"weight_map": {"model.embed_tokens.weight": "x" * length}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        ValueError, match=r"model\.safetensors\.index\.json: .*(does not exist|File name too long)"
    ) as error:
        fr.Decoder.from_pretrained(folder)
    assert len(str(error.value)) < 1000
    for load in (fr.Decoder.from_pretrained, fr.Tokenizer.from_pretrained):
        with pytest.raises(ValueError, match=r"(does not exist|File name too long)$") as error:
            load(folder / ("x" * length))
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_what_is_no_file_is_not_opened(folder, file):
    """A pipe would be waited for, a device or a sparse file read until memory ends."""
    load = fr.Tokenizer.from_pretrained if file.startswith("tokenizer") else fr.Decoder.from_pretrained
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(ValueError, match=f"^{folder / file} is not a regular file"):
        load(folder)
    (folder / file).unlink()
    (folder / file).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"^{folder / file} is not a regular file"):
        load(folder)
    (folder / file).unlink()
    with (folder / file).open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ValueError, match=f"^{folder / file} (has more than|cannot be read)"):
        load(folder)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "..", ".", "", "part-0.safetensors\n", "a\0"])
def test_an_index_names_files_beside_it(good, tmp_path, name):
    put(good[3], tmp_path)
    change(tmp_path / "model.safetensors.index.json", weight_map={"model.norm.weight": name})
    with pytest.raises(ValueError, match=r"index\.json: weight_map must name files beside it, got"):
        fr.Decoder.from_pretrained(tmp_path)


# ---- as transformers does


def test_a_shared_head_may_stand_alone(good, tmp_path):
    from transformers import Qwen2ForCausalLM

    put(good[1], tmp_path)
    tensors = {**load_file(tmp_path / "part-0.safetensors"), **load_file(tmp_path / "part-1.safetensors")}
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs, info = Qwen2ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    ours, tokens = fr.Decoder.from_pretrained(tmp_path), torch.arange(9)
    assert ours.head is None
    assert deviation(logits_of(ours, tokens), logits_of(theirs, tokens)) < 1e-6
    # a head of its own needs both
    change(tmp_path / "config.json", tie_word_embeddings=False)
    with pytest.raises(WeightsMismatch, match=r"model\.embed_tokens\.weight must have shape .*, got nothing"):
        fr.Decoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("config", [None, {}, {"pad_token": None, "eos_token": "[EOS]"}], ids=str)
def test_without_a_padding_token_the_end_token_pads(tmp_path, config):
    """In rollouts, grading, packing, and in what is saved; as transformers' `generate` does."""
    tokenizer = byte_pair_tokenizer(("[BOS]", "[EOS]", "</answer>"))
    if config is not None:
        tokenizer = type(tokenizer)(tokenizer.content, config)
    assert tokenizer.pad_id == tokenizer.eos_id
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), hidden_size=8, num_hidden_layers=1, max_position_embeddings=400))
    model.reset_parameters(0)
    stream = fr.TaskStream(fr.Mixture.uniform(op=[2], themes=["symbolic"]), seed=0)
    samples = fr.Rollout(model, tokenizer).generate(stream[0:2], n=2, max_new_tokens=5)
    assert len(fr.grade(stream[0:2], samples.tokens, tokenizer=tokenizer).verified) == 4
    packed = stream.packed(0, 2, 300, tokenizer)
    filled = np.zeros(600, dtype=bool)
    for start, length in zip(packed.starts, packed.lengths, strict=True):
        filled[start : start + length] = True
    assert (packed.tokens[~filled] == tokenizer.eos_id).all() and not packed.loss_mask[~filled].any()
    model.save_pretrained(tmp_path, tokenizer)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["pad_token"] == "[EOS]"
    assert json.loads((tmp_path / "generation_config.json").read_text())["pad_token_id"] == tokenizer.eos_id
    assert fr.Tokenizer.from_pretrained(tmp_path) == tokenizer
    settings = dict(temperature=0, max_new_tokens=6)
    ours, theirs = (load_sampler(tmp_path, Sampling(**settings), engine) for engine in ("fastreason", "transformers"))
    texts = [[found.text(row) for row in range(2)] for found in (s.sample(stream[0:2], 1, 0) for s in (ours, theirs))]
    assert texts[0] == texts[1]
