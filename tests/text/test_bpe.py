"""Byte-level BPE files of other people: ids, decoding, packing, rollout, saving. `tokenizers` is the judge."""

import copy
import json
import pickle

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers, trainers

import fastreason as fr
from bench.checks.tokenizer_agreement import RELEASED, disagreements, every_kind, judge_of
from fastreason.text.tokenizer_json import byte_characters

TAGS = ["<question>", "</question>", "<solution>", "</solution>", "<answer>", "</answer>"]
SPECIALS = ["[UNK]", "[PAD]", "[BOS]", "[EOS]", *TAGS]
# GPT-2's way, a way with digits in threes that keeps line ends, and one that cuts at single letters as a pattern that
# was escaped twice does
CUTS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "threes": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                tokenizers.Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"),
                "isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "escaped twice": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r"\\.|[_^]|[{}()]|-| ?\\p{L}+| ?[^\\s\\p{L}\\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}
ALL = [*CUTS, "released"]


def documents(start: int, stop: int) -> list[str]:
    return fr.TaskStream(every_kind(), seed=1)[start:stop].documents


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tokenizers trained on a few documents, one folder for each way to cut."""
    folders = {}
    for name, cut in CUTS.items():
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer, model.decoder = cut, decoders.ByteLevel()
        # without the full alphabet in one of them: some bytes have no token
        alphabet = pre_tokenizers.ByteLevel.alphabet() if name != "threes" else []
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        )
        model.train_from_iterator(documents(0, 300), trainer)
        folders[name] = tmp_path_factory.mktemp("bpe")
        model.save(str(folders[name] / "tokenizer.json"))
    folders["released"] = RELEASED
    return folders


@pytest.fixture(scope="module")
def loaded(files):
    """(ours, the judge) by name."""

    def load(name):
        if not files[name].exists():
            pytest.skip("the reference data are not on this machine (../shared/reference)")
        path = files[name] if files[name].is_file() else files[name] / "tokenizer.json"
        return fr.Tokenizer.from_pretrained(files[name]), tokenizers.Tokenizer.from_file(str(path))

    cache = {}
    return lambda name: cache[name] if name in cache else cache.setdefault(name, load(name))


@pytest.mark.parametrize("name", CUTS)
def test_ids_of_documents_are_those_of_tokenizers(name, loaded):
    assert disagreements(*loaded(name), documents(300, 800)) == []


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["our own", "released"])
def test_ids_of_many_documents_are_those_of_tokenizers(name, count, loaded):
    """`python -m bench.checks.tokenizer_agreement` does a million."""
    ours = fr.Tokenizer.build(["zoo", "school", "festival", "symbolic"]) if name == "our own" else loaded(name)[0]
    judge = judge_of(ours)
    for start in range(0, count, 2000):
        assert disagreements(ours, judge, documents(start, start + 2000)) == []


# what the patterns cut at, specials and what resembles them, other scripts, control characters
TEXT = st.lists(
    st.one_of(
        st.text(alphabet="aspLNe \\(){}[]_^-+=<>.,;:'?0123456789\n\t é数\u00a0\u0085²", max_size=12),
        st.sampled_from([*SPECIALS, " [EOS]", "[eos]", "<answer", "don't", "'ll", "  ", " equals", "12345"]),
        st.text(max_size=6),
    ),
    max_size=8,
).map(lambda parts: "".join(parts).encode("utf-8", "ignore").decode())


@pytest.mark.parametrize("name", ALL)
@given(text=TEXT)
def test_any_text_is_as_in_tokenizers(name, loaded, text):
    ours, judge = loaded(name)
    ids = ours.encode(text)
    assert ids.tolist() == judge.encode(text).ids
    assert ours.decode(ids) == judge.decode(ids.tolist(), skip_special_tokens=False)


@given(ids=st.lists(st.integers(0, 699), max_size=20))
def test_any_ids_decode_as_in_tokenizers(loaded, ids):
    ours, judge = loaded("gpt2")
    assert ours.decode(ids) == judge.decode(ids, skip_special_tokens=False)
    # what no token stands for leaves a mark, where `tokenizers` leaves nothing
    assert ours.decode([*ids, -1, 10**6]) == ours.decode(ids) + 2 * "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("name", ALL)
@given(text=st.binary(max_size=80))
def test_any_bytes_can_be_encoded(name, loaded, text):
    ours, _ = loaded(name)
    ids = ours.encode(text)
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < len(ours))
    if name != "threes":  # every byte has a token
        assert ours.decode(ids) == text.decode("utf-8", "replace")


def test_a_long_piece_takes_no_quadratic_time(loaded):
    ours, judge = loaded("gpt2")
    text = "e" * 200_000
    assert ours.encode(text).tolist() == judge.encode(text).ids


@pytest.mark.parametrize("name", ALL)
def test_packed_documents_are_the_encoded_texts(name, loaded):
    tokenizer, _ = loaded(name)
    stream = fr.TaskStream(every_kind(), seed=4)
    packed = stream.packed(3, 8, 3000, tokenizer, threads=2)
    texts = stream[3 : packed.next_index].documents
    assert len(texts) == len(packed.starts) > 8
    prompt_ends = {tokenizer.encode("<solution>")[0]}
    for text, start, length in zip(texts, packed.starts, packed.lengths, strict=True):
        ids = tokenizer.encode(text)
        np.testing.assert_array_equal(packed.tokens[start : start + length], ids[:length])
        prompt = int(np.argmax(np.isin(ids, list(prompt_ends)))) + 1
        np.testing.assert_array_equal(packed.loss_mask[start : start + length], (np.arange(length) >= prompt))
    filled = np.zeros(8 * 3000, dtype=bool)
    for start, length in zip(packed.starts, packed.lengths, strict=True):
        filled[start : start + length] = True
    assert (packed.tokens[~filled] == tokenizer.pad_id).all()


@pytest.mark.parametrize("name", ALL)
def test_special_tokens_are_known_by_their_text(name, loaded):
    tokenizer, judge = loaded(name)
    for text, token in (
        ("[PAD]", tokenizer.pad_id),
        ("[EOS]", tokenizer.eos_id),
        ("[BOS]", tokenizer.bos_id),
        ("</answer>", tokenizer.answer_close_id),
    ):
        assert token == judge.token_to_id(text)


@pytest.mark.parametrize("name", ["gpt2", "released"])
def test_rollout_grading_and_a_checkpoint_work_with_it(name, loaded, tmp_path):
    tokenizer, _ = loaded(name)
    torch.manual_seed(0)
    config = fr.ModelConfig(
        len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    model = fr.Decoder(config)
    problems = fr.TaskStream(fr.Mixture.uniform(op=[2, 3]), seed=0)[0:3]
    samples = fr.Rollout(model, tokenizer).generate(problems, n=2, max_new_tokens=12)
    assert samples.tokens.shape[0] == 6
    verdicts = fr.grade(problems, samples.tokens, tokenizer=tokenizer)
    assert len(verdicts.verified) == 6 and not verdicts.verified.any()

    # what a perfect model would write, up to and including the stop token
    completions = [tokenizer.encode(d[len(p) :]) for p, d in zip(problems.prompts, problems.documents, strict=True)]
    right = np.full((3, max(map(len, completions))), tokenizer.pad_id, dtype=np.int32)
    for row, ids in zip(right, completions, strict=True):
        assert tokenizer.answer_close_id in ids
        row[: len(ids)] = ids
    assert fr.grade(problems, right, tokenizer=tokenizer).verified.all()

    model.save_pretrained(tmp_path, tokenizer)
    assert fr.Tokenizer.from_pretrained(tmp_path) == tokenizer
    stops = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [tokenizer.answer_close_id, tokenizer.eos_id]
    assert json.loads((tmp_path / "config.json").read_text())["bos_token_id"] == tokenizer.bos_id


def test_transformers_reads_what_is_saved(loaded, tmp_path):
    from transformers import AutoTokenizer

    tokenizer, _ = loaded("gpt2")
    tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = documents(0, 1)[0]
    assert theirs(text)["input_ids"] == tokenizer.encode(text).tolist()
    assert (theirs.pad_token_id, theirs.eos_token_id) == (tokenizer.pad_id, tokenizer.eos_id)


def test_a_tokenizer_pickles(loaded):
    for tokenizer in (loaded("gpt2")[0], fr.Tokenizer.build(["symbolic"])):
        again = pickle.loads(pickle.dumps(tokenizer))
        assert again == tokenizer and again.encode(" Define").tolist() == tokenizer.encode(" Define").tolist()


def test_a_config_names_other_specials(files, tmp_path):
    content = json.loads((files["gpt2"] / "tokenizer.json").read_text())
    text = json.dumps(content).replace("[EOS]", "<|end|>").replace("[PAD]", "<|pad|>")
    (tmp_path / "tokenizer.json").write_text(text)
    without = fr.Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the vocabulary has no token '\[PAD\]' or '\[EOS\]'"):
        without.pad_id  # noqa: B018
    with pytest.raises(ValueError, match="packing needs a tokenizer with a padding token"):
        fr.TaskStream(every_kind()).packed(0, 1, 100, without)
    config = {"eos_token": "<|end|>", "pad_token": {"content": "<|pad|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = fr.Tokenizer.from_pretrained(tmp_path / "tokenizer.json")
    packed = fr.TaskStream(every_kind()).packed(0, 1, 3000, tokenizer)
    assert packed.tokens[packed.lengths[0] - 1] == tokenizer.eos_id == tokenizer.encode("<|end|>")[0]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(normalizer={"type": "NFC"}), "normalizer must be None"),
        (lambda c: c.update(truncation={"max_length": 5}), "truncation must be None"),
        (
            lambda c: c.update(post_processor={"type": "TemplateProcessing"}),
            "post_processor must be None or 'ByteLevel'",
        ),
        (lambda c: c.update(decoder=None), "decoder must be 'ByteLevel', got None"),
        (lambda c: c.pop("pre_tokenizer"), "pre_tokenizer is missing"),
        (lambda c: c["model"].update(ignore_merges=True), "model.ignore_merges must be False"),
        (lambda c: c["model"].update(dropout=0.1), "model.dropout must be None"),
        (lambda c: c["added_tokens"][0].update(lstrip=True), r"lstrip of added token '\[UNK\]' must be False"),
        (lambda c: c["added_tokens"][0].update(id=300), r"added_tokens: '\[UNK\]' has two ids"),
        (
            lambda c: c["model"]["vocab"].update(new=5000),
            "model.vocab and added_tokens are not 0 .. 700: 'new' has 5000",
        ),
        (
            lambda c: c["model"]["merges"].append(["q", "z"]),
            r"\d+, \['q', 'z'\], names 'qz', which has no id",
        ),
        (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space .* must be false"),
        (
            lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
            "Splits by a Regex and then ByteLevel, got 'Whitespace'",
        ),
        (lambda c: c.update(pre_tokenizer={"type": "Sequence", "pretokenizers": []}), "must end with ByteLevel"),
        (
            lambda c: c.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(?i:a)"}, "behavior": "Removed"}),
            "a Split must have behavior 'Isolated'",
        ),
    ],
)
def test_what_a_file_asks_for_in_vain_is_named(change, message, files, tmp_path):
    content = json.loads((files["gpt2"] / "tokenizer.json").read_text())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        fr.Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["add_bos_token", "add_eos_token", "add_prefix_space"])
def test_what_a_config_asks_for_in_vain_is_named(name, files, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((files["gpt2"] / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: True}))
    with pytest.raises(ValueError, match=f"tokenizer_config.json: {name} must be False, got True"):
        fr.Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({name: False}))
    fr.Tokenizer.from_pretrained(tmp_path)


def test_a_pattern_that_is_not_understood_is_named(files, tmp_path):
    content = json.loads((files["gpt2"] / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "(?i:a)"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, copy.copy(content["pre_tokenizer"])]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer.json: pre_tokenizer: regular expression: a group '\(\?i:' is not"):
        fr.Tokenizer.from_pretrained(tmp_path)


def test_merges_may_be_written_as_texts(files, tmp_path, loaded):
    content = json.loads((files["gpt2"] / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = documents(5, 6)[0]
    ours = fr.Tokenizer.from_pretrained(tmp_path)
    assert ours.encode(text).tolist() == loaded("gpt2")[0].encode(text).tolist()


def test_the_bytes_stand_for_what_tokenizers_says():
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    for byte in range(128):
        assert (
            pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(chr(byte))[0][0]
            == byte_characters()[byte]
        )
