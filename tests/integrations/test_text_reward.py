"""Rewards in the forms of other libraries, without the libraries."""

import pickle

import pytest

import fastreason as fr
from fastreason.integrations.trl import reward
from fastreason.integrations.verl import compute_score, compute_scores

BATCH = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo", "symbolic"]), seed=5, split="rl")[0:4]
TEXTS = [document.removeprefix(prompt) for document, prompt in zip(BATCH.documents, BATCH.prompts, strict=True)]


def test_messages_are_read_as_text():
    said = [[{"role": "assistant", "content": text}] for text in TEXTS]
    called = [[{"role": "assistant", "content": None, "tool_calls": []}, *message] for message in said]
    for messages in (said, called):
        assert reward("strict")(BATCH.prompts, messages, solution=BATCH.solutions) == [1.0] * 4


def test_settings_columns_and_pickles():
    batch = BATCH.stream[0:2]
    texts = [batch.solutions[0].split(". ")[0] + ". Answer: 0.", "nothing"]
    blended = pickle.loads(pickle.dumps(reward("blended", outcome_weight=0.5, column="gold")))
    accuracy = fr.grade_texts(batch.solutions, texts).process_accuracy
    assert blended(batch.prompts, texts, gold=batch.solutions) == pytest.approx((0.5 * accuracy).tolist())
    assert 0 < accuracy[0] < 1
    with pytest.raises(ValueError, match="the dataset has no column 'gold'; there are solution"):
        blended(batch.prompts, texts, solution=batch.solutions)
    with pytest.raises(
        ValueError, match="kind must be a function or one of outcome, blended, strict, steps, got 'best'"
    ):
        reward("best")
    with pytest.raises(ValueError, match=r"strict cannot take {'outcome_weight': 0.2}"):
        reward("strict", outcome_weight=0.2)
    with pytest.raises(ValueError, match="a tokenizer needs completion_ids"):
        reward(tokenizer=fr.Tokenizer.build(["symbolic"]))(batch.prompts, texts, solution=batch.solutions)


def test_metrics_are_logged_for_trl():
    logged = {}
    texts = [TEXTS[0], TEXTS[1].split("</solution>")[1], "", TEXTS[3]]
    assert reward("outcome")(BATCH.prompts, texts, solution=BATCH.solutions, log_metric=logged.__setitem__)
    assert logged == {"answer_correct": 0.75, "verified": 0.5, "process_accuracy": 0.5}


def test_special_tokens_count_where_trl_has_dropped_them():
    tokenizer = fr.Tokenizer.build(["zoo", "symbolic"])
    bare = [text.replace("<answer>", "").replace("</answer>", "") for text in TEXTS]
    ids = [tokenizer.encode(text).tolist() for text in TEXTS]
    assert reward()(BATCH.prompts, bare, completion_ids=ids, solution=BATCH.solutions) == [0.0] * 4
    read = reward(tokenizer=tokenizer)
    assert read(BATCH.prompts, bare, completion_ids=ids, solution=BATCH.solutions) == [1.0] * 4


def test_where_verl_has_the_gold_solution_is_looked_for():
    gold = BATCH.solutions[0]
    for truth, extra in ((gold, None), ({"answer": "1", "solution": gold}, {}), ("", {"gold_solution": gold})):
        assert compute_score("any", TEXTS[0], truth, extra)["score"] == 1.0
    with pytest.raises(ValueError, match=r"ground_truth must be the gold solution or a mapping .* got {'answer': '1'}"):
        compute_score("any", TEXTS[0], {"answer": "1"})
    with pytest.raises(
        ValueError, match="kind must be a function or one of outcome, blended, strict, steps, got 'best'"
    ):
        compute_score("any", TEXTS[0], gold, kind="best")


def test_verl_in_one_call_and_one_by_one():
    texts = [*TEXTS[:2], "", TEXTS[3].replace("<answer> ", "<answer> 1")]
    settings = {"kind": "blended", "outcome_weight": 0.25}
    one_by_one = [
        compute_score("any", text, gold, **settings) for text, gold in zip(texts, BATCH.solutions, strict=True)
    ]
    assert compute_scores(["any"] * 4, texts, BATCH.solutions, **settings) == one_by_one
    assert [row["score"] for row in one_by_one] == [1.0, 1.0, 0.0, 0.75]


def test_a_reward_of_the_users_own():
    def right_steps(verdicts, power):
        return verdicts.process_accuracy**power

    assert reward(right_steps, power=2)(BATCH.prompts, TEXTS, solution=BATCH.solutions) == [1.0] * 4
    assert compute_score("any", TEXTS[0], BATCH.solutions[0], kind=right_steps, power=2)["score"] == 1.0
    with pytest.raises(ValueError, match=r"right_steps cannot take {}: missing a required argument: 'power'"):
        reward(right_steps)
