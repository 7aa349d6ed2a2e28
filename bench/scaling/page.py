"""The tables and the picture of docs/scaling.md: `python -m bench.scaling.page`.

Measures the phases on one core of this machine and real steps on one and two gloo ranks (two minutes), keeps what it
found in docs/bench/scaling.json, and writes the tables. `--paper-only` takes the last measurement instead. The figures
of GPUs are arithmetic on peaks, or on what the options say was measured:

    python -m bench.scaling.page --paper-only --print --flops-per-s 989e12 --share 0.5 --link-gb-s 450 --network-gb-s 50
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastreason as fr
from bench.scaling import step_model
from bench.scaling.collectives_model import (
    Collective,
    Links,
    checkpoint_bytes,
    policy_step,
    sent_bytes,
    supervised_step,
)
from bench.scaling.step_model import Phases, StepTime
from fastreason.evaluation.evaluate import PRESETS, parts_of
from fastreason.runtime.json_files import to_json
from fastreason.sampling.device_decoding import size_within

from ..harness.charts import Axis, chart
from ..harness.markdown import markdown, put_between_marks, short
from ..harness.svg_lines import Series
from .lengths import BATCH_TOKENS, LIMIT, imbalance, op_lengths, task_lengths

DOCS = Path(__file__).parents[2] / "docs"
RANKS = (8, 64, 512)
PROMPTS, SAMPLES, MINIBATCHES = 1024, 6, 4
SAVE_EVERY_S = 600.0


@dataclass(frozen=True)
class Case:
    """A model on GPUs of which only peaks are known, and the lengths of the paper's tasks.

    Args:
        phases, links: of a GPU and its host.
        cores: of the host, for each GPU.
        kv_memory_bytes: for keys and values, which decides how many samples decode together.
        unfinished: share of samples that run to the limit of new tokens.
    """

    phases: Phases
    links: Links
    cores: float = 14.0
    kv_memory_bytes: float = 40e9
    unfinished: float = 0.0

    @cached_property
    def config(self) -> fr.ModelConfig:
        return fr.ModelConfig.preset("100m")

    def training(self, parallel: str, ranks: int) -> StepTime:
        step = step_model.ddp_step_seconds if parallel == "ddp" else step_model.fsdp_step_seconds
        fullness = imbalance(ranks)
        return step(self.config, self.phases, self.links, tokens=BATCH_TOKENS, ranks=ranks, imbalance=fullness)

    def rl(self, ranks: int) -> StepTime:
        prompts_P, lengths_PG = task_lengths("rl-op11-14", PROMPTS, SAMPLES, self.unfinished)
        return step_model.rl_step_seconds(
            self.config, self.phases, self.links, prompt_lengths_P=prompts_P, lengths_PG=lengths_PG, ranks=ranks,
            slots=self.slots(LIMIT, int(prompts_P.max()), SAMPLES), minibatches=MINIBATCHES, reference=True,
            cores=self.cores,
        )  # fmt: skip

    def slots(self, limit: int, prompt: int, samples: int) -> int:
        """Sequences that decode together, as many as `Rollout` finds room for in float32."""
        size = size_within(
            self.kv_memory_bytes, self.config, torch.float32, prompts=PROMPTS, n=samples, longest=prompt,
            capacity=limit, most=None,
        )  # fmt: skip
        assert size is not None
        return size.slots

    @cached_property
    def evaluation_parts_s(self) -> list[float]:
        """Seconds of every part of the paper's evaluation, in their order."""
        settings = PRESETS["paper"]
        found = []
        for part in parts_of(settings):
            prompts_P, lengths_PG = op_lengths(part.op, part.first, part.count, settings.samples, self.unfinished)
            slots = self.slots(settings.max_new_tokens, int(prompts_P.max()), settings.samples)
            found.append(step_model.part_seconds(self.phases, prompts_P, lengths_PG, slots=slots, cores=self.cores))
        return found


