"""lm-evaluation-harness: a task folder with problems, and the verdicts as its metrics.

    fastreason export lm-eval --op 2-6 --themes symbolic --problems 50 --out tasks
    lm_eval run --model hf --model_args pretrained=FOLDER --tasks fastreason --include_path tasks

The folder holds NAME.yaml, NAME.jsonl and utils.py, which reads the problems beside it and calls this module, so it can
be moved. The problems are those of `fastreason eval` with the same mixture, and greedy verdicts are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.evaluate import streams_of
from ..runtime.arguments import integer
from ..runtime.files import check_folder, write_text
from ..runtime.json_files import to_json
from ..tasks.mixture import Mixture
from .text_reward import REPORTED, TextReward

_YAML = """# {count} problems; made by `fastreason export lm-eval`.
task: {name}
custom_dataset: !function utils.problems
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{solution}}}}"
target_delimiter: ""
generation_kwargs:
  until: ["</answer>"]
  do_sample: false
  max_gen_toks: {max_new_tokens}
process_results: !function utils.process_results
metric_list:
{metrics}
metadata:
  version: 1.0
"""
_METRIC = "  - {{metric: {name}, aggregation: mean, higher_is_better: true}}"
_UTILS = '''"""The problems beside this file, and fastreason's verdicts on them."""

from pathlib import Path

from fastreason.integrations.lm_eval import dataset_of, process_results

__all__ = ["problems", "process_results"]


def problems(**_):
    return dataset_of(Path(__file__).with_name("{name}.jsonl"))
'''


def write_task(
    folder: str | Path, mixture: Mixture, problems: int, name: str = "fastreason", max_new_tokens: int = 256
) -> list[Path]:
    """Writes a task folder, the YAML file last, and returns the paths.

    Args:
        folder: created if missing; files of this name are replaced.
        mixture: of the problems; each of its ops gets `problems`.
        problems: per op, at least 1.
        name: of the task, of letters, digits, - and _.
        max_new_tokens: per completion, at least 1.
    Raises:
        ValueError: an argument is out of range.
    """
    problems = integer("lm-eval: problems", problems, 1)
    max_new_tokens = integer("lm-eval: max_new_tokens", max_new_tokens, 1)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise ValueError(f"lm-eval: name must be at most 100 letters, digits, - and _, got {name!r}")
    folder = Path(folder)
    check_folder("lm-eval: folder (--out)", folder)
    rows = [row for op, stream in streams_of(mixture).items() for row in _rows(stream[0:problems], op)]
    metrics = "\n".join(_METRIC.format(name=metric) for metric in REPORTED)
    files = {
        f"{name}.jsonl": "".join(to_json(row) + "\n" for row in rows),
        "utils.py": _UTILS.format(name=name),
        f"{name}.yaml": _YAML.format(name=name, count=len(rows), metrics=metrics, max_new_tokens=max_new_tokens),
    }
    for file, text in files.items():
        write_text(folder / file, text)
    return [folder / file for file in files]


def _rows(batch: Any, op: int) -> list[dict[str, Any]]:
    return [
        {"id": f"op{op}-{row['id']}", "op": op, "prompt": prompt, "solution": row["solution"]}
        for prompt, row in zip(batch.prompts, batch.rows(), strict=True)
    ]


def dataset_of(path: Path) -> dict[str, Any]:
    """The problems as lm-eval wants them from `custom_dataset`."""
    import datasets

    return {"test": datasets.Dataset.from_json(str(path))}


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """The means of the verdicts on the completions of a problem: one, or with `repeats` a list of them.

    lm-eval cuts a completion before `</answer>`.
    """
    texts = [text for result in results for text in ([result] if isinstance(result, str) else result)]
    reports = TextReward(threads=1, answer_may_end_text=True).report([doc["solution"]] * len(texts), texts)
    return {name: sum(report[name] for report in reports) / len(reports) for name in REPORTED}
