"""The task stream: determinism, splits, and every text against an independent reading."""

import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from fastreason.tasks.stream import SPLITS
from tests import published, symbolic

OPS = range(2, 41)


def uniform(theme: str, op=OPS, **settings) -> fr.Mixture:
    return fr.Mixture.uniform(op=op, themes=[theme], **settings)


# --- texts ----------------------------------------------------------------------------------------------------------


def test_every_symbolic_solution_follows_from_its_problem():
    """The published style has tests of its own in test_modes.py."""
    batch = fr.TaskStream(uniform("symbolic"), seed=3)[0:3000]
    for i in range(len(batch)):
        problem = symbolic.read_problem(batch.problems[i], batch.questions[i])
        steps = symbolic.read_solution(batch.solutions[i].rsplit(" Answer: ", 1)[0])
        answer, needed = symbolic.solve(problem)
        assert answer == batch.answers[i] == steps[-1].value
        assert steps[-1].name == problem.asked
        assert {step.name for step in steps} == needed
        assert symbolic.count_operations(steps) == batch.ops[i]
        for step in steps:
            if symbolic.is_total(step.name, problem):
                assert set(step.parents) == symbolic.parts_of_total(step.name, problem)
                assert not step.has_constant
            else:
                quantity = problem.quantities[step.name]
                assert step.parents == quantity.parents
                assert step.has_constant == (quantity.constant is not None)
                assert step.value >= 1  # a count that the answer depends on is positive
            assert 0 <= step.value <= 1000


def test_solutions_use_every_letter_once_and_all_letters():
    batch = fr.TaskStream(uniform("zoo"), seed=4)[0:500]
    seen = set()
    for i in range(len(batch)):
        steps, _, _ = published.read_solution(batch.solutions[i])
        letters = [letter for step in steps for letter in step.variables]
        assert len(letters) == len(set(letters))
        seen.update(letters)
    assert len(seen) == 52


def test_rows_have_the_published_schema():
    batch = fr.TaskStream(uniform("zoo", op=[5]), seed=1, split="test")[7:9]
    row = batch.rows()[0]
    assert list(row) == ["problem", "question", "solution", "op", "id", "template", "mode", "length", "d"]
    assert row["problem"].endswith(". ") and row["solution"].endswith(".")
    assert (row["op"], row["template"], row["mode"], row["length"], row["d"]) == (
        5,
        "zoo",
        "normalforward",
        "zero_context",
        2,
    )


def test_ids_are_unique_over_ops_mixtures_seeds_and_splits():
    mixtures = [uniform("zoo", op=[op]) for op in (2, 3)] + [uniform("school", op=[2]), uniform("zoo", op=[2, 3])]
    mixtures += [0.2 * mixtures[0] + 0.8 * mixtures[1], uniform("zoo", op=[2], max_value=50)]
    streams = [
        fr.TaskStream(mixture, seed, split) for mixture in mixtures for seed in (0, 1) for split in ("val", "test")
    ]
    streams += [fr.TaskStream(uniform("zoo", op=[6]), split_by=by) for by in ("problem", "graph")]
    ids = [row["id"] for stream in streams for row in stream[0:20].rows()]
    assert len(set(ids)) == len(ids) == 20 * 26
    # a stream made anew has the same
    assert fr.TaskStream(mixtures[1], seed=0, split="val")[3:4].rows()[0]["id"] == ids[4 * 20 + 3]


def test_documents_are_put_together_from_their_parts():
    for theme, question_first in (("zoo", False), ("symbolic", True)):
        batch = fr.TaskStream(uniform(theme))[0:20]
        for i in range(20):
            parts = [batch.problems[i], batch.questions[i]]
            asked = " ".join(reversed(parts) if question_first else parts)
            body, answer = batch.solutions[i].rsplit(" Answer: ", 1)
            assert batch.prompts[i] == f"<question> {asked} </question> <solution>"
            assert batch.documents[i] == (
                f"{batch.prompts[i]} {body} </solution> <answer> {answer.removesuffix('.')} </answer>[EOS]"
            )


def test_iterating_gives_the_rows_in_order():
    stream = fr.TaskStream(uniform("symbolic"))
    iterator = iter(stream)
    assert [next(iterator) for _ in range(70)] == stream[0:70].rows()


