"""`fr.evaluate` and `fr.find_edge`: what goes in, and what their results say."""

import json

import pytest

import fastreason as fr
from fastreason.evaluation.evaluate import EvaluateSettings, evaluate_sampler

from .test_evaluate import PART, Oracle, untrained

MIX = fr.Mixture.from_dict(PART)
RANGES = {"both": {"2": 0.25, "3": 0.75}}


@pytest.fixture(scope="module")
def scores():
    return fr.evaluate(Oracle(), MIX, problems=8, samples=4, ranges=RANGES)


def test_scores_are_the_json_of_today(scores):
    settings = EvaluateSettings(mixture=[PART], problems=8, samples=4, k=[1, 2, 4], ranges=RANGES)
    assert scores.to_dict() == evaluate_sampler(Oracle(), settings)
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()


def test_every_number_has_an_attribute_with_its_interval(scores):
    entry = scores.to_dict()["ops"]["3"]
    for level in ("verified", "sound", "answer"):
        of_op = getattr(scores, level)[3]
        assert of_op.ks == (1, 2, 4)
        assert float(of_op.at(4)) == of_op.at(4).value == entry[level]["4"]
        assert [of_op.at(4).low, of_op.at(4).high] == entry[f"{level}_interval"]["4"]
    assert scores.process_accuracy[3].value == entry["process_accuracy"]
    assert scores.failures[3] == entry["failures"]
    assert scores.verified["both"].at(1).value == scores.to_dict()["ranges"]["both"]["verified"]["1"]
    assert list(scores.verified) == [2, 3, "both", "symbolic", "forward"]
    assert scores.ops == (2, 3) and scores.samples == 64 and scores.tokens > 0 and len(scores.traces) == 6


def test_scores_print_as_a_table(scores):
    assert str(scores).splitlines()[1].startswith("op 2") and "both" in str(scores)
    assert "\n" not in repr(scores) and str(scores.verified[2].at(1)) in f"{scores.verified[2].at(1)} of the samples"
    assert scores._repr_html_().startswith("<pre>") and "op 3" in scores.failure_table()


def test_what_was_not_evaluated_is_an_error_that_says_what_was(scores):
    with pytest.raises(ValueError, match="k must be one of 1, 2, 4, got 8"):
        scores.verified[2].at(8)
    with pytest.raises(KeyError, match="7; there are 2, 3, 'both'"):
        scores.verified[7]


def test_a_decoder_and_its_folder_have_the_same_scores(tmp_path):
    model, tokenizer = untrained()
    model.save_pretrained(tmp_path, tokenizer)
    how = {"problems": 2, "samples": 2, "max_new_tokens": 8}
    of_folder = fr.evaluate(tmp_path, MIX, **how)
    assert of_folder.to_dict() == fr.evaluate(model, MIX, tokenizer=tokenizer, **how).to_dict()


def test_an_evaluation_with_a_folder_goes_on_and_loads(tmp_path):
    first = fr.evaluate(Oracle(), MIX, problems=4, samples=2, out=tmp_path / "e")
    again = Oracle()
    assert fr.evaluate(again, MIX, problems=4, samples=2, out=tmp_path / "e").to_dict() == first.to_dict()
    assert not again.asked
    assert fr.Scores.load(tmp_path / "e" / "results.json").verified[2].at(2) == first.verified[2].at(2)


def test_the_edge_is_labelled_cells_and_a_mixture():
    edge = fr.find_edge(Oracle(), MIX, samples=4, first=4, problems=8, mastered=0.6)
    assert [cell.cell.op for cell in edge.cells] == [2, 3]
    assert len(edge.labelled("edge")) == (0 if edge.mixture is None else len(edge.mixture.weights))
    assert edge.to_dict()["cells"][0]["label"] == edge.cells[0].label
    assert "op 2 symbolic" in str(edge) and repr(edge).startswith("Edge(") and "<pre>" in edge._repr_html_()


@pytest.mark.parametrize("measure", [fr.evaluate, fr.find_edge])
def test_a_model_that_cannot_be_asked_is_an_error(measure, tmp_path):
    model, tokenizer = untrained()
    name = measure.__name__
    with pytest.raises(ValueError, match=f"{name}: a Decoder needs the tokenizer argument"):
        measure(model, MIX)
    with pytest.raises(ValueError, match=f"{name}: tokenizer is for a Decoder only"):
        measure(str(tmp_path), MIX, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=f"{name}: model must be a Decoder or a Hugging Face folder, got int"):
        measure(3, MIX)
    with pytest.raises(ValueError, match="no model folder"):
        measure(tmp_path / "none", MIX)


def test_stages_run_without_a_log_or_a_stop_request_on_public_names_alone(tmp_path):
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    model = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    model.reset_parameters(0)
    settings = fr.SupervisedSettings([fr.Phase(1.0, MIX.to_parts())], tokens=300, batch_tokens=256)
    assert fr.train("pretrain", model, tokenizer, settings, folder=str(tmp_path / "a"))["finished"]
    policy = fr.PolicySettings(MIX.to_parts(), steps=1, prompts=2, samples=2, max_new_tokens=4)
    log = tmp_path / "metrics.jsonl"
    assert fr.reinforce(model, tokenizer, policy, folder=str(tmp_path / "b"), log=log)["finished"]
    assert json.loads(log.read_text())["stage"] == "rl"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "metrics.jsonl"]