def phase_table(measured: dict[str, Any]) -> str:
    phases, host = Phases(**measured["phases"]), measured["host"]
    rows = [
        ["forward and backward pass", f"{short(1 / phases.token_s)} tokens/s"],
        ["the least such pass", _time(phases.pass_s)],
        ["optimizer step, AdamW", _time(phases.optimizer_s)],
        ["policy update, forward and backward", f"{short(1 / phases.update_token_s)} tokens/s"],
        ["decoding, whatever the number of samples", f"{_time(phases.decode_step_s)} a step"],
        ["decoding, each sample", f"{_time(phases.decode_token_s)} a token"],
        ["problems of pre-training as text", f"{short(host['problems_per_s'])} problems/s"],
        ["the same as packed tokens", f"{short(host['packed_tokens_per_s'])} tokens/s"],
        ["verdicts on op 11-14, groups of 16, token ids", f"{short(host['verdicts_per_s'])} verdicts/s"],
        ["file written and flushed", f"{short(phases.write_bytes_per_s / 1e6)} MB/s"],
        ["SHA-256", f"{short(phases.hash_bytes_per_s / 1e6)} MB/s"],
        ["gloo between two processes: a message", _time(measured["links"]["node_latency_s"])],
        ["gloo between two processes: rate", f"{short(measured['links']['node_bytes_per_s'] / 1e6)} MB/s"],
    ]
    return markdown(["phase", "measured"], rows)


def ranks_table(measured: dict[str, Any]) -> str:
    """Real steps on one and two ranks beside what the formulas make of the phases."""
    rows = []
    for ranks, case in (("1", "ddp"), ("2", "ddp"), ("2", "fsdp"), ("1", "rl"), ("2", "rl")):
        found = measured["ranks"][ranks][case]
        predicted = predicted_step(measured, case, int(ranks))
        wall_s, cpu_s = statistics.median(found["wall_s"]), statistics.median(found["cpu_s"])
        name = {"ddp": "supervised, DDP", "fsdp": "supervised, FSDP2", "rl": "RL"}[case]
        work_s = predicted.seconds - predicted.links_s - predicted.host_s
        apart = [f"{100 * (a / b - 1):+.0f} %" for a, b in ((predicted.seconds, wall_s), (work_s, cpu_s))]
        spread = f"{_time(min(found['wall_s']))} - {_time(max(found['wall_s']))}"
        what = f"{name}, {ranks} rank{'s' * (ranks != '1')}"
        of_clock = [_time(predicted.seconds), _time(wall_s), spread, apart[0]]
        rows.append([what, *of_clock, _time(work_s), _time(cpu_s), apart[1]])
    head = [
        "step",
        "predicted",
        "measured",
        "fastest - slowest",
        "apart",
        "without links",
        "CPU time of a rank",
        "apart",
    ]
    return markdown(head, rows)


def predicted_step(measured: dict[str, Any], case: str, ranks: int) -> StepTime:
    from .worker import PROMPTS, SAMPLES, Setting

    phases, links, config = Phases(**measured["phases"]), Links(**measured["links"]), Setting.make().model.config
    found = measured["ranks"][str(ranks)][case]
    if case == "rl":
        lengths = np.full((PROMPTS, SAMPLES), round(found["sample_tokens"]))
        prompts = np.full(PROMPTS, round(found["prompt_tokens"]))
        return step_model.rl_step_seconds(
            config, phases, links, prompt_lengths_P=prompts, lengths_PG=lengths, ranks=ranks
        )
    step = step_model.ddp_step_seconds if case == "ddp" else step_model.fsdp_step_seconds
    return step(config, phases, links, tokens=found["tokens"], ranks=ranks)