# --- a pure function of mixture, seed, split and index --------------------------------------------------------------


@pytest.mark.parametrize("threads, size", [(1, 1), (2, 7), (7, 64), (7, 65), (2, 300)])
def test_bytes_do_not_depend_on_threads_or_batch_size(threads, size):
    stream = fr.TaskStream(uniform("zoo"), seed=11)
    want = stream.batch(np.arange(300), threads=1)
    got = [stream.batch(np.arange(i, min(i + size, 300)), threads=threads) for i in range(0, 300, size)]
    assert [text for part in got for text in part.documents] == want.documents
    np.testing.assert_array_equal(np.concatenate([part.hashes for part in got]), want.hashes)


def test_a_copy_in_a_worker_gives_the_same_problems():
    stream = fr.TaskStream(uniform("zoo", op=[4, 5]), seed=5, split="rl")
    again = pickle.loads(pickle.dumps(stream))
    assert again[3:9].documents == stream[3:9].documents
    by_graph = fr.TaskStream(uniform("zoo", op=[4, 5]), seed=5, split_by="graph")
    assert pickle.loads(pickle.dumps(by_graph))[3:9].documents == by_graph[3:9].documents != stream[3:9].documents
    loader = torch.utils.data.DataLoader(
        stream, sampler=range(40), batch_size=None, num_workers=1, collate_fn=lambda batch: batch.documents
    )
    assert [documents[0] for documents in loader] == stream[0:40].documents


def test_any_order_of_indices_gives_the_same_problems():
    stream = fr.TaskStream(uniform("symbolic"), seed=5)
    order = np.random.default_rng(0).permutation(200)
    documents = stream[0:200].documents
    assert stream[order].documents == [documents[i] for i in order]
    assert stream[17].documents == [documents[17]]


def test_seed_and_split_change_the_problems():
    mix = uniform("zoo")
    first = fr.TaskStream(mix, seed=0)[0:50].documents
    assert first != fr.TaskStream(mix, seed=1)[0:50].documents
    assert first != fr.TaskStream(mix, seed=2**63)[0:50].documents
    assert first != fr.TaskStream(mix, seed=0, split="val")[0:50].documents


# --- splits -----------------------------------------------------------------------------------------------------------


def test_splits_share_no_problem():
    # a million short problems of op 2, few enough that draws meet again
    mix = uniform("symbolic", op=[2], max_sentences=4)
    hashes = {split: set(fr.TaskStream(mix, seed=0, split=split)[0:250_000].hashes.tolist()) for split in SPLITS}
    assert len(hashes["train"]) < 200_000  # problems do repeat within a split
    for a in hashes:
        for b in hashes:
            assert a == b or not hashes[a] & hashes[b]


def test_splits_by_graph_share_no_graph_and_no_problem():
    mix = fr.Mixture.uniform(op=[7, 9], themes=["zoo"], modes=["forward", "reverse"], depths=[2, 3])
    parts = {split: fr.TaskStream(mix, seed=0, split=split, split_by="graph")[0:10_000] for split in SPLITS}
    graphs = {split: set(batch.graph_hashes.tolist()) for split, batch in parts.items()}
    hashes = {split: set(batch.hashes.tolist()) for split, batch in parts.items()}
    for a in parts:
        assert 100 < len(graphs[a]) < 9000  # graphs come back with other names, numbers and distractors
        for b in parts:
            assert a == b or not (graphs[a] & graphs[b] or hashes[a] & hashes[b])
    # a split by problem has graphs in common
    by_problem = [set(fr.TaskStream(mix, seed=0, split=split)[0:10_000].graph_hashes.tolist()) for split in parts]
    assert by_problem[0] & by_problem[3]


