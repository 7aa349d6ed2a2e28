"""Ahead-of-time compilation: every kernel stays within its budget, and the audit sees what it says it sees."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.kernels.audit import ARCHS, TARGETS, Audited, audit_operation, broken_rules, over_budget, table
from bench.kernels.budgets import path_of, read_budgets, record_budgets
from bench.kernels.compile_without_gpu import recorded
from bench.kernels.machine_code import Access, Figures, accesses, figures_of, occupancy, read_code
from fastreason.kernels.triton_support import INTERPRETED, tl, triton

# the interpreter takes the place of kernels when they are decorated
needs_compiler = pytest.mark.skipif(INTERPRETED, reason="needs kernels that are compiled")


# a minute of compiling for each; `make audit` has all
@needs_compiler
@pytest.mark.parametrize("arch", [90, *(pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS if arch != 90)])
def test_kernels_stay_within_their_budgets(arch):
    done = subprocess.run(
        [sys.executable, "-m", "bench.kernels.audit", "--arch", str(arch)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kernels are within their budgets" in done.stdout


@needs_compiler
def test_attention_spills_nothing_and_fits_on_sm_120():
    """The part with 99 KB of shared memory, which no other test compiles for."""
    found, budgets = audit_operation("attention", "d128", torch.bfloat16, 120), read_budgets()
    broken = [broken_rules(one) + over_budget(one.figures, budgets[one.key]["120"]) for one in found]
    assert broken == [[], [], []]


@triton.jit
def _product(a_ptr, b_ptr, c_ptr, n, M: tl.constexpr, K: tl.constexpr):
    m, k = tl.arange(0, M), tl.arange(0, K)
    c = tl.zeros([M, M], tl.float32)
    for i in range(n):
        a = tl.load(a_ptr + m[:, None] * (n * K) + i * K + k[None, :])
        b = tl.load(b_ptr + (i * K + k[:, None]) * M + m[None, :])
        c = tl.dot(a, b, c)
    tl.store(c_ptr + m[:, None] * M + m[None, :], c.to(c_ptr.dtype.element_ty))


@needs_compiler
@pytest.mark.parametrize("arch, instruction", [(80, "HMMA"), (90, "HGMMA"), (100, "UTCHMMA")])
def test_tensor_cores_and_asynchronous_copies_are_seen(arch, instruction):
    a, b, c = (torch.empty(64 * 64, dtype=torch.bfloat16) for _ in range(3))
    with recorded(arch) as launches:
        _product[(1,)](a, b, c, 8, M=64, K=64, num_warps=4, num_stages=3, enable_fp_fusion=True)
    (compiled,) = launches
    assert (compiled.name, compiled.constants, compiled.num_warps) == ("_product", {"M": 64, "K": 64}, 4)
    assert compiled.fp_fusion is True
    figures = figures_of(compiled, arch)
    assert instruction in figures.tensor_cores
    assert (figures.spilled_bytes, figures.narrow) == (0, ())
    assert (figures.widest_bits, figures.narrowest_bits) == (128, 128)
    assert figures.shared_bytes >= 2 * 2 * 64 * 64  # a tile of each operand at least


@triton.jit
def _copy(x_ptr, y_ptr, stride, BLOCK: tl.constexpr):
    at = tl.program_id(0) * stride + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), x)


@needs_compiler
@pytest.mark.parametrize("stride, is_narrow", [(2048, False), (2200, True)])
def test_what_is_specialised_at_launch_decides_the_width(stride, is_narrow):
    """A row stride of 2,200 is no multiple of 16, so that the compiler may not assume aligned rows."""
    x = torch.empty(4 * stride, dtype=torch.bfloat16)
    with recorded(90) as launches:
        _copy[(4,)](x, torch.empty_like(x), stride, BLOCK=2048, num_warps=4)
    figures = figures_of(launches[0], 90)
    assert figures.widest_bits == 128
    assert figures.narrow == (("x = tl.load(x_ptr + at) (16 bits)",) if is_narrow else ())
    assert launches[0].fp_fusion is None


@triton.jit
def _sort_of(x_ptr, y_ptr, BLOCK: tl.constexpr):
    m = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + m[:, None] * BLOCK + m[None, :])
    # both orders of a tile that is too large for the registers of one warp
    y = tl.exp(x) + tl.trans(x)
    tl.store(y_ptr + m[:, None] * BLOCK + m[None, :], y * tl.sum(y, axis=0)[None, :])


@needs_compiler
def test_spills_are_seen():
    x = torch.empty(128, 128)
    with recorded(90) as launches:
        _sort_of[(1,)](x, torch.empty_like(x), BLOCK=128, num_warps=1)
    assert figures_of(launches[0], 90).spilled_bytes > 0


@needs_compiler
def test_recording_computes_nothing_and_ends():
    from fastreason.kernels import swiglu

    x = torch.ones(3, 8)
    with recorded(80) as launches:
        assert swiglu(x).shape == (3, 4)
    assert len(launches) == 1
    before = swiglu(x)  # on CPU again: the definition
    assert torch.equal(before, torch.full((3, 4), torch.nn.functional.silu(torch.tensor(1.0)).item()))
    assert len(launches) == 1


@pytest.mark.skipif(not INTERPRETED, reason="says what is wrong under the interpreter")
def test_the_interpreter_cannot_be_audited():
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"), recorded(90):
        pass


def test_figures_are_read_from_the_tools_text():
    dump = """
 Function k:
  REG:40 STACK:0 SHARED:32 LOCAL:16 CONSTANT[0]:592
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/                   STL [R1], R4 ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0030*/             @P0   LDL R4, [R1] ;
    """
    assert read_code(dump) == (40, 16 + 2 * 4, 4, "HGMMA")


def test_accesses_are_matched_by_their_line():
    ttir = """
