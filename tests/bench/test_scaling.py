"""The tables and the picture of docs/scaling.md, from phases that are given."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from bench.scaling import page
from bench.scaling.collectives_model import Links
from bench.scaling.lengths import imbalance, op_lengths, task_lengths, tokenizer
from bench.scaling.page import DOCS, case_of, parser, picture, tables
from bench.scaling.step_model import Phases
from fastreason.evaluation.evaluate import PRESETS

PHASES = Phases(1e-4, 1e-2, 1e-2, 1e-4, 1e-3, 1e-5, 2e-6, 2e-8, 5e-6, 5e8, 1e9)
LINKS = Links(per_node=2, node_bytes_per_s=1e9, share=1.0, tree=False)
STEPS = {"wall_s": [0.4, 0.5, 0.6], "cpu_s": [0.3, 0.4, 0.5], "tokens": 4000.0}
RL_STEPS = STEPS | {"sample_tokens": 64.0, "prompt_tokens": 100.0}
MEASURED = {
    "machine": {"cpu": "A processor", "cores": 2, "python": "3.11", "torch": "2.13"},
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc1234",
    "load": 0.5,
    "phases": asdict(PHASES),
    "links": asdict(LINKS),
    "host": {"problems_per_s": 2e5, "packed_tokens_per_s": 5e7, "verdicts_per_s": 4e5},
    "ranks": {"1": {"ddp": STEPS, "rl": RL_STEPS}, "2": {"ddp": STEPS, "fsdp": STEPS, "rl": RL_STEPS}},
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return tables(case_of(parser().parse_args([]), MEASURED), MEASURED)


def test_every_table_has_its_place_in_the_page(found):
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- /(\w+) -->", page) == [
        "volumes", "phases", "ranks", "assumptions", "training", "rl", "stragglers", "feeding", "evaluation",
        "checkpoints",
    ]  # fmt: skip
    assert set(found) == set(re.findall(r"<!-- (\w+) -->", page))


def test_what_was_measured_stands_beside_its_prediction(found):
    assert "A processor, 2 cores, load 0.5" in found["phases"]
    assert "commit abc1234, 2026-01-02" in found["phases"]
    assert " 10,000 tokens/s |" in found["phases"]
    rows = [line.split("|")[1:-1] for line in found["ranks"].splitlines()[2:]]
    alone, two = ([cell.strip() for cell in row] for row in rows[:2])
    # 4,000 tokens and the optimizer; measured 500 ms
    of_clock, of_cpu = ["410 ms", "500 ms", "400 ms - 600 ms", "-18 %"], ["410 ms", "400 ms", "+2 %"]
    assert alone == ["supervised, DDP, 1 rank", *of_clock, *of_cpu]
    assert two[0] == "supervised, DDP, 2 ranks"
    assert 210 < float(two[1].split()[0]) < 220
    assert len(rows) == 5


def test_options_change_the_gpu(found):
    other = tables(
        case_of(parser().parse_args(["--share", "0.2", "--host-us", "3", "--link-gb-s", "100"]), MEASURED), MEASURED
    )
    assert other["phases"] == found["phases"]
    assert " 80 GB/s |" not in found["assumptions"]
    assert " 80 GB/s |" in other["assumptions"]
    assert " 3 us |" in other["assumptions"]
    assert other["training"] != found["training"]
    with pytest.raises(ValueError, match=r"share must be in 0 \.\. 1, got 1\.5"):
        case_of(parser().parse_args(["--share", "1.5"]), MEASURED)


def test_the_committed_page_is_what_its_measurement_gives():
    """The tables of GPUs at least do not depend on when they are written."""
    measured = json.loads((DOCS / "bench" / "scaling.json").read_text(encoding="utf-8"))
    case = case_of(parser().parse_args([]), measured)
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for mark, text in tables(case, measured).items():
        assert f"<!-- {mark} -->\n\n{text}\n\n<!-- /{mark} -->" in page, (
            f"{mark}: python -m bench.scaling.page --paper-only"
        )
    assert (DOCS / "bench" / "scaling.svg").read_text(encoding="utf-8") == picture(case)


def test_the_command_writes_tables_picture_and_measurement(tmp_path, monkeypatch, capsys):
    (tmp_path / "bench").mkdir()
    (tmp_path / "scaling.md").write_text((DOCS / "scaling.md").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "bench" / "scaling.json").write_text(json.dumps(MEASURED), encoding="utf-8")
    monkeypatch.setattr(page, "DOCS", tmp_path)
    page.main(["--paper-only", "--print"])
    assert "## training" in capsys.readouterr().out
    assert not (tmp_path / "bench" / "scaling.svg").exists()
    page.main(["--paper-only"])
    assert "A processor" in (tmp_path / "scaling.md").read_text(encoding="utf-8")
    assert (tmp_path / "bench" / "scaling.svg").read_text(encoding="utf-8").count("<polyline") == 8  # and in the legend


def test_samples_are_as_long_as_solutions_of_their_op():
    prompts_P, lengths_PG = task_lengths("rl-op11-14", 64, 6, 0.0)
    assert prompts_P.shape == (64,)
    assert lengths_PG.shape == (64, 6)
    easy, hard = op_lengths(2, 0, 8, 16, 0.0)[1], op_lengths(20, 0, 8, 16, 0.0)[1]
    assert easy.max() < lengths_PG.min() < lengths_PG.max() < hard.max()
    some = task_lengths("rl-op11-14", 64, 6, 0.25)[1]
    assert 0.15 < np.mean(some == 1024) < 0.35


def test_rows_are_never_fuller_than_they_are_long():
    assert 1.0 < imbalance(8) < imbalance(64) < imbalance(512) < 1.3


def test_slots_are_those_of_the_engine():
    """As many as `Rollout` would decode together on a GPU, from the memory that it is given."""
    import fastreason as fr
    from fastreason.sampling.continuous_batching import Work
    from fastreason.sampling.stop_sequences import Stopping

    case = case_of(parser().parse_args([]), MEASURED)
    words = tokenizer()
    model = fr.Decoder(replace(case.config, vocab_size=len(words)))
    engine = fr.Rollout(model, words, backend="torch", kv_memory_mb=40_000, max_sequences=10**6)
    model.config = case.config  # the logits count too
    for samples, prompt in ((6, 200), (128, 250)):
        work = Work(
            np.zeros(prompt * 1024, np.int32), np.arange(1025) * prompt, np.arange(1024), np.full(1024, 1024), samples,
            {}, Stopping(words, None), 0,
        )  # fmt: skip
        assert case.slots(1024, prompt, samples) == engine._size(work, model).slots


def test_the_paper_evaluates_133_parts():
    assert len(case_of(parser().parse_args([]), MEASURED).evaluation_parts_s) == 133
    assert PRESETS["paper"].problems * PRESETS["paper"].samples * 19 == page._evaluated()
