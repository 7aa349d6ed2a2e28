"""Gold solutions of a stream are compared without their texts: as what the texts are read as."""

import random

import numpy as np
import pytest

import fastreason as fr
from tests.grading.test_twin import damage

CELLS = [
    (theme, mode, depth)
    for theme in fr.available_themes()
    for mode, depth in (("forward", 2), ("forward", 3), ("reverse", 2), ("reverse", 3))
    if fr.Theme.load(theme).style != "symbolic" or (mode, depth) == ("forward", 2)
]


def problems(theme: str, mode: str, depth: int, n: int) -> fr.ProblemBatch:
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=[mode], depths=[depth])
    return fr.TaskStream(mixture, seed=11)[0:n]


@pytest.mark.parametrize("theme, mode, depth", CELLS)
def test_a_gold_trace_is_the_one_read_from_the_text(theme, mode, depth):
    """Names, values, definitions, parents, answer and equation."""
    batch = problems(theme, mode, depth, 400).core
    assert fr._core.gold_traces(batch, from_text=False) == fr._core.gold_traces(batch, from_text=True)


@pytest.mark.parametrize("theme, mode, depth", CELLS)
def test_verdicts_are_those_against_the_text(theme, mode, depth):
    batch, rng = problems(theme, mode, depth, 100), random.Random(theme + mode)
    texts = [damage(text, rng) if i % 2 else text for text in batch.solutions for i in range(2)]
    got, want = fr.grade(batch, texts), fr.grade_texts(batch.solutions, texts)
    for name in ("ending", "answer_correct", "verified", "sound", "process_accuracy", "answer", "num_missing"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    for name in ("status", "correct", "gold_step", "name", "value", "begin", "end"):
        np.testing.assert_array_equal(getattr(got.steps, name), getattr(want.steps, name))
    np.testing.assert_array_equal(got.gold_steps.found, want.gold_steps.found)
    assert 0.4 < got.sound.mean() < 0.9
