"""Forward and reverse problems of depth 2 and 3 in the published style, against an independent reading."""

import numpy as np
import pytest

import fastreason as fr
from tests import published

KINDS = [(mode, depth) for mode in ("forward", "reverse") for depth in (2, 3)]
OPS = range(2, 41)


def stream(mode, depth, op=OPS, seed=0, theme="zoo", **settings):
    return fr.TaskStream(fr.Mixture.uniform(op=op, themes=[theme], modes=[mode], depths=[depth], **settings), seed=seed)


@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
@pytest.mark.parametrize("mode, depth", KINDS)
def test_every_solution_follows_from_its_problem(mode, depth, theme):
    batch = stream(mode, depth, seed=3, theme=theme)[0:250]
    for i in range(len(batch)):
        steps, answer, known = published.read_solution(batch.solutions[i])
        problem = published.read_problem(batch.problems[i], batch.questions[i])
        assert answer == batch.answers[i]
        assert sum(step.operations for step in steps) == batch.ops[i]
        if mode == "forward":
            value, needed = published.solve(problem, problem.asked)
            assert value == answer
        else:
            assert known == problem.told
            value, needed = published.solve(problem, known[0], unknown=answer)
            assert value == known[1]
            assert answer >= 1
            assert problem.unknown in needed
        # a special is named by its average, so every needed name is a step
        assert {step.name for step in steps} == needed
        for step in steps:
            assert step.value.at(answer) == published.solve(problem, step.name, answer)[0]
            # a count that the answer depends on is positive
            assert (0 if step.name.startswith(("total ", "average ")) else 1) <= step.value.at(answer) <= 1000
            if step.name == problem.unknown:
                continue
            if step.name.startswith("total "):
                assert set(step.parents) == {name for part in problem.parts(step.name) for name in part}
            else:
                quantity = problem.quantities[step.name]
                assert set(step.parents) == set(quantity.parents)
                assert step.has_constant == (quantity.constant is not None)


@pytest.mark.parametrize("mode, depth", KINDS)
def test_settings_are_kept(mode, depth):
    batch = stream(mode, depth, op=[4, 9], seed=5, max_value=60, number_range=4, max_sentences=12)[0:300]
    for i in range(len(batch)):
        problem = published.read_problem(batch.problems[i], batch.questions[i])
        assert problem.sentences <= 12 + (mode == "reverse")
        constants = [q.constant for q in problem.quantities.values() if q.constant is not None]
        assert set(constants) <= {1, 2, 3} or mode == "reverse"
        steps, answer, _ = published.read_solution(batch.solutions[i])
        assert max(step.value.at(answer) for step in steps) <= 60


@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
@pytest.mark.parametrize("mode, depth", KINDS)
def test_gold_is_perfect_and_the_tokenizer_knows_every_word(mode, depth, theme):
    batch = stream(mode, depth, seed=7, theme=theme)[0:300]
    tokenizer = fr.Tokenizer.build([theme])
    completions = []
    for document, prompt in zip(batch.documents, batch.prompts, strict=True):
        ids = tokenizer.encode(document)
        assert 0 not in ids
        assert tokenizer.decode(ids) == document
        completions.append(document.removeprefix(prompt).removesuffix("[EOS]"))
    verdicts = fr.grade(batch, completions)
    assert verdicts.verified.all()
    assert (verdicts.process_accuracy == 1.0).all()
    # one wrong answer at a time
    wrong = [
        text.replace(f"<answer> {a} ", f"<answer> {a + 1} ") for text, a in zip(completions, batch.answers, strict=True)
    ]
    assert not fr.grade(batch, wrong).verified.any()
    # another problem's solution is no solution
    other = fr.grade(batch, completions[1:] + completions[:1])
    assert other.verified.mean() < 0.02


@pytest.mark.parametrize("mode, depth", KINDS)
def test_packed_tokens_are_the_documents(mode, depth):
    tasks, tokenizer = stream(mode, depth, op=[3, 8], seed=2), fr.Tokenizer.build(["zoo"])
    packed = tasks.packed(0, 2, 2048, tokenizer)
    documents = tasks[0 : packed.next_index].documents
    for document, start, length in zip(documents, packed.starts, packed.lengths, strict=True):
        assert packed.tokens[start : start + length].tolist() == tokenizer.encode(document).tolist()


def test_rows_name_mode_and_depth():
    rows = [stream(mode, depth)[0:1].rows()[0] for mode, depth in KINDS]
    assert [(row["mode"], row["d"]) for row in rows] == [
        ("normalforward", 2),
        ("normalforward", 3),
        ("forwardreverse", 2),
        ("forwardreverse", 3),
    ]


@pytest.mark.parametrize("mode, depth", KINDS)
def test_bytes_do_not_depend_on_threads(mode, depth):
    tasks = stream(mode, depth, seed=11)
    one, seven = (tasks.batch(np.arange(200), threads=threads).documents for threads in (1, 7))
    assert one == seven


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"modes": ["sideways"]}, "mode must be one of forward, reverse, got 'sideways'"),
        ({"depths": [4]}, "depth must be an integer in 2 .. 3, got 4"),
        ({"modes": ["reverse"], "themes": ["symbolic"]}, "symbolic style, which supports only mode 'forward'"),
        ({"depths": [3], "themes": ["symbolic"]}, "symbolic style, which supports only"),
    ],
)
def test_impossible_cells_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fr.Mixture.uniform(op=[3], **arguments)