#loc = loc("k.py":3:0)
#loc4 = loc("k.py":7:11)
#loc5 = loc("x"(#loc4))
#loc6 = loc("k.py":9:4)
#loc7 = loc(callsite(#loc6 at #loc4))
    %x = tt.load %p, %m, %o : tensor<2x1024x!tt.ptr<bf16>> loc(#loc5)
    %n = tt.load %q : !tt.ptr<i32> loc(#loc)
    tt.store %r, %x, %m : tensor<64x!tt.ptr<f32>> loc(#loc7)
    %y = tt.load %p : tensor<1024x!tt.ptr<f32>> loc(#loc6)
"""
    ptx = """
	.loc	1 7 11                          // k.py:7:11
	@%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
	@%p1 ld.global.L1::evict_first.v2.b32 { %r1, %r2 }, [ %rd1 + 8 ];
	.loc	1 3 0
	ld.global.b32 { %r9 }, [ %rd2 + 0 ];
	.loc	1 9 4
	cp.async.cg.shared.global [ %r6 + 0 ], [ %rd18 + 0 ], 0x10, %r7;
	st.global.b16 [ %rd3 + 0 ], { %rs1 };
	.file	1 "k.py"
"""
    assert accesses(ttir, ptx) == [
        Access("k.py:7", 4096, 64),
        Access("k.py:3", 0, 32),
        Access("k.py:9", 4096, 128),
        Access("k.py:9", 256, 16),
    ]


@pytest.mark.parametrize(
    "arch, registers, shared, warps, share",
    [
        (90, 32, 0, 4, 1.0),
        (90, 33, 0, 4, 0.75),  # 40 registers a thread, 12 programs
        (90, 255, 0, 8, 0.125),
        (80, 64, 80 << 10, 4, 0.125),  # two of 81 KiB in 164
        (90, 64, 80 << 10, 4, 0.125),
        (90, 16, 0, 1, 0.5),  # 32 programs of one warp
        (120, 16, 0, 1, 0.5),  # 24 of 48 warps
        (120, 255, 98 << 10, 8, 8 / 48),
    ],
)
def test_occupancy(arch, registers, shared, warps, share):
    assert occupancy(arch, registers, shared, warps) == share


def audited(figures, **changes):
    values = {"operation": "o", "kernel": "k", "dtype": "bf16", "arch": 90, "tensor_cores": "", "may_be_narrow": ""}
    return Audited(figures=figures, **{**values, "fp_fusion": True, **changes})


CLEAN = Figures(32, 0, 1024, "HMMA", 128, 128, (), 100, 4, 1.0)


def test_rules_that_hold_whatever_the_budget():
    assert broken_rules(audited(CLEAN)) == []
    assert broken_rules(audited(CLEAN, tensor_cores="HMMA")) == []
    assert broken_rules(audited(CLEAN, tensor_cores="HGMMA")) == ["no HGMMA among its instructions"]
    assert broken_rules(audited(CLEAN, tensor_cores="HGMMA", arch=80)) == []
    assert broken_rules(audited(CLEAN, fp_fusion=None)) == ["leaves enable_fp_fusion to Triton's default"]
    bad = Figures(32, 8, 168 << 10, "", 128, 32, ("tl.load(x) (32 bits)",), 100, 4, 1.0)
    worse = ["narrow: tl.load(x) (32 bits)", "spills 8 bytes"]
    assert broken_rules(audited(bad)) == worse
    assert broken_rules(audited(bad, may_be_narrow="a reason")) == worse[1:]
    too_much = f"shared memory {168 << 10} > {163 << 10}"
    assert broken_rules(audited(bad, arch=80, tensor_cores="HMMA")) == [
        *worse,
        too_much,
        "no MMA among its instructions",
    ]


def test_budgets_are_upper_limits():
    budget = {"registers": 32, "shared_bytes": 512, "instructions": 120}
    assert over_budget(CLEAN, budget) == ["shared_bytes 1024 > 512"]
    assert over_budget(CLEAN, None) == ["no budget"]


def test_budgets_of_another_triton_are_those_that_differ(tmp_path):
    usual = {"registers": 32, "shared_bytes": 512, "instructions": 120}
    other, worse = usual | {"registers": 40}, usual | {"instructions": 200}
    record_budgets([("a", 80, usual), ("a", 90, usual), ("b", 90, usual)], whole=True, version="3.7.1", folder=tmp_path)
    record_budgets([("a", 80, usual), ("a", 90, other), ("b", 90, usual)], whole=True, version="3.6.0", folder=tmp_path)
    assert path_of("3.6.2", tmp_path).read_text().count("[a.") == 1 and "b" not in read_only(tmp_path, "3.6.0")
    assert read_budgets("3.7.0", tmp_path) == {"a": {"80": usual, "90": usual}, "b": {"90": usual}}
    assert read_budgets("3.6.0", tmp_path) == {"a": {"80": usual, "90": other}, "b": {"90": usual}}
    # a version that has none of its own
    assert read_budgets("3.9.0", tmp_path) == read_budgets("3.7.0", tmp_path)
    # one kernel looked at again: the others stay
    record_budgets([("b", 90, worse)], whole=False, version="3.6.0", folder=tmp_path)
    assert read_only(tmp_path, "3.6.0") == {"a": {"90": other}, "b": {"90": worse}}


def read_only(folder, version):
    """What is in the file of a version."""
    return tomllib.loads(path_of(version, folder).read_text())


def test_architectures_are_those_of_the_documentation():
    assert ARCHS == (80, 90, 100)
    assert TARGETS == (80, 90, 100, 120)


def test_the_table_joins_architectures():
    found = [audited(replace(CLEAN, registers=40 + i), arch=arch) for i, arch in enumerate(ARCHS)]
    lines = table([*found, audited(CLEAN, dtype="fp32")]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:6]] == ["o: k", "bf16", "40 / 41 / 42", "0", "1"]
    assert [cell.strip() for cell in lines[3].split("|")[1:4]] == ["o: k", "fp32", "32"]
