"""Outcomes of a study that nobody ran: what reports and verdicts are tested on, because their truth is known."""

import json
import math
from pathlib import Path

import numpy as np

from fastreason.runtime.machine import describe_machine
from fastreason.studies.work_units import distinct_units, evaluated_themes, study_runs

EDGE_STUDY = Path(__file__).with_name("edge.toml")
FAILURES = {"MISSING_STEP": 0.5, "WRONG_PARENTS": 0.3, "WRONG_VALUE": 0.2}


def write_outcomes(study, stages, gain):
    """Leaves done.json and metrics.jsonl of every unit.

    Args:
        gain: by variant, logits that its last stage adds to the skill by op: {"edge": {6: 2.0, 7: 1.0}}.
    """
    runs = study_runs(study)
    last = {run.stages[list(run.stages)[-1]][1].key: gain.get(run.variant, {}) for run in runs}
    for unit in distinct_units(runs):
        folder = stages / unit.key
        folder.mkdir(parents=True, exist_ok=True)
        done = {"seconds": 60.0, "tokens": 1_000_000, "samples": 10_000, "flop": 1e12, "step": 100}
        if unit.kind == "evaluate":
            done = {"scores": scores(unit, last.get(unit.key, {})), "seconds": 20.0, "tokens": 400_000}
        else:
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(unit)))
        (folder / "done.json").write_text(json.dumps(done | {"machine": describe_machine()}))
    return runs


def scores(unit, gain):
    """Each problem has a skill around 5 - op; seeds differ a little, problems are the same."""
    settings, draw = unit.settings, np.random.default_rng(unit.seed + 100)
    themes_of = evaluated_themes(settings)
    result = {"ops": {}, "problems": {}, "traces": [], "samples": 0, "tokens": 0}
    for op in themes_of:
        problems = np.random.default_rng(op).normal(size=settings.problems)
        skill = 2.5 * (4.8 - op) + gain.get(op, 0.0) + problems + 0.1 * draw.standard_normal()
        chance = 1.0 / (1.0 + np.exp(-skill))
        verified = draw.binomial(settings.samples, chance)
        answer = np.minimum(settings.samples, verified + draw.binomial(settings.samples, 0.1, settings.problems))
        theme = [sorted(themes_of[op])[i % len(themes_of[op])] for i in range(settings.problems)]
        result["problems"][str(op)] = {
            "theme": theme,
            "verified": verified.tolist(),
            "sound": np.maximum(verified - 1, 0).tolist(),
            "answer": answer.tolist(),
            "process_accuracy": (0.5 + 0.5 * chance).round(4).tolist(),
        }
        failed = 1.0 - float(verified.mean()) / settings.samples
        kinds = {"NONE": 1.0 - failed} | {name: failed * share for name, share in FAILURES.items()}
        result["ops"][str(op)] = {"failures": kinds}
    text = "Ba: 3. Be: Ba + 4 = 3 + 4 = 8. "
    step = {"begin": 0, "end": 6, "status": "right"}, {"begin": 7, "end": 30, "status": "wrong_value"}
    result["traces"] = [
        {
            "op": 6,
            "prompt": "<question> Ba: 3. Be: Ba + 4. Be? </question> <solution>",
            "completion": text + "</solution> <answer> 8 </answer>",
            "gold": "Ba: 3. Be: Ba + 4 = 3 + 4 = 7. </solution> <answer> 7 </answer>",
            "verified": False,
            "answer_correct": False,
            "failure": "wrong_value",
            "steps": list(step),
        }
    ]
    return result


def lines(unit):
    """metrics.jsonl of a stage."""
    for step in range(1, 101):
        line = {"stage": unit.kind, "step": step, "tokens": 10_000 * step, "seconds": 0.6 * step}
        if unit.kind == "rl":
            reward = 0.2 + 0.3 * (1 - math.exp(-step / 40)) + 0.01 * unit.seed
            line |= {"reward": reward, "zero_advantage": 0.5, "answer_correct": reward + 0.1, "verified": reward}
            line |= {"mean_length": 40.0 + step, "entropy": 0.5 / step, "kl": 0.001 * step}
        else:
            line |= {"loss": 3.0 * math.exp(-step / 30) + 0.3}
        yield line