def test_graph_hash_is_of_the_structure_alone():
    """Problems with the same steps but for names, numbers and letters have one graph hash; others another."""
    batch = fr.TaskStream(uniform("zoo", op=[4, 5]), seed=3)[0:6000]
    forms = {}
    for solution, value in zip(batch.solutions, batch.graph_hashes.tolist(), strict=True):
        steps, _, _ = published.read_solution(solution)
        # op 4 and 5 at depth 2: an inner step has at most one place in the order, so names may be read off
        described = {}
        for step, text in zip(steps, re.split(r"(?<=\.) (?=Define )", solution), strict=True):
            sort = "total" if step.name.startswith("total ") else "count"
            minus, times, constant = " - " in text, bool(re.search(r"= \d+ \* [A-Za-z]", text)), step.has_constant
            parents = [described[parent] for parent in step.parents]
            described[step.name] = (
                sort,
                minus,
                times,
                constant,
                tuple(parents if minus else sorted(parents, key=repr)),
            )
        counts = sorted(map(repr, described.values()))
        forms.setdefault(repr((described[steps[-1].name], counts)), set()).add(value)
    assert all(len(values) == 1 for values in forms.values())
    assert len(forms) == len({value for values in forms.values() for value in values}) > 20


def test_splits_have_their_shares():
    hashes = np.concatenate([fr.TaskStream(uniform("zoo"), seed=s, split="train")[0:2000].hashes for s in range(3)])
    assert (hashes >> np.uint64(60)).max() == 11
    counts = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=12)
    assert abs(counts - 500).max() < 5 * np.sqrt(500)


def test_hash_ignores_the_order_of_sentences_and_summands_only():
    stream = fr.TaskStream(uniform("symbolic", op=[2, 3], max_sentences=3), seed=0)
    batch = stream[0:40_000]

    def canonical(problem: str, question: str) -> str:
        sentences = []
        for sentence in problem[:-1].split(". "):
            name, expression = sentence.split(": ")
            quantity = symbolic.read_expression(expression)
            parents = quantity.parents if quantity.minus else sorted(quantity.parents)
            sentences.append(f"{name}|{quantity.constant}|{quantity.times}|{quantity.minus}|{parents}")
        return question + "|".join(sorted(sentences))

    by_hash, by_text = {}, {}
    for problem, question, value in zip(batch.problems, batch.questions, batch.hashes.tolist(), strict=True):
        text = canonical(problem, question)
        assert by_hash.setdefault(value, text) == text
        assert by_text.setdefault(text, value) == value
    assert len(set(batch.problems)) > len(by_hash)  # some differed in order alone


# --- mixtures ---------------------------------------------------------------------------------------------------------


def test_mixture_arithmetic_gives_the_weights():
    a, b = uniform("zoo", op=[2, 3]), uniform("symbolic", op=[7])
    mix = 0.2 * a + 0.8 * b
    stream = fr.TaskStream(mix, seed=0)
    batch = stream[0:20_000]
    share = np.mean([cell.theme == "symbolic" for cell in batch.cells])
    assert abs(share - 0.8) < 0.015  # 5 standard errors
    assert abs(np.mean(batch.ops == 2) - 0.1) < 0.011
    assert mix.ops == (2, 3, 7) and mix.themes == ("zoo", "symbolic")
    assert (
        fr.Mixture.from_dict([{"op": [2, 3], "weight": 0.2}, {"op": [7], "themes": ["symbolic"], "weight": 0.8}]) == mix
    )


@pytest.mark.parametrize("name", fr.available_mixtures())
def test_presets_draw(name):
    mixture = fr.Mixture.preset(name)
    assert abs(sum(mixture.weights.values()) - 1.0) < 1e-9
    assert set(fr.TaskStream(mixture, seed=1)[0:20].ops.tolist()) <= set(mixture.ops)
    assert "symbolic" in fr.Mixture.preset(name, themes=["symbolic"]).themes or name.startswith("context")


def test_the_pretraining_preset_is_the_papers():
    weights = fr.Mixture.preset("pretrain").weights
    by_op = {op: sum(w for cell, w in weights.items() if cell.op == op) for op in range(2, 11)}
    np.testing.assert_allclose(list(by_op.values()), [0.2 / 3] * 3 + [0.1] * 3 + [0.5 / 3] * 3)
    assert fr.Mixture.preset("pretrain").themes == ("zoo", "school", "festival")
    with pytest.raises(ValueError, match=r"preset must be one of pretrain, .* got 'nothing'"):
        fr.Mixture.preset("nothing")


