"""Tries an installed fastreason, and looks into the wheel it came from: `make try-wheel-cpu`, `make try-wheel-cuda`.

A script and no test: it runs in an environment that has nothing but what pip installed for the wheel.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# real code for each of these, and code that a driver compiles for what comes later
TARGETS, INTERMEDIATE = {"sm_80", "sm_90", "sm_100", "sm_120"}, {"sm_80", "sm_120"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", type=Path, help="the wheel that was installed")
    parser.add_argument("--run", metavar="RECIPE", help="train it")
    parser.add_argument("--cuobjdump", default="none", help="of the CUDA toolkit, or of Triton's package")
    options = parser.parse_args()
    try_import()
    try_core()
    try_cuda()
    if options.wheel:
        look_into(options.wheel, options.cuobjdump)
    if options.run:
        command = [Path(sys.executable).with_name("fastreason"), "run", options.run, "--threads", "1"]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*command, "--out", f"{folder}/out"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
            assert Path(folder, "out", "report.html").stat().st_size > 10_000
        print(f"fastreason run {options.run}: done, with its report")


def try_import() -> None:
    """Of the import as a user sees it, in new processes; the best of five."""
    code = "import time; a, p = time.perf_counter(), time.process_time(); import fastreason, sys; " \
           "b, q = time.perf_counter(), time.process_time(); " \
           "print(b - a, 'torch' in sys.modules, fastreason.__file__, q - p)"  # fmt: skip
    lines = [subprocess.check_output([sys.executable, "-P", "-c", code], text=True).split() for _ in range(5)]
    assert all(line[1] == "False" for line in lines), "import fastreason must not import torch"
    assert sys.prefix in lines[0][2], f"imported from {lines[0][2]}, not from the environment"
    wall_s, processor_s = (min(float(line[i]) for line in lines) for i in (0, 3))
    print(f"import fastreason: {1000 * wall_s:.1f} ms, {1000 * processor_s:.1f} ms of a processor; without torch")


def try_core() -> None:
    import fastreason
    from fastreason import _core

    assert _core.__version__ == importlib.metadata.version("fastreason") == fastreason.__version__
    stream = fastreason.TaskStream(fastreason.Mixture.uniform(op=[2, 3]), seed=0)
    batch = stream[0:8]
    assert fastreason.grade(batch, batch.solutions).verified.all()
    print(f"fastreason {fastreason.__version__}, torch {importlib.metadata.version('torch')}: tasks and grading run")


def try_cuda() -> None:
    from fastreason.runtime import cuda

    reason = cuda.why_unavailable()
    if reason is None:
        print("fastreason.cuda: available")
        return
    try:
        cuda.require()
    except RuntimeError as error:
        print(f"fastreason.cuda.require(): RuntimeError: {error}")
        return
    raise AssertionError("require() must raise where why_unavailable() names a reason")


def look_into(wheel: Path, cuobjdump: str) -> None:
    """Size, contents, and the targets of the CUDA module if it is there."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        strangers = [n for n in names if not re.match(r"fastreason(-[^/]+\.dist-info)?/", n)]
        strangers += [n for n in names if "test" in n or n.endswith((".cpp", ".cu", ".h", ".pyc", ".o"))]
        assert not strangers, f"{wheel.name} holds {strangers}"
        assert {"fastreason/py.typed", "fastreason/_core.pyi", "fastreason/_cuda.pyi"} <= set(names)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(names)} files")
        for name in (n for n in names if n.endswith(".so")):
            size = archive.getinfo(name).file_size
            print(f"  {name}: {size / 1e6:.2f} MB")
            if "/_cuda." in name and cuobjdump != "none":
                list_targets(archive.extract(name, folder), cuobjdump)


def list_targets(library: str, cuobjdump: str) -> None:
    for option, wanted in (("--list-elf", TARGETS), ("--list-ptx", INTERMEDIATE)):
        found = set(re.findall(r"sm_\d+", subprocess.check_output([cuobjdump, option, library], text=True)))
        print(f"  cuobjdump {option}: {', '.join(sorted(found))}")
        assert wanted <= found, f"wanted {wanted}, found {found}"


if __name__ == "__main__":
    main()
