"""verl loads and calls our reward. Needs `make test-integrations`; skipped where the library is absent.

What of verl runs without GPU, Ray cluster and inference server: the loader of custom reward functions and the reward
managers that call them with what the data set says.
"""

import asyncio
import logging
import warnings
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

import fastreason as fr
import fastreason.integrations.verl as ours

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    before = logging.root.level, list(logging.root.handlers)
    pytest.importorskip("verl", reason="the library verl is not installed (make test-integrations)")
    from hydra import compose, initialize_config_module
    from verl import DataProto
    from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
    from verl.workers.reward_manager import BatchRewardManager

    logging.root.setLevel(before[0])
    logging.root.handlers[:] = before[1]

pytestmark = pytest.mark.filterwarnings("ignore")
STREAM = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo", "symbolic"]), seed=5, split="rl")
BATCH = STREAM[0:6]
TEXTS = [
    document.removeprefix(prompt).removesuffix("[EOS]")
    for document, prompt in zip(BATCH.documents, BATCH.prompts, strict=True)
]
# right, right in its answer alone, wrong
for _i in (1, 4):
    TEXTS[_i] = TEXTS[_i].split("</solution>")[1]
for _i in (2, 5):
    TEXTS[_i] = TEXTS[_i].replace("<answer> ", "<answer> 1")
STRICT = [1.0, 0.0, 0.0] * 2


def config_of(path: str, name: str = "compute_score", **reward_kwargs):
    """The whole configuration of verl's trainer with the overrides that docs/grading.md shows."""
    function = "reward.custom_reward_function"
    overrides = [f"{function}.path={path}", f"{function}.name={name}"]
    overrides += [f"+{function}.reward_kwargs.{key}={value}" for key, value in reward_kwargs.items()]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def data_of(tokenizer) -> DataProto:
    ids = [torch.from_numpy(tokenizer.encode(text)).long() for text in TEXTS]
    responses = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_id)
    mask = torch.ones(len(ids), 1 + responses.shape[1], dtype=torch.long)
    for row, text in zip(mask, ids, strict=True):
        row[1 + len(text) :] = 0
    rows = ours.rows(BATCH)
    columns = {name: np.array([row[name] for row in rows], dtype=object) for name in rows[0]}
    prompts = torch.full((len(ids), 1), tokenizer.eos_id)
    return DataProto.from_dict(
        {"prompts": prompts, "responses": responses, "attention_mask": mask}, non_tensors=columns
    )


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = fr.Tokenizer.build(["zoo", "symbolic"])
    tokenizer.save_pretrained(folder)
    return tokenizer, PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("path", ["pkg://fastreason.integrations.verl", str(Path(ours.__file__))])
def test_its_loader_takes_the_function_and_its_settings(path):
    function = get_custom_reward_fn(config_of(path, kind="blended", outcome_weight=0.5))
    results = [
        function(data_source="fastreason", solution_str=text, ground_truth=gold, extra_info={})
        for text, gold in zip(TEXTS, BATCH.solutions, strict=True)
    ]
    assert [result["score"] for result in results] == pytest.approx([1.0, 0.5, 0.5] * 2)
    assert [result["verified"] for result in results] == STRICT


def test_its_naive_reward_manager_calls_it(tokenizers):
    tokenizer, theirs = tokenizers
    data = data_of(tokenizer)

    async def score() -> list:
        manager = load_reward_manager(config_of("pkg://fastreason.integrations.verl"), theirs)
        return [await manager.run_single(data[i : i + 1]) for i in range(len(data))]

    results = asyncio.run(score())
    assert [result["reward_score"] for result in results] == STRICT
    assert [result["reward_extra_info"]["answer_correct"] for result in results] == [1.0, 1.0, 0.0] * 2


def test_its_batch_reward_manager_calls_the_batched_form(tokenizers):
    tokenizer, theirs = tokenizers
    function = get_custom_reward_fn(config_of("pkg://fastreason.integrations.verl", "compute_scores", kind="outcome"))
    data = data_of(tokenizer)
    result = BatchRewardManager(theirs, 0, function)(data, return_dict=True)
    last = data.batch["attention_mask"][:, 1:].sum(1) - 1
    assert result["reward_tensor"][torch.arange(6), last].tolist() == [1.0, 1.0, 0.0] * 2
    assert result["reward_extra_info"]["verified"] == STRICT


def test_rows_survive_parquet(tmp_path):
    rows = ours.rows(BATCH)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert parquet.read_table(tmp_path / "train.parquet").to_pylist() == rows
    assert rows[3]["extra_info"]["index"] == BATCH.indices[3]
    assert f"<question> {rows[3]['prompt'][0]['content']} </question> <solution>" == BATCH.prompts[3]
