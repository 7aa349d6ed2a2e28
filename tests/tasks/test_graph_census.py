"""How many nameless graphs a mixture has: by going through all draws, against an oracle of its own, and by samples."""

from dataclasses import asdict

import numpy as np
import pytest

import fastreason as fr
from fastreason import _core
from fastreason.cli.main import main
from fastreason.tasks.capture_recapture import KnownKinds, SampledKinds
from fastreason.tasks.graph_census import count_graphs, format_graphs, graphs_of, is_exact, warn_often

from .graph_oracle import graphs


def law_of(ways=20_000_000, **settings):
    """Graph hashes and probabilities of a cell."""
    return _core.graph_law(_core.Cell(**(asdict(fr.Cell(**settings)) | {"theme": 0, "weight": 1.0})), ways)


# the laptop recipes' values; little room for values; few sentences; other constants
@pytest.mark.parametrize(
    "ops, settings",
    [
        ([2, 3, 4, 5, 6], {"max_value": 199}),
        ([3, 4, 5], {"max_value": 3}),
        ([2, 3, 4], {"max_sentences": 4}),
        ([5, 6], {"number_range": 3}),
    ],
)
def test_there_are_as_many_as_an_independent_enumeration_finds(ops, settings):
    assert [len(law_of(op=op, **settings)[0]) for op in ops] == [len(graphs(op, **settings)) for op in ops]


def test_the_numbers_of_the_symbolic_theme():
    rows = count_graphs(fr.Mixture.uniform(op=range(2, 7), themes=["symbolic"], max_value=199))
    assert [row.graphs.number for row in rows] == [1, 2, 8, 19, 20]
    assert all(is_exact(row.graphs) for row in rows)
    assert [row.share for row in rows] == pytest.approx([0.2] * 5)
    mean = np.diff(fr.TaskStream(rows_mixture(4)).encoded(0, 512, tokenizer(4))[1]).mean()
    assert rows[2].tokens == pytest.approx(mean)


def rows_mixture(op):
    return fr.Mixture.uniform(op=[op], themes=["symbolic"], max_value=199)


def tokenizer(op):
    return fr.Tokenizer.for_mixtures([rows_mixture(op)])


# both depths and modes; values that reject many draws
@pytest.mark.parametrize(
    "settings",
    [{"op": 5}, {"op": 6, "mode": "reverse"}, {"op": 4, "depth": 3, "mode": "reverse"}, {"op": 5, "max_value": 4}],
)
def test_the_probabilities_are_those_of_draws(settings):
    hashes, probabilities = law_of(**settings)
    assert probabilities.sum() == pytest.approx(1.0) and (probabilities > 0).all()
    drawn = fr.TaskStream(fr.Mixture({fr.Cell(**settings): 1.0}), seed=1).graph_hashes(0, 40_000)
    assert set(drawn.tolist()) <= set(hashes.tolist())
    counts = np.array([(drawn == value).sum() for value in hashes])
    expected = 40_000 * probabilities
    often = expected >= 5
    chi_square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    # its mean is the number of kinds and its variance twice that; four standard deviations
    assert chi_square < often.sum() + 4 * np.sqrt(2 * often.sum())


def test_too_many_ways_are_estimated_from_a_sample():
    assert law_of(op=7, ways=1000) is None
    mixture = fr.Mixture.uniform(op=[6], themes=["symbolic"])
    known, sampled = graphs_of(mixture), graphs_of(mixture, draws=5000, ways=10)
    assert isinstance(known, KnownKinds) and isinstance(sampled, SampledKinds)
    assert sampled.draws == 5000
    assert sampled.number == known.number == 20  # each comes often
    assert sampled.shown(100).kinds == pytest.approx(known.shown(100).kinds, abs=0.05)
    assert sampled.shown(100).draws == pytest.approx(known.shown(100).draws, abs=0.01)


def test_cells_of_an_op_are_one_law_and_words_do_not_matter():
    both = fr.Mixture.uniform(op=[5], themes=["zoo", "symbolic"]) + fr.Mixture.uniform(op=[5], modes=["reverse"])
    forward, reverse = (dict(zip(*law_of(op=5, mode=mode), strict=True)) for mode in ("forward", "reverse"))
    want = sorted(forward.get(g, 0) / 2 + reverse.get(g, 0) / 2 for g in {*forward, *reverse})
    assert sorted(graphs_of(both).probabilities.tolist()) == pytest.approx(want)


def test_the_table_says_what_training_shows_and_warns():
    rows = count_graphs(fr.Mixture.uniform(op=[3, 6], themes=["symbolic"]), draws=2000, ways=30)
    text = format_graphs(rows, 10_000)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["op", "problems", "tokens"]
    assert lines[1].split()[:2] == ["3", "50.0"] and lines[2].split()[:2] == ["6", "50.0"]
    assert "at least about so many" in text
    assert lines[-1].startswith("warning: op 3: every graph comes more than 10 times on average")
    assert "documents" not in format_graphs(rows)
    # more than ten, not ten
    two = KnownKinds(np.array([0.5, 0.5]))
    assert warn_often([(3, two, 20.0)]) == []
    assert "op 3, 9: every" in warn_often([(3, two, 20.1), (4, two, 1.0), (9, two, 99.0)])[0]


def test_the_command(capsys):
    parts = '[{"op": [2, 3], "themes": ["symbolic"], "max_value": 99}]'
    assert main(["info", "--mixture", parts, "--tokens", "1e5", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 cells, themes symbolic" in out and "exact" in out and "warning: op 2, 3:" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mixture", "nothing"], "preset must be one of"),
        (["--mixture", '[{"op": [2]'], "--mixture is no JSON"),
        (["--mixture", "[]"], "must have at least one part"),
        (["--mixture", "pretrain", "--tokens", "0"], "--tokens must be a number > 0, got 0"),
        (["--mixture", "pretrain", "--draws", "1"], "--draws must be at least 2, got 1"),
        (["--mixture", "pretrain", "--threads", "-1"], "threads must be an integer in 0"),
    ],
)
def test_bad_input_is_named_before_any_work(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(_core, "graph_law", None)
    assert main(["info", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_going_through_all_draws_can_be_interrupted():
    import _thread
    import threading

    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        law_of(op=12, ways=10**12)
    timer.join()