def assumptions_table(case: Case) -> str:
    phases, links = case.phases, case.links
    rows = [
        ["training, a token", _time(phases.token_s), f"{short(1 / phases.token_s)} tokens/s"],
        ["the least pass", _time(phases.pass_s), "launches that nothing hides"],
        ["optimizer step", _time(phases.optimizer_s), "40 bytes a weight"],
        ["RL update, a token", _time(phases.update_token_s), "in float32"],
        ["decoding, a step", _time(phases.decode_step_s), "weights read once, or launches"],
        ["decoding, a token", _time(phases.decode_token_s), f"{short(1 / phases.decode_token_s)} tokens/s at most"],
        ["links within a machine", f"{short(links.share * links.node_bytes_per_s / 1e9)} GB/s", "of a GPU, one way"],
        ["links between machines", f"{short(links.share * links.network_bytes_per_s / 1e9)} GB/s", "of a GPU, one way"],
        ["a message", f"{_time(links.node_latency_s)}, {_time(links.network_latency_s)}", "within, between machines"],
        ["a message of counters", _time(links.host_latency_s), "gloo, TCP"],
    ]
    return markdown(["what", "taken to be", ""], rows)


def volume_table(case: Case) -> str:
    config = case.config
    cells: list[tuple[str, Callable[[int], list[Collective]]]] = [
        ("DDP", lambda n: supervised_step(config, n)),
        ("FSDP2, one pass", lambda n: supervised_step(config, n, parallel="fsdp")),
        ("FSDP2, 8 passes", lambda n: supervised_step(config, n, parallel="fsdp", parts=8, accumulate=8)),
        ("FSDP2, one pass, Muon", lambda n: supervised_step(config, n, parallel="fsdp", matrices="muon")),
        ("RL, 4 updates", lambda n: policy_step(config, n, prompts=PROMPTS, samples=SAMPLES, updates=MINIBATCHES)),
    ]
    rows = []
    for name, exchanges in cells:
        device = [sent_bytes([one for one in exchanges(n) if not one.on_host], n) for n in RANKS]
        host = [one for one in exchanges(512) if one.on_host]
        sent = [f"{size / 1e9:.2f} GB" for size in device]
        rows.append([name, *sent, len([one for one in exchanges(8) if not one.on_host]), len(host)])
    return markdown(["a step", *(f"{n} GPUs" for n in RANKS), "exchanges", "of counters, by gloo"], rows)


def step_table(step: Callable[[int], StepTime], unit: str, amount: float) -> str:
    rows, alone = [], step(1)
    for ranks in (1, *RANKS):
        time = step(ranks)
        parts = [time.compute_s, time.waiting_s, time.links_s, time.host_s, time.optimizer_s, time.seconds]
        share = step_model.efficiency(alone.seconds, time.seconds, ranks)
        rows.append([ranks, *(f"{1e3 * part:.2f}" for part in parts), _percent(share), short(amount / time.seconds)])
    head = ["GPUs", "compute", "waiting", "links", "counters", "optimizer", "step, ms", "efficiency", unit]
    return markdown(head, rows)


def training_tables(case: Case) -> str:
    """DDP, FSDP2, and DDP with other exchanges of counters."""
    steps: dict[str, Callable[[int], StepTime]] = {
        "DDP": lambda n: case.training("ddp", n),
        "FSDP2": lambda n: case.training("fsdp", n),
    }
    found = [f"{name}:\n\n{step_table(step, 'tokens/s', BATCH_TOKENS)}" for name, step in steps.items()]
    rows = []
    for name, step in {
        "DDP as it is": steps["DDP"],
        "counters in one exchange": lambda n: replace(steps["DDP"](n), host_s=steps["DDP"](n).host_s / 4),
        "counters by NCCL": lambda n: replace(steps["DDP"](n), host_s=counters_by_device(case, n)),
    }.items():
        times = [step(ranks).seconds for ranks in (1, *RANKS)]
        shares = [step_model.efficiency(times[0], t, n) for t, n in zip(times[1:], RANKS, strict=True)]
        best = min(step(2**i).seconds for i in range(10))
        rows.append(
            [name, *map(_percent, shares), last_above(step, 0.5), f"{1e3 * best:.1f}", f"{times[0] / best:.0f}"]
        )
    head = ["", *(f"efficiency, {n}" for n in RANKS), "half at", "shortest step, ms", "times one GPU"]
    return "\n\n".join([*found, markdown(head, rows)])


