"""gpu-check on CPU, with a suite that only says which operation it was asked for."""

import pytest

pytest.importorskip("triton")

from bench.harness.records import read_run
from bench.harness.run_suite import Collected
from bench.kernels import gpu_check
from bench.kernels.gpu_check import main
from bench.kernels.operations import OPS

from .runs import record


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Runs main on a machine with a GPU; operations in `broken` fail, those in `killed` end the process."""

    def run(*arguments, broken=(), killed=(), tests=lambda: True):
        def suite(name, settings, peaks, *, only):
            assert name == "kernels" and peaks == {"matmul_gpu": 1.0}
            if only in killed:
                raise KeyboardInterrupt
            return Collected([record(only)], {}, "it broke" if only in broken else "")

        monkeypatch.setattr(gpu_check, "machine_peaks", lambda: {"matmul_gpu": 1.0})
        monkeypatch.setattr(gpu_check, "run_suite", suite)
        return main([*arguments, "--out", str(tmp_path / "gpu.json")], has_gpu=lambda: True, tests=tests)

    return run


def test_without_a_gpu_it_says_so_and_exits_2(capsys):
    assert main([], has_gpu=lambda: False) == 2
    assert "gpu-check needs an NVIDIA GPU" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["no_such_operation"])


def test_every_operation_is_timed_and_failures_fail_the_check(check, tmp_path, capsys):
    assert check() == 0
    assert [one.what for one in read_run(tmp_path / "gpu.json").records] == list(OPS)
    assert check("swiglu", "rope", broken=["swiglu"]) == 1
    assert "it broke" in capsys.readouterr().out
    assert [one.what for one in read_run(tmp_path / "gpu.json").records] == ["swiglu", "rope"]
    assert check("swiglu", tests=lambda: False) == 1
    assert check("swiglu", "--no-tests", tests=lambda: pytest.fail("was run")) == 0


def test_what_was_timed_is_there_when_it_is_stopped(check, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        check("swiglu", "rope", "attention", killed=["attention"])
    assert [one.what for one in read_run(tmp_path / "gpu.json").records] == ["swiglu", "rope"]
