"""Launch configurations: the table is sound, the right entry is chosen, tuning finds the fastest and repairs inputs."""

import ast
from pathlib import Path

import pytest
import torch

from fastreason.kernels import launch as module
from fastreason.kernels.launch import Entry, arch_of, configuration, entries, launch, tune, tuned_table
from fastreason.kernels.triton_support import INTERPRETED, OutOfResources, as_if_on, runs_triton

X = torch.zeros(1)


def test_every_entry_has_a_reason_and_launches_something():
    for name, rows in entries().items():
        for row in rows:
            assert row.why.strip(), name
            assert {"num_warps", "num_stages"} <= row.use.keys(), name
            assert row.candidates.keys() <= row.use.keys(), name
        # the same condition twice: the second entry would never be chosen
        assert len({(row.arch, tuple(sorted(row.when.items()))) for row in rows}) == len(rows), name
        # the oldest architecture that is supported has an entry
        assert min(row.arch for row in rows) == 80, name


@pytest.fixture
def table(monkeypatch):
    rows = (
        Entry(80, {"BLOCK": 1}, "first"),
        Entry(80, {"BLOCK": 2}, "wide heads", when={"head_dim": 128}),
        Entry(80, {"BLOCK": 6}, "behind an entry that asks for as much", when={"itemsize": 2}),
        Entry(90, {"BLOCK": 3}, "newer", candidates={"BLOCK": [3, 4, 5]}),
    )
    monkeypatch.setattr(module, "entries", lambda: {"k": rows})
    module._chosen.cache_clear()
    yield rows
    module._chosen.cache_clear()


@pytest.mark.parametrize(
    "arch, facts, block",
    [(80, {}, 1), (86, {"head_dim": 64}, 1), (80, {"head_dim": 128, "itemsize": 2}, 2), (90, {}, 3), (120, {}, 3)],
)
def test_the_newest_then_the_most_specific_entry_is_chosen(table, arch, facts, block):
    with as_if_on(arch):
        assert configuration("k", X, **facts) == {"BLOCK": block, "enable_fp_fusion": True}
        assert launch("k", X, lambda config: config["BLOCK"], **facts) == block


def test_an_older_gpu_has_no_entry(table):
    with as_if_on(75), pytest.raises(KeyError, match="k has no entry for sm_75"):
        configuration("k", X)


def test_on_cpu_the_arch_is_the_pretended_one():
    assert arch_of(X) == 90
    assert runs_triton(X) == INTERPRETED
    with as_if_on(80):
        assert arch_of(X) == 80
        assert runs_triton(X)
    assert runs_triton(X) == INTERPRETED


def test_candidates_are_combined_and_begin_with_the_present_one():
    entry = Entry(80, {"A": 2, "B": 1, "num_warps": 4}, "", candidates={"A": [1, 2], "B": [1, 3]})
    tried = [(config["A"], config["B"], config["num_warps"]) for config in entry.configs()]
    assert tried == [(2, 1, 4), (1, 1, 4), (1, 3, 4), (2, 3, 4)]


def test_tuning_takes_the_fastest_that_fits_and_puts_inputs_back():
    changed = torch.tensor([1.0, 2.0])

    def call(config):
        assert config["enable_fp_fusion"]
        assert changed.tolist() == [1.0, 2.0]  # as at the first call
        changed.zero_()
        if config["BLOCK"] == 1:
            raise OutOfResources(300000, 200000, "shared memory")
        return config["BLOCK"]

    def timer(work):
        return {2: 5.0, 3: 4.0, 4: 9.0}[work()]

    best, timed = tune(call, [{"BLOCK": b} for b in (1, 2, 3, 4)], timer, [changed])
    assert best == {"BLOCK": 3}
    assert [time for time, _ in timed] == [4.0, 5.0, 9.0]
    assert changed.tolist() == [1.0, 2.0]


def test_tuning_says_when_nothing_fits():
    def call(config):
        raise OutOfResources(300000, 200000, "shared memory")

    with pytest.raises(RuntimeError, match="no configuration of a kernel fits this GPU"):
        tune(call, [{"BLOCK": 1}], lambda work: work())


def test_what_was_tuned_is_printed_as_an_entry_to_commit(table, monkeypatch):
    import tomllib

    timed = [(0.002, {"BLOCK": 4}), (0.003, {"BLOCK": 3})]
    monkeypatch.setattr(module, "_found", {("k", 90, ()): (timed[0][1], timed)})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test 9000")
    (entry,) = tomllib.loads(tuned_table())["k"]
    assert entry["use"] == {"BLOCK": 4}
    assert entry["try"] == {"BLOCK": [3, 4, 5]}
    by = f"NVIDIA Test 9000 with Triton {module.triton_support.triton.__version__}"
    assert entry["why"] == f"tuned on {by}: 2.0 us, 3.0 us with the entry before"


def test_on_request_the_first_launch_tunes_and_all_use_what_was_found(table, monkeypatch):
    class OnCuda:
        is_cuda = True

        def get_device(self):
            return -1  # torch.cuda.device_of then changes nothing

    calls = []

    def call(config):
        calls.append(config["BLOCK"])
        return config["BLOCK"]

    monkeypatch.setattr(module, "AUTOTUNE", True)
    monkeypatch.setattr(module, "_found", {})
    monkeypatch.setattr(module, "_milliseconds", lambda work: {3: 2.0, 4: 1.0, 5: 3.0}[work()])
    with as_if_on(90):
        assert launch("k", OnCuda(), call) == 4
        assert launch("k", OnCuda(), call) == 4
        assert launch("k", X, call) == 3  # on CPU nothing is tuned
    assert calls == [3, 4, 5, 4, 4, 3]


def test_nothing_is_tuned_by_default(table):
    assert not module.AUTOTUNE
    with as_if_on(90):
        assert launch("k", X, lambda config: config["BLOCK"]) == 3


def test_kernels_run_on_the_gpu_of_their_tensors(table, monkeypatch):
    """Triton takes the current one, so that of the tensors is made the current one."""
    at = []

    class Guard:
        def __init__(self, x):
            self.x = x

        def __enter__(self):
            at.append(self.x)

        def __exit__(self, *_):
            at.pop()

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    assert launch("k", X, lambda config: at[-1]) is X
    assert not at


def test_every_kernel_is_launched_through_launch():
    """Or it would run on whichever GPU is the current one: each is called in a function that is handed to `launch`."""
    total = 0
    for path in sorted(Path(module.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        handed = {call.args[2].id for call in calls if isinstance(call.func, ast.Name) and call.func.id == "launch"}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in handed]
        inside = {line for function in functions for line in _launches(function)}
        assert set(_launches(tree)) == inside, path.name
        total += len(inside)
    assert total >= 15


def _launches(tree):
    """Lines of launches of Triton kernels."""
    return [
        call.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Subscript)
        and ast.unparse(call.func.value).endswith("_kernel")
    ]
