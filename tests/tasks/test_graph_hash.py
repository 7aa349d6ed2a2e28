"""The identity of a nameless graph: equal where graphs are isomorphic, and nowhere else."""

from collections import defaultdict

import networkx as nx
import numpy as np
import pytest

import fastreason as fr


def digraph(batch: fr.ProblemBatch, i: int) -> nx.DiGraph:
    """The needed quantities of a problem without names and numbers; a special is its average. A product is a node."""
    nodes = [node for node in batch.core.graph(i) if node["value"] is not None]
    alias = [node["parents"][0] if node["type"] == "special" else k for k, node in enumerate(nodes)]
    graph = nx.DiGraph()
    for k, node in enumerate(nodes):
        if alias[k] != k:
            continue
        sort = (node["type"], node["constant"] is not None, node["times"], node["minus"])
        graph.add_node(k, label=(sort, False))
        parents = [alias[parent] for parent in node["parents"]]
        if node["type"] == "average total":
            for count, average in zip(parents[::2], parents[1::2], strict=True):
                graph.add_node((k, count), label="product")
                graph.add_edges_from([(count, (k, count)), (average, (k, count)), ((k, count), k)], subtracted=False)
        else:
            for j, parent in enumerate(parents):
                graph.add_edge(parent, k, subtracted=node["minus"] and j == 1)
    target = alias[next(k for k, node in enumerate(nodes) if node["target"])]
    graph.nodes[target]["label"] = (graph.nodes[target]["label"][0], True)
    return graph


def isomorphic(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    return nx.is_isomorphic(a, b, node_match=lambda x, y: x["label"] == y["label"], edge_match=lambda x, y: x == y)


def invariant(graph: nx.DiGraph) -> tuple:
    """The same for isomorphic graphs, and cheap."""
    return tuple(sorted(repr((graph.nodes[v]["label"], graph.in_degree(v), graph.out_degree(v))) for v in graph))


# op 5: all graphs come often; 8 and 10: alike quantities of which one is used elsewhere, too; depth 3: products
@pytest.mark.parametrize(
    "op, depth, mode", [(5, 2, "forward"), (8, 2, "forward"), (10, 2, "reverse"), (7, 3, "forward")]
)
def test_equal_hashes_are_isomorphic_graphs_and_no_others(op, depth, mode):
    mixture = fr.Mixture.uniform(op=[op], themes=["zoo"], depths=[depth], modes=[mode])
    batch = fr.TaskStream(mixture, seed=0)[0:1000]
    by_hash, by_shape = defaultdict(list), defaultdict(dict)
    for i, value in enumerate(batch.graph_hashes.tolist()):
        graph = digraph(batch, i)
        by_hash[value].append(graph)
        by_shape[invariant(graph)][value] = graph
    alike = [(first, other) for first, *others in by_hash.values() for other in others[:4]]
    assert len(alike) > 50
    assert all(isomorphic(*pair) for pair in alike)
    different = [
        (a, b)
        for shapes in by_shape.values()
        for i, a in enumerate(list(shapes.values())[:5])
        for b in list(shapes.values())[i + 1 : 5]
    ]
    assert different or op == 5
    assert not any(isomorphic(*pair) for pair in different)


def test_alike_quantities_are_told_apart_by_what_uses_them():
    """Two leaves that are alike, of which one is used twice: who uses it makes another graph of it."""
    batch = fr.TaskStream(fr.Mixture.uniform(op=[8], themes=["symbolic"]), seed=0)[0:3000]
    by_history = defaultdict(set)
    for i, value in enumerate(batch.graph_hashes.tolist()):
        by_history[history(digraph(batch, i))].add(value)
    assert any(len(values) > 1 for values in by_history.values())


def history(graph: nx.DiGraph) -> str:
    """Every quantity with all that it follows from, as a tree; the first pass of the hash sees no more."""
    trees: dict = {}
    for node in nx.topological_sort(graph):
        parents = sorted((graph.edges[p, node]["subtracted"], trees[p]) for p in graph.predecessors(node))
        trees[node] = repr((graph.nodes[node]["label"], parents))
    return repr(sorted(trees.values()))


def test_names_numbers_and_padding_leave_it_as_it_is():
    plain = fr.Mixture.uniform(op=[6, 9], themes=["zoo"])
    first = fr.TaskStream(plain, seed=4)[0:300].graph_hashes
    for other in (plain.replace(theme="school"), plain.replace(theme="symbolic"), plain.replace(context=500)):
        # the same draws up to the words, whose number decides the split: so the first draw of most problems
        assert np.mean(fr.TaskStream(other, seed=4)[0:300].graph_hashes == first) > 0.6


def test_of_a_stream_without_its_texts_they_are_those_of_its_problems():
    stream = fr.TaskStream(fr.Mixture.uniform(op=[3, 7], themes=["symbolic"]), seed=9, split="rl")
    want = stream[0:400].graph_hashes
    for threads in (1, 3):
        np.testing.assert_array_equal(stream.graph_hashes(0, 400, threads=threads), want)
    np.testing.assert_array_equal(stream.graph_hashes(5, 50, step=7), want[5 : 5 + 7 * 50 : 7])
    assert stream.graph_hashes(3, 0).shape == (0,)
    for arguments, message in [
        ((-1, 2), "first must be"),
        ((0, -1), "count must be"),
        ((2**62, 2**62 + 9), "2\\*\\*63"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream.graph_hashes(*arguments)
    with pytest.raises(ValueError, match="step must be"):
        stream.graph_hashes(0, 1, step=0)
