"""The graph of a problem as Python sees it, and as a picture."""

import re
from xml.etree import ElementTree

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.tasks.graph_svg import graph_svg
from tests import published

KINDS = [("forward", 2), ("forward", 3), ("reverse", 2), ("reverse", 3)]


def batch_of(theme, mode="forward", depth=2, count=60):
    mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=[mode], depths=[depth])
    return fr.TaskStream(mixture, seed=6)[0:count]


@pytest.mark.parametrize("mode, depth", KINDS)
def test_values_follow_along_the_edges(mode, depth):
    batch = batch_of("zoo", mode, depth)
    for i in range(len(batch)):
        graph = batch.graph(i)
        needed = [quantity for quantity in graph.quantities if quantity.necessary]
        assert needed == list(graph.quantities[: len(needed)]) and needed[-1].target
        for quantity in needed:
            values = [graph.quantities[p].value for p in quantity.parents]
            assert None not in values and all(p < graph.quantities.index(quantity) for p in quantity.parents)
            if quantity.kind == "average total":
                assert quantity.value == sum(a * b for a, b in zip(values[::2], values[1::2], strict=True))
                continue
            base = values[0] - values[1] if quantity.minus else sum(values)
            k = quantity.constant
            assert quantity.value == (
                base if k is None else k if not values else k * base if quantity.times else k + base
            )
        asked = [q for q in graph.quantities if (q.unknown if mode == "reverse" else q.target)]
        assert [q.value for q in asked] == [graph.answer] == [batch.answers[i]]
        assert graph.question == batch.questions[i]


@pytest.mark.parametrize("mode, depth", KINDS)
def test_it_is_the_graph_that_the_texts_state(mode, depth):
    """An independent reader of the solution finds the same names, values and parents."""
    batch = batch_of("zoo", mode, depth)
    for i in range(len(batch)):
        graph = batch.graph(i)
        named = [q for q in graph.quantities if q.necessary and q.kind != "special"]
        steps, _, _ = published.read_solution(batch.solutions[i])
        assert [step.name for step in steps] == [q.name for q in named]
        for step, quantity in zip(steps, named, strict=True):
            # a special and its average have one name
            assert set(step.parents) == {graph.quantities[p].name for p in quantity.parents}
        stated = [q for q in graph.quantities if q.sentence is not None]
        assert len(graph.sentences) == len(stated) + (mode == "reverse")
        for quantity in stated:
            assert re.match(
                f"The (number of )?{re.escape(quantity.name)} (equals|is|exists)", graph.sentences[quantity.sentence]
            )


def test_symbolic_sentences_belong_to_their_quantities():
    batch = batch_of("symbolic")
    for i in range(len(batch)):
        graph = batch.graph(i)
        for quantity in graph.quantities:
            if quantity.sentence is not None:
                assert graph.sentences[quantity.sentence].startswith(quantity.name + ": ")


def test_definitions_are_short():
    found = {
        graph.definition(i)
        for b in (batch_of("zoo", *kind) for kind in KINDS)
        for j in range(60)
        for graph in [b.graph(j)]
        for i in range(len(graph.quantities))
    }
    assert {"3", "2 + a", "3 * a", "a", "a + b", "a - b", "2 * (a + b)", "a * b + c * d", "1 + a - b"} <= found


def test_an_index_beyond_the_batch_is_an_error():
    for i in (-1, 60):
        with pytest.raises(IndexError, match=f"graph: index {i} of 60 problems"):
            batch_of("zoo").graph(i)


# --- pictures -------------------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg):
    """(class, hover text, x, y, width, height) of every quantity."""
    root = ElementTree.fromstring(svg)
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        place = [float(box.get(name)) for name in ("x", "y", "width", "height")]
        yield group.get("class"), group.find(f"{SVG}title").text, *place


@pytest.mark.parametrize("theme, mode, depth", [("zoo", *kind) for kind in KINDS] + [("symbolic", "forward", 2)])
def test_every_quantity_has_a_box_of_its_own_within_the_sheet(theme, mode, depth):
    batch = batch_of(theme, mode, depth)
    for i in range(len(batch)):
        graph = batch.graph(i)
        svg = graph_svg(graph)
        root, found = ElementTree.fromstring(svg), list(boxes(svg))
        assert len(found) == sum(q.kind != "special" for q in graph.quantities)
        width, height = float(root.get("width")), float(root.get("height"))
        for k, (_, _, x, y, w, h) in enumerate(found):
            assert x >= 0 and y > 50 and x + w <= width and y + h <= height
            assert all(abs(x - x2) >= w or abs(y - y2) >= h for _, _, x2, y2, _, _ in found[k + 1 :])
        roles = [role for role, *_ in found]
        assert roles.count("asked") == 1 and roles.count("told") == (mode == "reverse")
        assert roles.count("pale") == sum(not q.necessary and q.kind != "special" for q in graph.quantities)
        hovers = [hover for _, hover, *_ in found]
        assert set(graph.sentences) - set(hovers) <= {s for s in graph.sentences if mode == "reverse"}


def test_edges_lead_from_parent_to_child():
    batch = batch_of("symbolic")
    for i in range(20):
        graph = batch.graph(i)
        root = ElementTree.fromstring(graph_svg(graph))
        edges = [path for path in root.iter(f"{SVG}path") if path.get("class").startswith("edge")]
        assert len(edges) == sum(len(set(q.parents)) for q in graph.quantities)
        needed = [e for e in edges if e.get("class") == "edge"]
        assert len(needed) == sum(len(set(q.parents)) for q in graph.quantities if q.necessary)


def test_the_command_line_draws(tmp_path):
    path = tmp_path / "a.svg"
    assert (
        main(["generate", "--graph", str(path), "--op", "7", "--modes", "reverse", "--depths", "3", "--seed", "5"]) == 0
    )
    svg = path.read_text()
    assert "prefers-color-scheme: dark" in svg
    mixture = fr.Mixture.uniform(op=[7], modes=["reverse"], depths=[3])
    assert svg == graph_svg(fr.TaskStream(mixture, seed=5)[0].graph(0))
