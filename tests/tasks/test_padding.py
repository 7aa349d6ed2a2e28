"""Long contexts and circular distractors: what is added or kept out, and what stays as it is."""

import numpy as np
import pytest

import fastreason as fr
from tests import published

KINDS = [(mode, depth) for mode in ("forward", "reverse") for depth in (2, 3)]


def stream(context, mode="forward", depth=2, theme="zoo", **settings):
    mixture = fr.Mixture.uniform(op=[3, 7], themes=[theme], modes=[mode], depths=[depth], context=context, **settings)
    return fr.TaskStream(mixture, seed=4)


@pytest.mark.parametrize("theme", ["zoo", "school", "festival"])
@pytest.mark.parametrize("mode, depth", KINDS)
def test_padding_adds_sentences_and_changes_nothing_else(mode, depth, theme):
    tokenizer = fr.Tokenizer.build([theme])
    plain, padded = (stream(context, mode, depth, theme)[0:40] for context in (0, 1500))
    assert padded.questions == plain.questions and padded.solutions == plain.solutions
    np.testing.assert_array_equal(padded.hashes, plain.hashes)  # so a padded problem is in the split of its own
    for i in range(40):
        own, all_of_them = (set(batch.problems[i].removesuffix(".").split(". ")) for batch in (plain, padded))
        assert own < all_of_them
        ids = tokenizer.encode(padded.prompts[i])
        assert 0 not in ids
        added = len(ids) - len(tokenizer.encode(plain.prompts[i]))
        assert 1400 <= added <= 1500
    assert fr.grade(padded, padded.solutions).verified.all()
    assert [row["length"] for row in padded.rows()[:2]] == ["1500", "1500"]
    assert [row["length"] for row in stream(8000)[0:1].rows()] == ["8k"]


@pytest.mark.parametrize("mode, depth", KINDS)
def test_padded_problems_still_have_their_answer(mode, depth):
    batch = stream(2000, mode, depth)[0:40]
    for i in range(40):
        problem = published.read_problem(batch.problems[i], batch.questions[i])
        if mode == "forward":
            assert published.solve(problem, problem.asked)[0] == batch.answers[i]
        else:
            assert published.solve(problem, problem.told[0], unknown=batch.answers[i])[0] == problem.told[1]


@pytest.mark.parametrize("mode, depth", KINDS)
def test_padding_has_the_originals_form(mode, depth):
    """Every place has up to 20 kinds; a sentence has one or two operands, of the problem or a padding total; a total is
    used at most once and not for its own place; at depth 3 every count has an average."""
    plain, padded = (stream(context, mode, depth)[0:40] for context in (0, 3000))
    operands = []
    for i in range(40):
        known = set(published.read_problem(plain.problems[i], plain.questions[i]).names)
        problem = published.read_problem(padded.problems[i], padded.questions[i])
        own_places = {name.split(" in ")[1] for name in known}
        added = {name: quantity for name, quantity in problem.quantities.items() if name not in known}
        assert len({name.split(" in ")[1] for name in added} & own_places) == 0
        totals, kinds = [], {}
        for name, quantity in added.items():
            kind, place = name.split(" per ", 1)[-1].split(" in ")
            kinds.setdefault(place, set()).add(kind)
            assert quantity.constant is None
            operands.append(len(quantity.parents))
            for parent in quantity.parents:
                if parent.split(" in ")[1] in own_places:
                    assert parent in known or parent.startswith("total ")
                else:
                    assert parent.startswith("total number of " + ("keepers" if depth == 3 else "young animals"))
                    assert not parent.endswith(" in " + place)
                    totals.append(parent)
        assert len(totals) == len(set(totals))
        assert len(kinds) > 1 and max(map(len, kinds.values())) == 20
        averages = {name.split(" per ", 1)[1] for name in added if name.startswith("average ")}
        assert averages == ({name for name in added if " per " not in name} if depth == 3 else set())
    assert set(operands) == {1, 2}
    assert 0.5 < np.mean(np.array(operands) == 2) < 0.65  # a coin, and the totals


def test_order_mixes_padding_and_problem():
    batch, own = stream(3000)[0:60], stream(0)[0:60]
    places = []
    for i in range(60):
        sentences = batch.problems[i].removesuffix(".").split(". ")
        mine = set(own.problems[i].removesuffix(".").split(". "))
        places += [at / (len(sentences) - 1) for at, sentence in enumerate(sentences) if sentence in mine]
    assert abs(np.mean(places) - 0.5) < 4 * np.sqrt(1 / 12 / len(places))
    assert min(places) < 0.05 and max(places) > 0.95


def test_32k_tokens_and_the_limit():
    tokenizer = fr.Tokenizer.build(["zoo"])
    for depth in (2, 3):
        added = len(tokenizer.encode(stream(32_000, depth=depth)[0:1].prompts[0]))
        assert 31_900 < added < 33_500
    with pytest.raises(ValueError, match=r"context must be in 0 \.\. 115200 for theme zoo at depth 2, got 115201"):
        stream(115_201)
    stream(115_200)[0:1]
    with pytest.raises(ValueError, match=r"context must be in 0 \.\. 0 for theme symbolic at depth 2, got 100"):
        stream(100, theme="symbolic")


def test_padded_documents_pack():
    tasks, tokenizer = stream(1000), fr.Tokenizer.build(["zoo"])
    packed = tasks.packed(0, 3, 4096, tokenizer)
    documents = tasks[0 : packed.next_index].documents
    for document, start, length in zip(documents, packed.starts, packed.lengths, strict=True):
        assert packed.tokens[start : start + length].tolist() == tokenizer.encode(document).tolist()


def has_circle(problem: published.Problem) -> bool:
    parents = {name: list(quantity.parents) for name, quantity in problem.quantities.items()}
    for name in [parent for quantity in problem.quantities.values() for parent in quantity.parents]:
        if name.startswith("total "):
            parents[name] = [part for parts in problem.parts(name) for part in parts]
    state: dict[str, int] = {}

    def visit(name: str) -> bool:
        if state.get(name) == 1:
            return True
        if state.get(name) == 2:
            return False
        state[name] = 1
        found = any(visit(parent) for parent in parents.get(name, []))
        state[name] = 2
        return found

    return any(visit(name) for name in parents)


@pytest.mark.parametrize("depth, low, high", [(2, 0.03, 0.08), (3, 0.08, 0.22)])
def test_circular_distractors_can_be_left_out(depth, low, high):
    shares = []
    for circular in (True, False):
        mixture = fr.Mixture.uniform(op=[2, 4, 7, 10], themes=["zoo"], depths=[depth], circular_distractors=circular)
        batch = fr.TaskStream(mixture, seed=2)[0:1200]
        problems = [published.read_problem(*texts) for texts in zip(batch.problems, batch.questions, strict=True)]
        shares.append(np.mean([has_circle(problem) for problem in problems]))
    assert low < shares[0] < high  # 7, 6, 7 and 4 % at depth 2 and 9 to 20 % at depth 3 in the original
    assert shares[1] == 0.0
