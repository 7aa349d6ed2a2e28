"""All graphs that the law can draw at depth 2, forward: written from docs/tasks.md, set by set, without random numbers.

Every step maps the set of what can stand before it to the set of what can stand behind it, so that what only differs in
how it came about is counted once. Graphs are told apart by brute force over all orders of their nodes.
"""

from itertools import combinations_with_replacement, permutations, product

RNG = -1
SIZE = {2: 2, 3: 2, 4: 2, 5: 3, 6: 3}  # s, by op


def structures(size):
    """Kinds of each place, falling: two to five places (both widths are at least 2) and as many edges as fit."""
    assert size <= 5
    for places in range(2, 6):
        for degrees in combinations_with_replacement(range(1, 6), places):
            edges = sum(degrees)
            # each of 2 .. 5 kinds needs a place, and none has a kind twice
            if edges <= 20 and any(max(degrees) <= kinds <= edges for kinds in range(2, 6)):
                yield tuple(reversed(degrees))


def stage1(size, degrees):
    """(kinds of the places whose totals are needed, further counts, counts that there are)"""
    found = set()

    def go(taken, left, n):
        k = sum(taken)
        fitting = [p for p in left if k + p <= n]
        for p in set(fitting):
            rest = list(left)
            rest.remove(p)
            go((*taken, p), tuple(rest), n)
        if len(fitting) < len(left) or not left:  # one that does not fit, or none, ends it
            for m in range(n, size + 1):
                extra = min(max(0, m - k - 1), sum(degrees) - k)
                if taken or extra:
                    found.add((tuple(sorted(taken)), extra, sum(degrees)))

    for n in range(1, size + 1):
        go((), degrees, n)
    return found


def members(taken, extra):
    """parts by total, and the counts, as numbers from 0."""
    parts, counts = {}, []
    for kinds in taken:
        total = len(parts) + len(counts)
        parts[total] = tuple(range(total + 1, total + 1 + kinds))
        counts += parts[total]
    first = len(parts) + len(counts)
    return parts, counts + list(range(first, first + extra))


def stage2(parts, counts):
    """Orders, parents first, and the forced parent of each count: {(topo, ((count, parent), ...))}."""
    everything, found = {*parts, *counts}, set()

    def go(topo, forced):
        if len(topo) == len(everything):
            found.add((topo, tuple(sorted(forced.items()))))
            return
        for x in choices(topo, forced):
            now = (x, *topo)
            if len(now) == len(everything):
                go(now, forced)
                continue
            near, free = near_free(now, forced)
            if not near & free:
                for y in () if x in parts else free:
                    go(now, {**forced, x: y})
                continue
            go(now, forced)
            if x not in parts:
                for y in everything - {*now}:
                    go(now, {**forced, x: y})

    def near_free(topo, forced):
        still = everything - {*topo}
        needed = {y for x in topo for y in (*parts.get(x, ()), *([forced[x]] if x in forced else []))}
        return still & needed, still - {y for x in still for y in parts.get(x, ())}

    def choices(topo, forced):
        near, free = near_free(topo, forced)
        return free & near if topo else free

    go((), {})
    return found


def patched(topo, forced, counts, available):
    """A chain of two may get one more count, before it or behind it."""
    yield topo, dict(forced), counts
    if len(topo) == 2 and available > len(counts):
        z = max(topo) + 1
        yield (z, *topo), {**dict(forced), topo[0]: z}, [*counts, z]
        yield (*topo, z), {**dict(forced), z: topo[1]}, [*counts, z]


def in_degrees(topo, forced, parts, counts, size):
    """What the counts' in-degrees can become."""
    now = {tuple(1 if v in forced else 0 for v in topo)}
    fixed = sum(len(parts[v]) for v in topo if v in parts)
    most = [min(3, max(1, i)) for i in range(len(topo))]
    while now and fixed + sum(next(iter(now))) < size:
        grown = set()
        for c in now:
            for i, v in enumerate(topo):
                if v in counts and c[i] < most[i]:
                    grown.add((*c[:i], c[i] + 1, *c[i + 1 :]))
        now = grown
    return now