def counters_by_device(case: Case, ranks: int) -> float:
    """Seconds of a step's counters, were they tensors of the GPU."""
    host = [replace(one, on_host=False) for one in supervised_step(case.config, ranks) if one.on_host]
    return case.links.all_seconds(host, ranks)


def last_above(step: Callable[[int], StepTime], share: float) -> int:
    """The largest power of two up to 512 at which the efficiency is at least `share`."""
    alone = step(1).seconds
    return max(2**i for i in range(10) if step_model.efficiency(alone, step(2**i).seconds, 2**i) >= share)


def rl_tables(case: Case) -> str:
    variants = {
        "as it is": case,
        "1 % of samples run to 1,024 tokens": replace(case, unfinished=0.01),
        "keys and values in 2 GB": replace(case, kv_memory_bytes=2e9),
        "updates at the rate of training (bfloat16)": replace(
            case, phases=replace(case.phases, update_token_s=case.phases.token_s)
        ),
    }
    rows = []
    for name, variant in variants.items():
        times = [variant.rl(ranks) for ranks in (1, *RANKS)]
        shares = [step_model.efficiency(times[0].seconds, t.seconds, n) for t, n in zip(times[1:], RANKS, strict=True)]
        rows.append([name, *(f"{time.seconds:.2f} s" for time in times), *map(_percent, shares)])
    head = ["", "1 GPU", *(f"{n} GPUs" for n in RANKS), *(f"efficiency, {n}" for n in RANKS)]
    return step_table(case.rl, "samples/s", PROMPTS * SAMPLES) + "\n\n" + markdown(head, rows)


def straggler_table(case: Case) -> str:
    """How much longer the slowest rank samples than the mean."""
    rows = []
    for name, unfinished in (("solutions' lengths", 0.0), ("1 % to the limit", 0.01), ("10 % to the limit", 0.1)):
        prompts_P, lengths_PG = task_lengths("rl-op11-14", PROMPTS, SAMPLES, unfinished)
        slots, cells = case.slots(LIMIT, int(prompts_P.max()), SAMPLES), []
        for ranks in RANKS:
            of_ranks = [
                step_model.part_seconds(case.phases, p, s, slots=slots, cores=case.cores)
                for p, s in zip(np.array_split(prompts_P, ranks), np.array_split(lengths_PG, ranks), strict=True)
            ]
            cells.append(f"{max(of_ranks):.2f} s, {100 * (max(of_ranks) / np.mean(of_ranks) - 1):.0f} %")
        longest = f"{lengths_PG.mean():.0f}, {np.percentile(lengths_PG, 99):.0f}, {lengths_PG.max()}"
        rows.append([name, longest, *cells])
    return markdown(["samples", "mean, 99th percentile, longest", *(f"{n} GPUs" for n in RANKS)], rows)


def feeding_table(case: Case, measured: dict[str, Any]) -> str:
    host, training, rl = measured["host"], case.training("ddp", 1), case.rl(1)
    tokens_per_s, samples_per_s = BATCH_TOKENS / training.seconds, PROMPTS * SAMPLES / rl.seconds
    mean_document = float(np.concatenate([x.ravel() for x in task_lengths("pretrain", 512, 1, 0.0)]).sum() / 512)
    rows = []
    for what, demand, of_core, cores in (
        ("packed tokens", tokens_per_s, host["packed_tokens_per_s"], step_model.generator_cores),
        ("problems as text", tokens_per_s / mean_document, host["problems_per_s"], step_model.generator_cores),
        ("verdicts in RL", samples_per_s, host["verdicts_per_s"], step_model.grading_cores),
        (
            "verdicts in evaluation",
            _evaluated() / sum(case.evaluation_parts_s),
            host["verdicts_per_s"],
            step_model.grading_cores,
        ),
    ):
        needed = cores(demand, of_core)
        rows.append([what, f"{short(demand)}/s", f"{short(of_core)}/s", f"{needed:.4f}", f"{512 * needed:.1f}"])
    return markdown(["", "a GPU takes", "a core gives", "cores for a GPU", "for 512"], rows)


