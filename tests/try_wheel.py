"""Tries an installed fastreason, each of its commands, and looks into the wheel it came from: `make try-wheel-cpu`,
`make try-wheel-cuda`.

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

# a use of each command that must succeed, in an empty folder and this order, and what it prints
USES = """
--version                                                                  fastreason \\d
info                                                                       torch
info --mixture pretrain --draws 200                                        op
info --schema                                                              "properties"
themes                                                                     symbolic
generate --op 2-3 --themes zoo --count 60 --out rows.jsonl
generate --show 1                                                          Answer:
generate --graph graph.svg --op 3
themes learn rows.jsonl --out learnt
grade --gold rows.jsonl --completions completions.jsonl --out verdicts.jsonl   verified
run smoke --pretrain.tokens 20000 --midtrain.tokens 5000 --rl.steps 1 --out out   verified pass@k
report out
look out --count 1                                                         op
eval tiny-base --op 2 --problems 4 --samples 2 --out scores                verified @1
look scores --count 1                                                      op
edge tiny-base --op 2 --problems 16 --samples 4                            op
export lm-eval --op 2 --problems 2 --out tasks
export vllm tiny-base --out vllm
completion                                                                 fastreason
"""
# mistakes, and the one line that says so; each leaves no file
MISTAKES = """
rnu                                          unknown command 'rnu'
run smok                                     recipe: must be one of
report nowhere                               does not exist
generate --show 0                            --show must be at least 1
eval nowhere                                 no model folder 'nowhere'
edge nowhere                                 no model folder 'nowhere'
grade --gold no --completions rows.jsonl     no file 'no'
look nowhere                                 no file 'nowhere'
export onnx                                  KIND: invalid choice: 'onnx'
themes learn absent.jsonl --out t            no file 'absent.jsonl'
bench                                        checkout
info --mixture nope                          preset must be one of
completion fish                              unexpected argument 'fish'
"""

# real code for each of these, and code that a driver compiles for what comes later
TARGETS, INTERMEDIATE = {"sm_80", "sm_90", "sm_100", "sm_120"}, {"sm_80", "sm_120"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", type=Path, help="the wheel that was installed")
    parser.add_argument("--run", metavar="RECIPE", help="train it")
    parser.add_argument("--commands", action="store_true", help="try each command, which takes a minute or two")
    parser.add_argument("--cuobjdump", default="none", help="of the CUDA toolkit, or of Triton's package")
    options = parser.parse_args()
    try_import()
    try_core()
    try_cuda()
    if options.wheel:
        look_into(options.wheel, options.cuobjdump)
    if options.commands:
        try_commands()
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


def rows_of(table: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line, maxsplit=1) for line in table.strip().splitlines()]


def try_commands() -> None:
    """Each with --help, used well and used wrongly, as processes of their own in an empty folder."""
    program = Path(sys.executable).with_name("fastreason")

    def call(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)

    with tempfile.TemporaryDirectory() as folder:
        commands = re.findall(r"^  (\w+)", call(folder, "--help").stdout, flags=re.M)
        assert {line.split()[0] for line in USES.strip().splitlines()} >= {*commands} - {"bench"}, commands
        assert {line.split()[0] for line in MISTAKES.strip().splitlines()} >= {*commands}, commands
        for command in commands:
            done = call(folder, command, "--help")
            assert done.returncode == 0 and done.stdout.startswith(f"usage: fastreason {command}"), (command, done)
        assert not any(Path(folder).iterdir())
        for arguments, *wanted in rows_of(USES):
            done = call(folder, *arguments.split())
            assert done.returncode == 0 and "Traceback" not in done.stderr, (arguments, done)
            assert re.search("".join(wanted), done.stdout + done.stderr), (arguments, done)
            if arguments.startswith("generate") and "rows.jsonl" in arguments:
                answer = '{"completion": "Answer: 2."}\n'
                Path(folder, "completions.jsonl").write_text(answer * 60, encoding="utf-8")
        before = sorted(Path(folder).rglob("*"))
        for arguments, message in rows_of(MISTAKES):
            done = call(folder, *arguments.split())
            last = done.stderr.strip().splitlines()[-1]
            assert done.returncode == 2 and last.startswith("fastreason") and re.search(message, last), (
                arguments,
                done,
            )
        assert sorted(Path(folder).rglob("*")) == before
    print(f"{len(commands)} commands: --help, {len(rows_of(USES))} uses and {len(rows_of(MISTAKES))} mistakes")


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
