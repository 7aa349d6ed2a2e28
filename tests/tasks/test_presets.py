"""Mixtures read from files like the released presets.json."""

import json
import warnings

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.tasks.mixture import read_presets
from tests.conftest import REFERENCE

CONTENT = {
    "composition": {
        "op_level": {
            "two": {"id_op": [2, 3], "op_prob": [0.25, 0.75]},
            "half": {"id_op": [4, 5], "op_prob": [1.0, 1.0]},
        },
        "op_level_rl": {"same": {"id_op": [7], "op_prob": [1]}},
    },
    "context": {
        "level": {
            "most": {"id_context": ["crazy_zootopia", "teachers_in_school"], "context_prob": [0.9, 0.1]},
            "same": {"id_context": ["zoo"], "context_prob": [1]},
            "unknown": {"id_context": ["a_circus"], "context_prob": [1]},
        }
    },
    "mixed": {
        "level": {
            "both": [
                {"id_context": "crazy_zootopia", "context_prob": 0.8, "id_op": [2, 3], "op_prob": [0.5, 0.5]},
                {"id_context": "movie_festival_awards", "context_prob": 0.2, "id_op": [9], "op_prob": [1.0]},
            ],
            "short": {"id_op": [2, 3], "op_prob": [1.0]},
            "beyond": {"id_op": [200], "op_prob": [1.0]},
            "bare": {"id_op": [2]},
        }
    },
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "presets.json").write_text(json.dumps(CONTENT))
    return tmp_path / "presets.json"


def weights(mixture):
    return {(cell.op, cell.theme): round(weight, 9) for cell, weight in mixture.weights.items()}


def test_shares_of_ops_templates_and_both(path):
    mixture = fr.Mixture.from_presets(path, "composition/op_level/two", themes=["zoo", "school"])
    assert weights(mixture) == {(2, "zoo"): 0.125, (3, "zoo"): 0.375, (2, "school"): 0.125, (3, "school"): 0.375}
    mixture = fr.Mixture.from_presets(path, "most", op=[4, 6])
    assert weights(mixture) == {(4, "zoo"): 0.45, (6, "zoo"): 0.45, (4, "school"): 0.05, (6, "school"): 0.05}
    mixture = fr.Mixture.from_presets(path, "both")
    assert weights(mixture) == {(2, "zoo"): 0.4, (3, "zoo"): 0.4, (9, "festival"): 0.2}
    assert weights(fr.Mixture.from_presets(path, "unknown", op=[2], templates={"a_circus": "school"})) == {
        (2, "school"): 1.0
    }


def test_they_add_and_scale_as_other_mixtures_do(path):
    both = 0.5 * fr.Mixture.from_presets(path, "both") + 0.5 * fr.Mixture.from_presets(path, "two", themes=["zoo"])
    assert weights(both) == {(2, "zoo"): 0.325, (3, "zoo"): 0.575, (9, "festival"): 0.1}


def test_shares_that_do_not_sum_to_one_are_scaled_and_it_is_said(path):
    with pytest.warns(UserWarning, match="sum to 2; they are rescaled to 1"):
        mixture = fr.Mixture.from_presets(path, "half", themes=["zoo"])
    assert weights(mixture) == {(4, "zoo"): 0.5, (5, "zoo"): 0.5}


@pytest.mark.parametrize(
    "name, message",
    [
        ("nothing", "no entry 'nothing'; there are composition/op_level/two, composition/op_level/half,"),
        ("same", "'same' is ambiguous: composition/op_level_rl/same or context/level/same"),
        ("most", "context/level/most: lists no op; give the argument op"),
        ("unknown", "no theme is known for 'a_circus'"),
        ("short", r"shares must be numbers >= 0, one for each of \[2, 3\], got \[1.0\]"),
        ("beyond", "op must be an integer in 2 .. "),
        ("bare", "mixed/level/bare: 'op_prob' is missing"),
    ],
)
def test_what_is_wrong_is_named(path, name, message):
    with pytest.raises(ValueError, match=message):
        fr.Mixture.from_presets(path, name, op=[2] if name == "unknown" else ())


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"presets: .*none\.json does not exist"):
        read_presets(tmp_path / "none.json")
    for text, message in (
        ("[1]", r"must hold an object, got \[1\]"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read: it is nested too deeply"),
        ('{"a": {"b": 1}}', "is not of the form"),
    ):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=rf"presets: .*other\.json {message}"):
            read_presets(tmp_path / "other.json")


def test_the_command_line_takes_them(path, capsys):
    assert main(["generate", "--show", "1", "--presets", str(path), "--mixture", "same", "--seed", "1"]) == 2
    assert main(["generate", "--show", "1", "--presets", str(path), "--mixture", "op_level_rl/same"]) == 0
    assert "op 7, normalforward" in capsys.readouterr().out
    assert main(["generate", "--show", "1", "--presets", str(path)]) == 2


def test_every_released_entry_is_a_mixture():
    if not REFERENCE.is_dir():
        pytest.skip("the reference data are not on this machine (../shared/reference)")
    entries = read_presets(REFERENCE / "presets.json")
    assert len(entries) == 50
    scaled = []
    for name in entries:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mixture = fr.Mixture.from_presets(REFERENCE / "presets.json", name, op=range(2, 11))
        scaled += [name] * len(caught)
        assert sum(mixture.weights.values()) == pytest.approx(1.0)
        fr.TaskStream(mixture, seed=0)[0:2]
    # 0.86 stands where 0.06 was meant
    assert scaled == ["composition-10B/op_level/id2-10_0.2easy_0.3medium_0.5hard"]
    cells = fr.Mixture.from_presets(REFERENCE / "presets.json", "0.99zoo_op2-20+0.01teacher_op2").weights
    assert sum(weight for cell, weight in cells.items() if cell.theme == "school") == pytest.approx(0.01)
    assert {cell.op for cell in cells if cell.theme == "school"} == {2}
