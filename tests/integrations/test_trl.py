"""TRL trains on our reward. Needs `make test-integrations`; skipped where the library is absent."""

import warnings

import pytest
import torch

import fastreason as fr

pytest.importorskip("datasets", reason="the library datasets is not installed (make test-integrations)")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl", reason="the library trl is not installed (make test-integrations)")

from fastreason.integrations.trl import prompts, reward

# the warnings of TRL and what it imports are not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")
STREAM = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo", "symbolic"]), seed=5, split="rl")


def completions_of(batch: fr.ProblemBatch) -> list[str]:
    return [
        document.removeprefix(prompt).removesuffix("[EOS]")
        for document, prompt in zip(batch.documents, batch.prompts, strict=True)
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = fr.Tokenizer.build(["zoo", "symbolic"])
    torch.manual_seed(0)
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)))
    folder = tmp_path_factory.mktemp("trl") / "checkpoint"
    model.save_pretrained(folder, tokenizer)
    return folder, tokenizer


def trainer_of(checkpoint, tmp_path, reward_funcs, dataset, **settings):
    from transformers import PreTrainedTokenizerFast

    config = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        max_steps=2,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint[0])
    return trl.GRPOTrainer(str(checkpoint[0]), reward_funcs, config, dataset, processing_class=tokenizer, **settings)


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_grpo_trains_on_the_rewards_of_what_was_written(checkpoint, tmp_path, monkeypatch, with_tokenizer):
    """TRL gets completions from a table: the gold one, and one whose answer alone is right."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    tokenizer = checkpoint[1]
    batch = STREAM[0:8]
    gold = dict(zip(batch.prompts, completions_of(batch), strict=True))

    def write(asked, trainer):
        texts = [gold[prompt] if i % 2 else gold[prompt].split("</solution>")[1] for i, prompt in enumerate(asked)]
        ids = [tokenizer.encode(text).tolist() for text in texts]
        prompt_ids = [tokenizer.encode(prompt).tolist() for prompt in asked]
        return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": [[0.0] * len(row) for row in ids]}

    functions = [reward(kind, tokenizer=tokenizer if with_tokenizer else None) for kind in ("outcome", "strict")]
    trainer = trainer_of(checkpoint, tmp_path, functions, prompts(STREAM, stop=8), rollout_func=write)
    before = trainer.model.model.embed_tokens.weight.detach().clone()
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["rewards/fastreason_outcome/mean"] == 1.0
    assert log["rewards/fastreason_strict/mean"] == 0.5
    assert log["answer_correct"] == 1.0
    assert log["verified"] == 0.5
    assert not torch.equal(before, trainer.model.model.embed_tokens.weight)


@pytest.mark.parametrize("conversational", [False, True])
def test_grpo_generates_and_calls_it(checkpoint, tmp_path, conversational):
    seen = []

    def length(verdicts):
        seen.append(len(verdicts))
        return verdicts.process_accuracy

    data = prompts(STREAM, start=3, stop=11, conversational=conversational)
    trainer = trainer_of(checkpoint, tmp_path, reward(length), data)
    trainer.processing_class.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    trainer.train()
    assert seen == [4, 4]
    assert trainer.state.log_history[0]["rewards/fastreason_length/mean"] == 0.0


@pytest.mark.parametrize("conversational", [False, True])
def test_prompts_are_those_of_the_library(conversational):
    batch, data = STREAM[2:30], prompts(STREAM, start=2, stop=30, conversational=conversational)
    asked: list = batch.prompts
    if conversational:
        texts = [text.removeprefix("<question> ").removesuffix(" </question> <solution>") for text in asked]
        asked = [[{"role": "user", "content": text}] for text in texts]
    assert list(data["prompt"]) == asked
    assert list(data["solution"]) == batch.solutions
    endless = iter(prompts(STREAM.shard(1, 2), start=1, conversational=conversational))
    assert [next(endless) for _ in range(3)] == [data[i] for i in (1, 3, 5)]


def test_the_folder_is_all_it_needs_and_what_it_saves_is_read(checkpoint, tmp_path):
    """Model and tokenizer from our folder, trained, saved by TRL, and read again here."""
    folder, tokenizer = checkpoint
    settings = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        max_steps=1,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(str(folder), reward("strict"), settings, prompts(STREAM, stop=8))
    text = STREAM[0].prompts[0]
    assert trainer.processing_class(text)["input_ids"] == tokenizer.encode(text).tolist()
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    assert fr.Tokenizer.from_pretrained(tmp_path / "saved") == tokenizer
    ours, before = (fr.Decoder.from_pretrained(place) for place in (tmp_path / "saved", folder))
    assert ours.config == before.config
    theirs = trainer.model.get_input_embeddings().weight.detach()
    assert torch.equal(ours.embedding.weight, theirs)
