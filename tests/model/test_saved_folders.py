"""What we write beside weights: all that a decoder of others needs, readable by whoever the umask lets in."""

import json
import os
import stat

import pytest

import fastreason as fr
from fastreason.integrations.text_reward import questions
from fastreason.training import checkpoint
from fastreason.training.optimizer import Optimizer, OptimSettings

from ..qwen2_oracle import drawn_model
from ..torture.folders import byte_pair_tokenizer

transformers = pytest.importorskip("transformers")

# every style of prompt: symbolic, published in both modes and in two depths
WORDS = fr.Mixture.uniform(op=[2, 3, 5], themes=["zoo"], depths=[2, 3], modes=["forward", "reverse"])
MIX = 0.5 * WORDS + 0.5 * fr.Mixture.uniform(op=[2, 3, 5], themes=["symbolic"])
TAGGED = ("[PAD]", "[BOS]", "[EOS]", "<question>", "</question>", "<solution>", "</solution>", "<answer>", "</answer>")


@pytest.fixture(scope="module", params=["words", "byte pairs"])
def saved(request, tmp_path_factory):
    """A folder of a model that says something else after every prompt, with either kind of tokenizer."""
    tokenizer = fr.Tokenizer.for_mixtures([MIX]) if request.param == "words" else byte_pair_tokenizer(TAGGED)
    config = fr.ModelConfig(len(tokenizer), hidden_size=32, num_hidden_layers=1, max_position_embeddings=4000)
    model = drawn_model(config)
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder, tokenizer)
    return folder, model, tokenizer


def test_transformers_generates_in_batches_what_it_generates_one_by_one(saved):
    """Greedily, prompts of many lengths, nothing but the folder; and both are what `Rollout` generates."""
    folder, model, tokenizer = saved
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    problems = fr.TaskStream(MIX, seed=3)[0:6]
    new = 10

    def continued(prompts):
        ids = words(prompts, return_tensors="pt", padding=True)
        return theirs.generate(**ids, do_sample=False, max_new_tokens=new)[:, ids["input_ids"].shape[1] :].tolist()

    together = continued(problems.prompts)
    ours = fr.Rollout(model, tokenizer).generate(problems, temperature=0.0, max_new_tokens=new)
    assert len({len(tokenizer.encode(prompt)) for prompt in problems.prompts}) > 3
    for row, prompt in enumerate(problems.prompts):
        length = ours.lengths[row]
        assert together[row][:length] == ours.tokens[row, :length].tolist() == continued([prompt])[0]
        assert set(together[row][length:]) <= {tokenizer.pad_id}
    assert len({tuple(row) for row in together}) >= 3


def test_the_tokenizer_says_where_to_pad_and_how_much_the_model_takes(saved):
    folder, model, tokenizer = saved
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words.padding_side == "left" and words.pad_token_id == tokenizer.pad_id
    assert words.model_max_length == model.config.max_position_embeddings == 4000


@pytest.mark.parametrize("config", [{"padding_side": "right", "model_max_length": 7, "chat_template": "mine"}, None])
def test_what_others_say_of_their_tokenizer_is_kept_where_it_does_no_harm(tmp_path, config):
    """The side to pad on and the positions are the model's."""
    tokenizer = byte_pair_tokenizer()
    tokenizer = type(tokenizer)(tokenizer.content, config)
    drawn_model(fr.ModelConfig(len(tokenizer), num_hidden_layers=1)).save_pretrained(tmp_path, tokenizer)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["padding_side"] == "left" and saved["model_max_length"] == 2048
    assert (saved["chat_template"] == "mine") == (config is not None)
    tokenizer.save_pretrained(tmp_path)  # alone, of no model
    alone = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert alone.get("model_max_length") == (config or {}).get("model_max_length")


def test_a_question_in_the_chat_template_is_our_prompt(saved):
    """To the letter and to the id; a solution behind it is our document."""
    folder, _, tokenizer = saved
    words = transformers.AutoTokenizer.from_pretrained(folder)
    batch = fr.TaskStream(MIX, seed=1)[0:40]
    assert len({(cell.theme, cell.mode, cell.depth) for cell in batch.cells}) == 5
    for question, prompt, document in zip(questions(batch), batch.prompts, batch.documents, strict=True):
        asked = [{"role": "user", "content": question}]
        assert words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == prompt
        ids = words.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == tokenizer.encode(prompt).tolist()
        answered = [*asked, {"role": "assistant", "content": document.removeprefix(prompt.removesuffix(" <solution>"))}]
        assert words.apply_chat_template(answered, tokenize=False) == document


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_that_the_umask_gives(tmp_path, umask, mode):
    """safetensors writes its own for its owner alone; a server runs under another user."""
    tokenizer = fr.Tokenizer.build(["symbolic"], max_value=9)
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), hidden_size=16, num_hidden_layers=1))
    optimizer = Optimizer(model, OptimSettings())
    model.logits(model.embedding.weight[:2]).sum().backward()
    before = os.umask(umask)
    try:
        checkpoint.save_checkpoint(tmp_path / "c", model, tokenizer, optimizer, {"step": 1})
        model.save_pretrained(tmp_path / "c", tokenizer)  # over what is there
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "c").rglob("*") if path.is_file()]
    assert {"model.safetensors", "optimizer.safetensors", "config.json"} <= {path.name for path in files}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}