def parent_lists(place, degree, forced):
    """What a count can follow from, in order: places in topo, and RNG; `forced` is a place or None."""
    pool = [RNG, *range(place)]
    found = set()
    for k in (1, 2) if degree == 1 else (degree + 1,):
        k = min(k, len(pool))
        rest, start = list(pool), ()
        if forced is not None:
            rest, k, start = rest[:-1], k - 1, (forced,)
        if k == len(rest):
            found.add(joined(start, rest))
            continue
        for with_rng in (True, False):
            others = [p for p in rest if p != RNG]
            for chosen in permutations(others, max(0, k - with_rng)):
                found.add(joined(start, [RNG] * with_rng + list(chosen)))
    return found


def joined(start, more):
    """In order of insertion, nothing twice."""
    return tuple(dict.fromkeys([*start, *more]))


def graphs(op, max_value=1000, number_range=5, max_sentences=50):
    """The isomorphism classes of all problems of `op`."""
    drawn = set()
    size = SIZE[op]
    starts = {s for degrees in structures(size) if sum(degrees) <= max_sentences for s in stage1(size, degrees)}
    for taken, extra, available in starts:
        parts, own = members(taken, extra)
        for order, forced_pairs in stage2(parts, own):
            for topo, forced, counts in patched(order, forced_pairs, own, available):
                place = {v: i for i, v in enumerate(topo)}
                for degrees in in_degrees(topo, forced, parts, counts, size):
                    options = []
                    for i, v in enumerate(topo):
                        if v in parts:
                            options.append([("total", tuple(place[p] for p in parts[v]))])
                        else:
                            before = place[forced[v]] if v in forced else None
                            options.append([("count", found) for found in parent_lists(i, degrees[i], before)])
                    for nodes in product(*options):
                        if sum(len(parents) for _, parents in nodes) == op:
                            drawn.add(nodes)
    return {
        isomorphism_class(nodes)
        for plain in drawn
        for nodes in with_operators(plain)
        if solvable(nodes, max_value, number_range)
    }


def with_operators(nodes):
    """(sort, constant: none, plus, times or alone; parents; which of them is subtracted) of each."""
    options = []
    for sort, found in nodes:
        parents = tuple(p for p in found if p != RNG)
        constants = ["none"] if RNG not in found else ["plus", "times"] if parents else ["alone"]
        minus = [None, parents[1]] if sort == "count" and len(parents) == 2 else [None]
        options.append([(sort, constant, parents, m) for constant in constants for m in minus])
    return product(*options)


def solvable(nodes, max_value, number_range):
    """Whether some constants give every quantity an admissible value."""
    ranges = [
        range(2 if constant == "times" else 1, number_range) if constant != "none" else [0]
        for _, constant, _, _ in nodes
    ]
    for constants in product(*ranges):
        values = []
        for (_, constant, parents, minus), kappa in zip(nodes, constants, strict=True):
            base = sum(-values[p] if p == minus else values[p] for p in parents)
            values.append(kappa * base if constant == "times" else kappa + base)
            if not 1 <= values[-1] <= max_value:  # without averages a total of counts is never 0
                break
        else:
            return True
    return False


def isomorphism_class(nodes):
    """The least of the forms under all orders of the nodes; the last one is asked."""
    last = len(nodes) - 1
    forms = []
    for order in permutations(range(len(nodes))):
        rows = [None] * len(nodes)
        for i, (sort, constant, parents, minus) in enumerate(nodes):
            subtracted = -1 if minus is None else order[minus]
            rows[order[i]] = (sort, constant, tuple(sorted(order[p] for p in parents)), subtracted, i == last)
        forms.append(tuple(rows))
    return min(forms)