def _evaluated() -> int:
    settings = PRESETS["paper"]
    return sum(part.count for part in parts_of(settings)) * settings.samples


def evaluation_table(case: Case) -> str:
    parts_s, rows = case.evaluation_parts_s, []
    alone = step_model.evaluation_seconds(parts_s, 1)
    for ranks in (1, *RANKS):
        seconds, fullest = step_model.evaluation_seconds(parts_s, ranks), math.ceil(len(parts_s) / ranks)
        rows.append([ranks, fullest, f"{seconds:.1f}", _percent(step_model.efficiency(alone, seconds, ranks))])
    return markdown(["GPUs", f"parts of {len(parts_s)} on the fullest", "seconds", "efficiency"], rows)


def checkpoint_table(case: Case) -> str:
    rows, settings = [], (("DDP", "ddp", "adamw"), ("FSDP2", "fsdp", "adamw"), ("DDP", "ddp", "muon"))
    for name, parallel, matrices in settings:
        how: dict[str, Any] = dict(parallel=parallel, matrices=matrices)
        seconds = [step_model.checkpoint_seconds(case.config, case.phases, case.links, ranks=n, **how) for n in RANKS]
        size = checkpoint_bytes(case.config, matrices=how["matrices"]) / 1e9
        share = _percent(seconds[-1] / (SAVE_EVERY_S + seconds[-1]))
        optimizer = {"adamw": "AdamW", "muon": "Muon"}[matrices]
        rows.append([f"{name}, {optimizer}", f"{size:.2f} GB", *(f"{s:.2f} s" for s in seconds), share])
    return markdown(["", "files", *(f"{n} GPUs" for n in RANKS), f"of the time, every {SAVE_EVERY_S:.0f} s"], rows)


def picture(case: Case) -> str:
    """Predicted efficiency against GPUs."""
    steps: dict[str, Callable[[int], StepTime]] = {
        "DDP": lambda n: case.training("ddp", n),
        "FSDP2": lambda n: case.training("fsdp", n),
        "RL": case.rl,
        "DDP, counters by NCCL": lambda n: replace(case.training("ddp", n), host_s=counters_by_device(case, n)),
    }
    lines = []
    for i, (name, step) in enumerate(steps.items()):
        alone = step(1).seconds
        points = [(float(2**j), step_model.efficiency(alone, step(2**j).seconds, 2**j)) for j in range(10)]
        lines.append(Series(name, points, style=i % 3, dashed=i == 3))
    gpus = Axis("GPUs", log=True, at=[2.0**j for j in range(10)])
    return chart(
        lines, gpus, Axis("efficiency"), title="Efficiency at a fixed batch by number of GPUs",
        note="Arithmetic on the data sheet of a GPU and an assumed share of its peaks; not measured.",
    )  # fmt: skip


