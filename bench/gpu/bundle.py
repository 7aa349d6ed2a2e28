"""What a bare, offline GPU machine needs, in one folder: the tree of HEAD and the wheels that may be missing there.

    python -m bench.gpu.bundle [--out build/gpu-bundle] [--python 3.12] [--limit-mib 64]

The folder holds the files of `git archive HEAD`, their commit in COMMIT, and wheels/. What is larger than the limit is
refused, with the largest files by name. There: bash tools/gpu_day.sh build
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ..harness.environment import ROOT, commit

__all__ = ["collect", "largest", "main"]

# wheels of which one is enough for any Linux of the last years
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17, 12, 5)] + ["manylinux2014_x86_64", "linux_x86_64"]
OPTIONAL = ("liger-kernel",)


def collect(folder: Path, python: str) -> None:
    """The tree, its commit and the wheels, into an empty folder."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
        tree.extractall(folder, filter="data")
    (folder / "COMMIT").write_text(f"{commit()}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(folder / "wheels")]
    command += ["--python-version", python, "--implementation", "cp", *(f"--platform={name}" for name in PLATFORMS)]
    command += ["-c", str(ROOT / "requirements-dev.txt")]
    subprocess.run([*command, "-r", str(ROOT / "requirements-gpu.txt")], cwd=ROOT, check=True)
    # they need torch, which is there
    subprocess.run([*command, "--no-deps", *OPTIONAL], cwd=ROOT, check=True)


def largest(folder: Path, most: int = 10) -> list[tuple[int, str]]:
    """(bytes, path) of the largest files."""
    sizes = [(path.stat().st_size, str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()]
    return sorted(sizes, reverse=True)[:most]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-bundle")
    parser.add_argument("--python", default="3.12", help="of that machine")
    parser.add_argument("--limit-mib", type=float, default=64.0)
    options = parser.parse_args(arguments)
    if commit().endswith("-dirty"):
        print("gpu-bundle: the tree differs from HEAD, which is what is bundled; commit first")
        return 1
    if options.out.exists() and not (options.out / "COMMIT").exists() and any(options.out.iterdir()):
        print(f"gpu-bundle: {options.out} holds something else; choose another --out")
        return 1
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    collect(options.out, options.python)
    total = sum(size for size, _ in largest(options.out, sys.maxsize))
    wheels = sorted(path.name for path in (options.out / "wheels").glob("*.whl"))
    print(f"{options.out}: {total / 2**20:.1f} MiB, {len(wheels)} wheels for Python {options.python}")
    if total > options.limit_mib * 2**20:
        names = "\n".join(f"  {size / 2**20:8.1f} MiB  {name}" for size, name in largest(options.out))
        print(f"gpu-bundle: more than {options.limit_mib:g} MiB; the largest files:\n{names}")
        shutil.rmtree(options.out)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
