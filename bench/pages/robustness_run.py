"""A run of a recipe under one kind of arithmetic: the process that `bench.pages.robustness` starts for each.

    python -m bench.pages.robustness_run runs/here quickstart --seed 0 --threads 1 --kernels torch --sampler base

Instruction sets of torch and its libraries are chosen by the environment, before they are loaded; those of the C++ core
here, where "torch" leaves it out. What was in use is written to arithmetic.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import fastreason as fr
from fastreason import _core
from fastreason.kernels import cpu_kernels
from fastreason.sampling import rollout
from fastreason.sampling.cpp_backend import CoreDecoder

KERNELS = ("auto", "avx512", "avx2", "baseline", "torch")
SAMPLERS = ("auto", "avx512", "avx2", "base", "torch")


def choose(kernels: str, sampler: str) -> None:
    """For the rest of this process.

    Args:
        kernels: of KERNELS: what computes the operations of training.
        sampler: of SAMPLERS: what decodes.
    Raises:
        ValueError: the processor does not have it.
    """
    training: Any = cpu_kernels
    sampling: Any = rollout
    if kernels == "torch":
        training._kernels = None
    elif kernels != "auto" and not _core.cpu.use(kernels):
        raise ValueError(f"robustness_run: this processor has no {kernels}")
    if sampler == "torch":
        sampling.runs_in_core = lambda model, dtype: False
    elif sampler != "auto":
        sampling.CoreDecoder = partial(CoreDecoder, kernel=sampler)


def in_use(kernels: str, sampler: str, threads: int) -> dict[str, Any]:
    """What computes in this process."""
    prefixes = ("ATEN_", "ONEDNN_", "MKL_")
    return {
        "threads": threads,
        "torch": torch.backends.cpu.get_cpu_capability(),
        "kernels": _core.cpu.name() if kernels == "auto" else kernels,
        "sampler": _core.decode_kernels()[0] if sampler == "auto" else sampler,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(prefixes)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kernels", default="auto", choices=KERNELS)
    parser.add_argument("--sampler", default="auto", choices=SAMPLERS)
    options = parser.parse_args()
    choose(options.kernels, options.sampler)
    begun_before, started = options.folder.exists(), time.process_time()
    overrides = {"seed": options.seed, "threads": options.threads}
    fr.run(options.recipe, options.folder, resume=True, overrides=overrides)
    facts = in_use(options.kernels, options.sampler, options.threads)
    facts["cpu_s"] = None if begun_before else round(time.process_time() - started, 1)
    (options.folder / "arithmetic.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