def tables(case: Case, measured: dict[str, Any]) -> dict[str, str]:
    """The sections by the marks in docs/scaling.md that enclose them."""
    machine = measured["machine"]
    where = (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, load {measured['load']:.1f} when it began; Python "
        f"{machine['python']}, torch {machine['torch']}, commit {measured['commit']}, {measured['date'][:10]}."
    )
    return {
        "phases": f"{where}\n\n{phase_table(measured)}",
        "ranks": ranks_table(measured),
        "assumptions": assumptions_table(case),
        "volumes": volume_table(case),
        "training": training_tables(case),
        "rl": rl_tables(case),
        "stragglers": straggler_table(case),
        "feeding": feeding_table(case, measured),
        "evaluation": evaluation_table(case),
        "checkpoints": checkpoint_table(case),
    }


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{short(seconds * factor)} {unit}"
    return f"{short(seconds * 1e9)} ns"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def case_of(options: argparse.Namespace, measured: dict[str, Any]) -> Case:
    """The GPU of the options, its host as measured."""
    host, phases = measured["host"], measured["phases"]
    prompts_P, solutions_PG = task_lengths("pretrain", 512, 1, 0.0)
    paper = Phases.on_paper(
        fr.ModelConfig.preset("100m"),
        length=round(float(prompts_P.mean() + solutions_PG.mean())),
        flop_per_s=options.flops_per_s,
        update_flop_per_s=options.update_flops_per_s,
        bytes_per_s=1e9 * options.memory_gb_s,
        share=options.share,
        launch_s=1e-6 * options.launch_us,
        launches_per_block=(50, 16),
        grade_s=1 / host["verdicts_per_s"],
        packed_token_s=1 / host["packed_tokens_per_s"],
        problem_s=1 / host["problems_per_s"],
        write_bytes_per_s=phases["write_bytes_per_s"],
        hash_bytes_per_s=phases["hash_bytes_per_s"],
        overlap=options.overlap,
    )
    links = Links(
        per_node=options.per_node,
        node_bytes_per_s=1e9 * options.link_gb_s,
        network_bytes_per_s=1e9 * options.network_gb_s,
        share=options.link_share,
        node_latency_s=1e-6 * options.link_us,
        network_latency_s=1e-6 * options.network_us,
        host_latency_s=1e-6 * options.host_us,
    )
    return Case(paper, links, options.cores, 1e6 * options.kv_memory_mb, options.unfinished)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--paper-only", action="store_true", help="measure nothing; take docs/bench/scaling.json")
    found.add_argument("--print", action="store_true", help="print the tables and write nothing")
    for name, default, text in (
        ("flops-per-s", 989e12, "peak of training (H100 SXM, bfloat16, dense)"),
        ("update-flops-per-s", 67e12, "peak of RL (float32, as weights are; 989e12 if it had autocast)"),
        ("memory-gb-s", 3350.0, "peak of device memory"),
        ("share", 0.4, "of these peaks that is reached"),
        ("launch-us", 5.0, "of a kernel"),
        ("overlap", 0.8, "share of a pass under which links work"),
        ("per-node", 8, "GPUs of a machine"),
        ("link-gb-s", 450.0, "NVLink of a GPU, one way"),
        ("network-gb-s", 50.0, "network adapter of a GPU, one way"),
        ("link-share", 0.8, "of these rates that is reached"),
        ("link-us", 2.0, "of a message within a machine"),
        ("network-us", 6.0, "of a message between machines"),
        ("host-us", 30.0, "of a message of counters"),
        ("cores", 14.0, "of the host for each GPU"),
        ("kv-memory-mb", 40_000.0, "for keys and values"),
        ("unfinished", 0.0, "share of samples that run to the limit"),
    ):
        found.add_argument(f"--{name}", type=type(default), default=default, help=f"{text}; default %(default)g")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    kept = DOCS / "bench" / "scaling.json"
    if options.paper_only:
        measured = json.loads(kept.read_text(encoding="utf-8"))
    else:
        from .measure_phases import measure

        measured = measure()
    case = case_of(options, measured)
    for mark, text in tables(case, measured).items():
        if options.print:
            print(f"## {mark}\n\n{text}\n")
        else:
            put_between_marks(DOCS / "scaling.md", mark, text)
    if not options.print:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(to_json(measured, indent=1) + "\n", encoding="utf-8")
        (DOCS / "bench" / "scaling.svg").write_text(picture(case), encoding="utf-8")


if __name__ == "__main__":
    main()
