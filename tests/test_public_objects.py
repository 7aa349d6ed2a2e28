"""Of every public object a line that says what it is; one text where a list is wanted; ids from numpy and torch."""

import numpy as np
import pytest
import torch

import fastreason as fr

MIX = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=99)
STREAM = fr.TaskStream(MIX, seed=0)
PROBLEMS = STREAM[0:3]
TOKENIZER = fr.Tokenizer.for_mixtures([MIX])
MODEL = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(TOKENIZER)))
MODEL.reset_parameters(0)
ENGINE = fr.Rollout(MODEL, TOKENIZER)
SAMPLES = ENGINE.generate(PROBLEMS, n=2, max_new_tokens=4)
VERDICTS = fr.grade(PROBLEMS, PROBLEMS.solutions)

OBJECTS = {
    "Budget": fr.Budget(tokens=5),
    "Cell": fr.Cell(op=2),
    "Decoder": MODEL,
    "Estimate": fr.Estimate(0.5, 0.4, 0.6),
    "Mixture": MIX,
    "ModelConfig": MODEL.config,
    "PackedBatch": STREAM.packed(0, 1, 256, TOKENIZER),
    "Problem": PROBLEMS[0],
    "ProblemBatch": PROBLEMS,
    "Recipe": fr.load_recipe("smoke"),
    "Rollout": ENGINE,
    "RolloutOutput": SAMPLES,
    "Steps": VERDICTS.steps,
    "StreamDataset": fr.StreamDataset(STREAM),
    "StreamShard": STREAM.shard(0, 2),
    "TaskStream": STREAM,
    "Theme": fr.Theme.load("zoo"),
    "Tokenizer": TOKENIZER,
    "Verdicts": VERDICTS,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_says_what_it_is_in_a_line(name):
    text = repr(OBJECTS[name])
    assert text.startswith(f"{name}(") and "\n" not in text and len(text) < 300


def test_every_public_class_is_among_them():
    classes = {name for name in fr._HOME if isinstance(getattr(fr, name), type)}
    elsewhere = {"Ending", "StepStatus", "Scores", "Edge"}  # the last two in tests/evaluation/test_scores.py
    settings = {"OptimSettings", "Phase", "PolicySettings", "SupervisedSettings"}
    assert classes - elsewhere - settings == set(OBJECTS)


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: fr.grade(PROBLEMS, "an answer"), "grade: completions"),
        (lambda: fr.grade(PROBLEMS, b"an answer"), "grade: completions"),
        (lambda: fr.grade_texts("gold", ["an answer"]), "grade_texts: gold_solutions"),
        (lambda: fr.grade_texts(["gold"], "an answer"), "grade_texts: completions"),
        (lambda: fr.Mixture.uniform(op=[2], themes="zoo"), "mixture: themes"),
        (lambda: fr.Mixture.uniform(op=[2], modes="forward"), "mixture: modes"),
        (lambda: fr.Mixture.uniform(op="23"), "mixture: op"),
        (lambda: fr.Mixture.uniform(op=2), "mixture: op"),
        (lambda: fr.Mixture.preset("rl-op11-14", themes="zoo"), "mixture: themes"),
        (lambda: fr.Tokenizer("words"), "Tokenizer: words"),
        (lambda: fr.Tokenizer.build("zoo"), "Tokenizer.build: themes"),
        (lambda: ENGINE.generate("a prompt"), "generate: prompts"),
        (lambda: ENGINE.stream("a prompt"), "generate: prompts"),
    ],
)
def test_one_text_in_place_of_a_list_is_an_error(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument} must be a list, got "):
        call()


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("ending", "verified", "process_accuracy")
    )


def test_ids_of_torch_are_graded_like_those_of_numpy():
    want = fr.grade(PROBLEMS, SAMPLES.tokens, tokenizer=TOKENIZER)
    assert same(fr.grade(PROBLEMS, torch.from_numpy(SAMPLES.tokens), tokenizer=TOKENIZER), want)
    assert same(fr.grade(PROBLEMS, torch.from_numpy(SAMPLES.tokens).long(), tokenizer=TOKENIZER), want)
    assert TOKENIZER.decode(torch.from_numpy(SAMPLES.tokens[0])) == TOKENIZER.decode(SAMPLES.tokens[0])


def test_ids_that_are_not_rows_are_an_error():
    with pytest.raises(ValueError, match=r"token ids must be \[completions, length\], got shape \[4\]"):
        fr.grade(PROBLEMS, torch.arange(4), tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="token ids must be integers"):
        fr.grade(PROBLEMS, torch.ones(3, 4), tokenizer=TOKENIZER)


def test_the_output_of_a_rollout_is_graded_as_it_is():
    want = fr.grade(PROBLEMS, SAMPLES.tokens, tokenizer=TOKENIZER, finished=SAMPLES.finished)
    assert same(fr.grade(PROBLEMS, SAMPLES), want)
    cut = fr.grade(PROBLEMS, SAMPLES).ending == fr.Ending.UNFINISHED
    assert (cut == ~SAMPLES.finished).all() and cut.any()
    assert SAMPLES.texts[1] == TOKENIZER.decode(SAMPLES.tokens[1, : SAMPLES.lengths[1]])


def test_a_notebook_shows_steps_in_the_colour_of_their_verdict():
    wrong = PROBLEMS.solutions[0].replace("Answer", "X: 3. <b>. Answer")
    page = fr.grade(PROBLEMS[:1], [wrong])._repr_html_()
    assert 'title="right">' in page and 'title="extra">X: 3' in page and "&lt;b&gt;" in page
    assert fr.grade(PROBLEMS[:1], [b"\xff: 1."])._repr_html_()
