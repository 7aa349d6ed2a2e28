"""Rewards in the forms of other libraries, without the libraries."""

import pickle

import pytest

import fastreason as fr
from fastreason.integrations.trl import reward
from fastreason.integrations.verl import compute_score, compute_scores

BATCH = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo", "symbolic"]), seed=5, split="rl")[0:4]
TEXTS = [
    document.removeprefix(prompt).removesuffix("[EOS]")
    for document, prompt in zip(BATCH.documents, BATCH.prompts, strict=True)
]


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
    with pytest.raises(ValueError, match=r"kind must be a function or one of outcome, blended, .*, got 'best'"):
        reward("best")
    with pytest.raises(ValueError, match=r"strict cannot take {'outcome_weight': 0.2}"):
        reward("strict", outcome_weight=0.2)
    with pytest.raises(ValueError, match="tokenizer requires completion_ids"):
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
    with pytest.raises(ValueError, match=r"kind must be a function or one of outcome, blended, .*, got 'best'"):
        compute_score("any", TEXTS[0], gold, kind="best")


def test_verl_in_one_call_and_one_by_one():
    texts = [*TEXTS[:2], "", TEXTS[3].replace("<answer> ", "<answer> 1")]
    settings = {"kind": "blended", "outcome_weight": 0.25}
    one_by_one = [
        compute_score("any", text, gold, **settings) for text, gold in zip(texts, BATCH.solutions, strict=True)
    ]
    assert compute_scores(["any"] * 4, texts, BATCH.solutions, **settings) == one_by_one
    assert [row["score"] for row in one_by_one] == [1.0, 1.0, 0.0, 0.75]


def test_contents_in_parts_are_read_as_text():
    parts = [[{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}] for text in TEXTS]
    messages = [[{"role": "assistant", "content": content}] for content in parts]
    assert reward("strict")(BATCH.prompts, messages, solution=BATCH.solutions) == [1.0] * 4
    plain = [{"role": "assistant", "content": [text]} for text in TEXTS]  # one message, parts that are texts
    assert reward("strict")(BATCH.prompts, plain, solution=BATCH.solutions) == [1.0] * 4


@pytest.mark.parametrize(
    "content", [[{"type": "image", "image": "x"}], [{"type": "text"}], {"text": "Answer: 7."}, 7, [7], [None]]
)
def test_contents_that_are_no_text_are_an_error(content):
    messages = [[{"role": "assistant", "content": text}] for text in TEXTS]
    messages[2][0]["content"] = content
    with pytest.raises(ValueError, match="content of completion 2 must be a text or a list of parts"):
        reward("outcome")(BATCH.prompts, messages, solution=BATCH.solutions)
    for completion in (7, [7], None):
        with pytest.raises(ValueError, match="completion 0 must be a text or a list of messages"):
            reward("outcome")(BATCH.prompts, [completion, *TEXTS[1:]], solution=BATCH.solutions)


def test_an_answer_alone_is_gold_enough_for_the_outcome():
    texts = [TEXTS[0], TEXTS[1].split("</solution>")[1], "", TEXTS[3].replace("<answer> ", "<answer> 1")]
    answers = BATCH.answers.tolist()
    for golds in (
        answers,
        [str(a) for a in answers],
        [f" {a}. " for a in answers],
        [f"Answer: {a}." for a in answers],
    ):
        assert reward("outcome")(BATCH.prompts, texts, solution=golds) == [1.0, 1.0, 0.0, 0.0]
        scores = compute_scores(["any"] * 4, texts, golds, kind="outcome")
        assert [row["score"] for row in scores] == [1.0, 1.0, 0.0, 0.0]
        assert [compute_score("any", *pair, kind="outcome") for pair in zip(texts, golds, strict=True)] == scores


@pytest.mark.parametrize("kind", ["strict", "blended", "steps", lambda v: v.process_accuracy])
def test_without_gold_steps_there_is_no_reward_of_steps(kind):
    golds = [*BATCH.solutions[:2], "7", "Answer: 7."]
    message = r"gold 2 has no readable step: '7'; give the whole gold solution, or use kind 'outcome'"
    with pytest.raises(ValueError, match=message):
        reward(kind)(BATCH.prompts, TEXTS, solution=golds)
    with pytest.raises(ValueError, match=message):
        compute_scores(["any"] * 4, TEXTS, golds, kind=kind)


@pytest.mark.parametrize("kind", ["outcome", "strict", lambda v: v.answer_correct])
@pytest.mark.parametrize(
    "gold", ["", "seven", "Define red kite in Alder Field as q; so q = 2.", "7 or 9", 7.5, None, True]
)
def test_a_gold_that_cannot_be_read_is_an_error(kind, gold):
    golds = [BATCH.solutions[0], gold, *BATCH.solutions[2:]]
    with pytest.raises(ValueError, match=r"gold 1 (has no readable answer|must be a text or an integer)"):
        reward(kind)(BATCH.prompts, TEXTS, solution=golds)
    with pytest.raises(ValueError, match=r"ground_truth 1 must be|gold 1 has no readable answer"):
        compute_scores(["any"] * 4, TEXTS, golds, kind=kind)


def test_verl_looks_beside_an_answer_alone():
    extra = {"gold_solution": BATCH.solutions[0]}
    assert compute_score("any", TEXTS[0], str(BATCH.answers[0]), extra)["score"] == 1.0
    assert compute_score("any", TEXTS[0], int(BATCH.answers[0]), extra)["score"] == 1.0


def test_a_reward_of_the_users_own():
    def right_steps(verdicts, power):
        return verdicts.process_accuracy**power

    assert reward(right_steps, power=2)(BATCH.prompts, TEXTS, solution=BATCH.solutions) == [1.0] * 4
    assert compute_score("any", TEXTS[0], BATCH.solutions[0], kind=right_steps, power=2)["score"] == 1.0
    with pytest.raises(ValueError, match=r"right_steps cannot take {}: missing a required argument: 'power'"):
        reward(right_steps)
