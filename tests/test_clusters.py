"""The scripts in examples/cluster: valid bash that does its work under the variables that Slurm sets."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
# what a login node would have: each drops what is only for Slurm
COMMANDS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    # more names than a pipe holds, so that a script that stops reading after the first is seen
    "scontrol": '[[ "$1 $2" == "show hostnames" ]] && echo localhost && seq -f "node%.0f" 20000',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "fastreason": 'printf "%s\\n" "$@"',
}
RECIPE = """
name = "cluster"
threads = 1
pretrain.tokens = 1_000
pretrain.batch_tokens = 512
pretrain.phases = [{ until = 1.0, mixture = [{ op = [2], themes = ["symbolic"], max_value = 99 }] }]
evaluate = { problems = 1, samples = 1, k = [1], max_new_tokens = 4, mixture = [{ op = [2], themes = ["symbolic"] }] }
model.num_hidden_layers = 1
"""


@pytest.fixture
def slurm(tmp_path):
    """Runs a script with stand-ins for the commands of a cluster."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{programs}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
        command = ["bash", CLUSTER / script, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("script", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_scripts_are_valid_and_documented(script):
    subprocess.run(["bash", "-n", script], check=True)
    first, about, *_ = script.read_text().splitlines()
    assert first == "#!/bin/bash"
    assert f"sbatch {about.split(': sbatch ')[1]}".split(" examples/")[0] in PAGE.read_text()


def test_a_run_on_two_ranks(slurm, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost", "RDZV_PORT": port}
    done = slurm("run.slurm", "recipe.toml", "out", "--seed", "3", RANKS_PER_NODE="2", **job)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["seed"], list(results["stages"])) == (3, ["pretrain"])
    (stage,) = (tmp_path / "out" / "stages").glob("pretrain-*")
    assert len(json.loads((stage / "checkpoint" / "state" / "progress.json").read_text())["next_index"]) == 2  # rows


def test_an_array_of_jobs_covers_a_study(slurm):
    array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "3"}
    shards = []
    for task in ("1", "2", "3"):
        done = slurm("study.slurm", "finding-1-edge", "out", "--size", "laptop", SLURM_ARRAY_TASK_ID=task, **array)
        words = done.stdout.split()
        assert words[:4] == ["run", "finding-1-edge", "--out", "out"] and words[-2:] == ["--size", "laptop"]
        shards.append(words[words.index("--shard") + 1])
    assert shards == ["0/3", "1/3", "2/3"]


@pytest.mark.parametrize("script", ["run.slurm", "study.slurm"])
def test_what_is_missing_is_said(slurm, script):
    done = slurm(script, "smoke")
    assert done.returncode != 0 and "directory that all" in done.stderr