@given(
    op=st.lists(st.sampled_from(range(2, 10)), min_size=1, max_size=3, unique=True),
    theme=st.sampled_from(["zoo", "symbolic"]),
    max_value=st.sampled_from([30, 199, 1000]),
    max_sentences=st.sampled_from([6, 12, 25]),
    number_range=st.sampled_from([3, 5, 12]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_mixture_keeps_its_limits(op, theme, max_value, max_sentences, number_range, seed):
    mix = uniform(theme, op=op, max_value=max_value, max_sentences=max_sentences, number_range=number_range)
    batch = fr.TaskStream(mix, seed=seed)[0:20]
    for i in range(20):
        if theme == "symbolic":
            problem = symbolic.read_problem(batch.problems[i], batch.questions[i])
            steps = symbolic.read_solution(batch.solutions[i].rsplit(" Answer: ", 1)[0])
            values = [step.value for step in steps]
        else:
            problem = published.read_problem(batch.problems[i], batch.questions[i])
            steps, answer, _ = published.read_solution(batch.solutions[i])
            values = [step.value.at(answer) for step in steps]
        assert batch.ops[i] in op
        assert len(problem.quantities) <= max_sentences
        assert max(values) <= max_value
        constants = [q.constant for q in problem.quantities.values() if q.constant is not None]
        assert all(1 <= constant < number_range for constant in constants)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: uniform("zoo", op=[1]), "op must be an integer in 2 .. 40, got 1"),
        (lambda: uniform("zoo", op=[41]), "op must be an integer in 2 .. 40, got 41"),
        (lambda: uniform("zoo", context=-1), "context must be an integer in 0 .. 10000000, got -1"),
        (
            lambda: uniform("nowhere"),
            "theme: must be one of festival, .*zoo or a .toml file, got 'nowhere'",
        ),
        (lambda: uniform("missing.toml"), "theme: no file 'missing.toml'"),
        (lambda: uniform("zoo", number_range=2), "number_range must be an integer in 3 .. 100, got 2"),
        (lambda: fr.Mixture({}), "must have at least one cell with a positive weight"),
        (lambda: fr.Mixture.from_dict([{"op": [2], "themez": ["zoo"]}]), "unknown field 'themez'"),
        (lambda: fr.Mixture.from_dict([{"weight": 1.0}]), "op is missing"),
        (lambda: 0 * uniform("zoo"), "the factor must be a number > 0, got 0"),
        (lambda: fr.TaskStream(uniform("zoo"), seed=-1), "seed must be an integer in 0 .. 2\\*\\*64 - 1, got -1"),
        (
            lambda: fr.TaskStream(uniform("zoo"), split="tests"),
            "split must be one of train, rl, val, test, got 'tests'",
        ),
        (lambda: fr.TaskStream(uniform("zoo"), split_by="name"), "split_by must be problem or graph, got 'name'"),
        (lambda: fr.TaskStream(uniform("zoo"))[-3:2], "the start of a slice must be an integer in 0 .. .*, got -3"),
        (lambda: fr.TaskStream(uniform("zoo"))[3:], "a slice needs an end"),
        (lambda: fr.TaskStream(uniform("zoo"))[[-1]], "indices must be integers >= 0, got -1"),
    ],
)
def test_bad_input_names_the_argument_the_value_and_the_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "op, settings, message",
    [
        ([2, 20], {"max_sentences": 2}, "op 20, .* max_sentences 2; with these settings op can be 2-5$"),
        ([2], {"max_sentences": 1}, "op 2, .* max_sentences 1; with these settings no op can$"),
        ([2, 25], {"max_value": 3}, "op 25, .* max_value 3, .*; with these settings op can be 2-1[0-9]"),
        ([9], {"max_value": 1, "number_range": 3}, "op 9, .*; with these settings op can be 2"),
    ],
)
def test_what_cannot_be_reached_is_said_at_once_with_what_can(op, settings, message):
    with pytest.raises(ValueError, match=f"these problems cannot be reached: {message}"):
        fr.TaskStream(uniform("symbolic", op=op, **settings), seed=0)


def test_a_split_by_graph_that_has_no_graph_says_so():
    # op 2 at depth 2 is one graph, of the train split
    fr.TaskStream(uniform("zoo", op=[2]), split="train", split_by="graph")
    for split in ("rl", "val", "test"):
        with pytest.raises(ValueError, match=r"reached: op 2, .*in this split by graph; with these .* can be .*-40$"):
            fr.TaskStream(uniform("zoo", op=[2]), split=split, split_by="graph")
