"""JSON files: what is written anybody can parse. How foreign ones are read: tests/model/test_foreign_folders.py."""

import ast
import json
import math
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.runtime.json_files import to_json
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.studies.results import smooth

NONE = [math.nan, math.inf, -math.inf]


def strictly(text):
    """As JSON says, without Python's NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_is_no_number_is_written_as_null():
    content = {"a": NONE, "b": {"c": (1, math.nan)}, "d": 1.5, "e": ["x", None, True], "f": 10**30}
    assert strictly(to_json(content)) == {
        "a": [None] * 3, "b": {"c": [1, None]}, "d": 1.5, "e": ["x", None, True], "f": 10**30,
    }  # fmt: skip
    assert to_json({"b": 1, "a": "é"}, indent=1, sort_keys=True) == json.dumps(
        {"b": 1, "a": "é"}, indent=1, sort_keys=True
    )


def test_a_value_of_training_that_is_no_number_is_null_in_the_file_and_no_point_of_a_curve(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, value in enumerate([1.0, *NONE, 3.0]):
        log.write("rl", step=step, kl=value)
    entries = [strictly(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["kl"] for entry in entries] == [1.0, None, None, None, 3.0]
    read = log.read()
    assert all(math.isnan(line["kl"]) for line in read[1:4])
    assert smooth([(line["step"], line["kl"]) for line in read]) == [(0, 1.0), (4, 3.0)]


def test_facts_of_a_checkpoint_that_are_no_number_are_null(tmp_path):
    from fastreason.model.decoder import save_model

    config = fr.ModelConfig(8, hidden_size=8, num_hidden_layers=1)
    save_model(fr.Decoder(config), tmp_path, facts={"val_loss": math.nan})
    card = (tmp_path / "README.md").read_text()
    assert strictly(card.split("```json\n")[1].split("```")[0]) == {"val_loss": None}


def test_the_package_writes_json_in_no_other_way():
    """`json.dumps` writes NaN unless it is told not to; a module that called it could."""
    package = Path(fr.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.name == "json_files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps"):
                assert ast.unparse(node) not in ("json.dump", "json.dumps"), f"{path}:{node.lineno}: use to_json"
