"""One problem of a batch, and parts of a batch."""

import numpy as np
import pytest
import torch

import fastreason as fr

STREAM = fr.TaskStream(fr.Mixture.uniform(op=[2, 5], themes=["symbolic", "zoo"]), seed=3, split="val")
PROBLEMS = STREAM[10:18]


def test_a_problem_is_the_batch_in_the_singular():
    problem = PROBLEMS[2]
    assert isinstance(problem, fr.Problem)
    plural = {"prompt": "prompts", "problem": "problems", "question": "questions", "solution": "solutions"}
    plural |= {"document": "documents", "answer": "answers", "op": "ops", "cell": "cells", "index": "indices"}
    for name, of_all in plural.items():
        assert getattr(problem, name) == getattr(PROBLEMS, of_all)[2]
    assert problem.graph == PROBLEMS.graph(2)
    assert problem.id == PROBLEMS.rows()[2]["id"] == "val-3-12-f2aac896"


def test_iterating_gives_every_problem_in_order():
    assert [problem.index for problem in PROBLEMS] == list(range(10, 18))


@pytest.mark.parametrize(
    "key",
    [slice(2, 5), slice(None), slice(-3, None), slice(None, None, -2), slice(5, 99), [0, -1, 3], np.array([1, 1])],
    ids=repr,
)
def test_a_part_of_a_batch_is_a_batch(key):
    part, want = PROBLEMS[key], np.arange(10, 18)[key]
    assert isinstance(part, fr.ProblemBatch) and part.indices.tolist() == want.tolist()
    assert part.solutions == [PROBLEMS.solutions[i - 10] for i in want]


EVEN = PROBLEMS.indices % 2 == 0


@pytest.mark.parametrize("mask", [EVEN, EVEN.tolist(), torch.tensor(EVEN)], ids=["array", "list", "tensor"])
def test_a_mask_selects(mask):
    assert PROBLEMS[mask].indices.tolist() == [10, 12, 14, 16]


def test_negative_indices_count_from_the_end():
    assert PROBLEMS[-1].index == PROBLEMS[np.int64(7)].index == PROBLEMS[torch.tensor(7)].index == 17


@pytest.mark.parametrize("key", [8, -9, [0, 8], np.ones(3, bool)], ids=repr)
def test_what_is_not_there_is_an_index_error(key):
    with pytest.raises(IndexError, match="ProblemBatch: "):
        PROBLEMS[key]


@pytest.mark.parametrize("key", [1.0, True, "1", [0.5], None], ids=repr)
def test_what_is_no_index_is_a_value_error(key):
    with pytest.raises(ValueError, match="ProblemBatch: an index must be "):
        PROBLEMS[key]


def test_a_notebook_shows_the_texts_and_the_graph():
    page = PROBLEMS[0]._repr_html_()
    assert PROBLEMS[0].question in page and 'src="data:image/svg+xml;base64,' in page
    assert "<style" not in page  # the picture's style would be that of the notebook
