"""fastreason.cuda: what it says where the CUDA module cannot run, and that importing asks nothing of CUDA."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastreason import _core
from fastreason.kernels import sample as sampling
from fastreason.kernels.sample import _launch
from fastreason.runtime import cuda


def module(num_devices=1, driver=13000, error=""):
    return SimpleNamespace(
        runtime_version=13000, architectures="80 90-real", status=lambda: (num_devices, driver, error)
    )  # fmt: skip


@pytest.fixture
def machine(monkeypatch):
    """Sets what is found on it, and forgets what was found before."""

    def find(module, has_driver=True, torch_cuda="13.0", torch_sees=True):
        monkeypatch.setattr(cuda, "_module", lambda: module)
        monkeypatch.setattr(cuda, "_has_driver", lambda: has_driver)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_sees)
        cuda._why_unavailable.cache_clear()

    yield find
    cuda._why_unavailable.cache_clear()


@pytest.mark.parametrize(
    "found, sentence",
    [
        (dict(module=None), "built without its CUDA module"),
        (dict(module=module(0, 0, "insufficient"), has_driver=False), "no NVIDIA driver is installed (libcuda.so.1"),
        (dict(module=module(0, 12040, "insufficient")), "supports CUDA 12.4, and fastreason was built with CUDA 13.0"),
        (dict(module=module(0, 13010, "no CUDA-capable device")), "no GPU is available (no CUDA-capable device"),
        (dict(module=module(2, 13000, "unknown error")), "the CUDA runtime says: unknown error"),
        (dict(module=module(), torch_cuda=None), "is a build without CUDA"),
        (dict(module=module(), torch_sees=False), "finds no GPU"),
    ],
)  # fmt: skip
def test_each_obstacle_has_its_sentence(machine, found, sentence):
    machine(**found)
    assert sentence in cuda.why_unavailable()
    with pytest.raises(RuntimeError, match=r"fastreason\.cuda is not available: ") as error:
        cuda.require()
    assert sentence in str(error.value)
    assert cuda.describe()["cuda"] == cuda.why_unavailable()


def test_hidden_gpus_are_named(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(module(0, 13000, "no CUDA-capable device is detected"))
    assert "CUDA_VISIBLE_DEVICES is ''" in cuda.why_unavailable()


def test_nothing_is_in_the_way(machine):
    here = module(1, 13020)
    machine(here)
    assert cuda.why_unavailable() is None
    assert cuda.require() is here
    assert cuda.describe() == {
        "cuda": "available",
        "cuda module": "CUDA 13.0 for 80 90-real",
        "cuda driver": "CUDA 13.2",
    }


def test_importing_makes_no_cuda_call():
    """The driver is not even loaded; torch stays out as well."""
    code = (
        "import sys, fastreason.runtime.cuda\n"
        "try: import fastreason._cuda\n"
        "except ModuleNotFoundError: pass\n"
        "print('torch' in sys.modules, 'libcuda' in open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_fallback_is_logged_once_with_its_reason(machine, caplog):
    machine(None)
    sampling_module = sys.modules["fastreason.kernels.sample"]
    sampling_module._cuda_module.cache_clear()
    with caplog.at_level("WARNING"):
        assert sampling_module._cuda_module() is sampling_module._cuda_module() is None
    sampling_module._cuda_module.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        f"sampling runs in torch: fastreason.cuda is not available: {cuda.why_unavailable()}"
    ]


class Memory:
    """Stands in for the module: does on the CPU, from the addresses alone, what the kernel does on a GPU."""

    def sample(self, *, device, stream, logits, type, num_rows, V, stride, seed, prompts, samples, positions, tokens,
               logprobs, full_logprobs, **filters):  # fmt: skip
        assert (device, stream) == (0, 7)

        def array(address, count, ctype):
            return np.ctypeslib.as_array((ctype * count).from_address(address))

        if type == 0:
            flat = array(logits, (num_rows - 1) * stride + V, ctypes.c_float)
        else:
            raw = torch.from_numpy(array(logits, (num_rows - 1) * stride + V, ctypes.c_int16).copy())
            flat = raw.view({1: torch.float16, 2: torch.bfloat16}[type]).float().numpy()
        rows = np.stack([flat[n * stride : n * stride + V] for n in range(num_rows)])
        keys = [array(x, num_rows, ctypes.c_int64) for x in (prompts, samples, positions)]
        found = _core.sample(rows, seed, *keys, **filters)
        array(tokens, num_rows, ctypes.c_int64)[:] = found[0]
        array(logprobs, num_rows, ctypes.c_float)[:] = found[1]
        array(full_logprobs, num_rows, ctypes.c_float)[:] = found[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_kernel_gets_the_addresses_of_what_it_works_on(dtype):
    g = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(40, 300, generator=g)).to(dtype)[::2, 10:280]
    keys = [torch.randint(100, (40,), generator=g)[::2] for _ in range(3)]
    filters = dict(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01)
    got = _launch(Memory(), logits, 3, keys, 7, **filters)
    want = sampling(logits, seed=3, prompts_N=keys[0], samples_N=keys[1], positions_N=keys[2], **filters)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)
    transposed = logits.T.contiguous().T
    assert torch.equal(_launch(Memory(), transposed, 3, keys, 7, **filters)[0], want[0])
