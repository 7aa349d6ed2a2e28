"""Puts the model of a run in its place in the package, with its card, recipe and scores: `make tiny-base`.

    python -m bench.pages.shipped_models runs/tiny-base

takes the last stage of the run and replaces fastreason/model/shipped/NAME, NAME being that of the recipe.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from fastreason.studies.study import Study

SHIPPED = Path(__file__).parents[2] / "fastreason" / "model" / "shipped"
_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
tags: [fastreason]
---
# fastreason/{name}

{about}

A Qwen2 decoder of {parameters:,} parameters, trained on {tokens:,} tokens. Prompts have the form `<question> ...
</question> <solution>`; generation stops at ` </answer>`. It knows one synthetic language of arithmetic problems, the
theme `symbolic` with values up to 199, and nothing else: no English, no other numbers.

Share of problems with a verified solution, in %, on {problems} problems per op of split `test`, with {samples} samples
of each at temperature {temperature}:

{table}

Its recipe is recipe.toml, its scores with intervals are scores.json; `make {name}` makes it again.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts the model of a run into the package.")
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    print(ship(parser.parse_args().run))


def ship(run: Path, shipped: Path = SHIPPED) -> Path:
    """Replaces the model of the run's name; returns its folder."""
    (recipe,) = Study.load(run / "study.toml").variants.values()
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    stage = list(results["stages"])[-1]
    scores, checkpoint = _scores(results["stages"][stage]), run / "checkpoints" / stage
    folder = shipped / recipe.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _FILES:
        shutil.copy(checkpoint / name, folder / name)
    recipe.save(folder / "recipe.toml")
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    progress = json.loads((checkpoint / "state" / "progress.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(_card(recipe.name, folder, progress, scores, recipe.evaluate), encoding="utf-8")
    return folder


def _scores(stage: dict[str, Any]) -> dict[str, Any]:
    """What a reader asks: verified and right answers by op and k, with intervals."""
    wanted = ("verified", "verified_interval", "answer", "answer_interval", "process_accuracy", "problems", "samples")
    return {"ops": {op: {name: row[name] for name in wanted} for op, row in stage["ops"].items()}}


def _card(name: str, folder: Path, progress: dict[str, Any], scores: dict[str, Any], settings: Any) -> str:
    from fastreason.model.decoder import Decoder

    source = Path(__file__).parents[2] / "fastreason" / "studies" / "recipes" / f"{name}.toml"
    about = " ".join(line.removeprefix("# ") for line in source.read_text(encoding="utf-8").splitlines()[:1])
    ks = [k for k in (1, 8, 32, 128) if k <= settings.samples]
    rows = [["op", *(f"pass@{k}" for k in ks)], ["---"] * (1 + len(ks))]
    rows += [[op, *(f"{100 * row['verified'][str(k)]:.1f}" for k in ks)] for op, row in scores["ops"].items()]
    return _CARD.format(
        name=name,
        about=about,
        parameters=Decoder.from_pretrained(folder).num_parameters,
        tokens=progress["tokens"],
        problems=settings.problems,
        samples=settings.samples,
        temperature=settings.temperature,
        table="\n".join(f"| {' | '.join(row)} |" for row in rows),
    )


if __name__ == "__main__":
    main()
