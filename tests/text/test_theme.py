"""Themes: those that ship, one's own, and errors that name what is wrong with one."""

import json
import re
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import fastreason as fr
from fastreason.text import theme
from fastreason.text.theme_from_data import learn_file, learn_themes
from tests import published

MINE = {
    "style": "published",
    "total": "total number of tools",
    "average": "average number of screws",
    "average_total": "total number of screws",
    "places": [["North Shed", "South Shed", "East Shed", "West Shed", "Old Barn"]],
    "kinds": [["iron hammer", "steel saw", "brass file", "copper pipe", "wooden plane"]],
}


def write(tmp_path, **changes):
    path = tmp_path / "tools.toml"
    path.write_text(tomli_w.dumps(MINE | changes), encoding="utf-8")
    return str(path)


def test_themes_that_ship():
    files = Path(theme.__file__).with_name("themes").glob("*.toml")
    assert fr.available_themes() == tuple(sorted(file.stem for file in files))
    assert {"festival", "school", "symbolic", "symbolic-b", "zoo"} <= set(fr.available_themes())
    words = {name: {w for part in fr.Theme.load(name).places for w in part} for name in fr.available_themes()}
    assert not words["zoo"] & words["school"] | words["zoo"] & words["festival"]


def test_a_theme_of_ones_own(tmp_path):
    path = write(tmp_path, **changed_list("kinds", 1, "sci-fi saw"))
    batch = fr.TaskStream(fr.Mixture.uniform(op=[4], themes=[path], depths=[2, 3]), seed=1)[0:50]
    text = " ".join(batch.problems)
    assert "iron hammer in North Shed" in text
    assert fr.grade(batch, batch.solutions).verified.all()
    tokenizer = fr.Tokenizer.for_mixtures([batch.stream.mixture])
    assert all(0 not in tokenizer.encode(document) for document in batch.documents)


def changed_list(field, i, name):
    names = list(MINE[field][0])
    names[i] = name
    return {field: [names]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"style": "poem"}, "style must be published or symbolic, got 'poem'"),
        ({"colour": "red"}, "unknown field 'colour'; allowed are average, "),
        ({"total": "sum of tools"}, "total must begin with 'total', got 'sum of tools'"),
        (changed_list("places", 0, "South Shed"), "'South Shed' is used twice"),
        (changed_list("kinds", 0, "saw"), "the name 'saw' is contained in 'steel saw'"),
        (changed_list("kinds", 0, "iron  hammer"), "kinds must be words of letters and inner hyphens"),
        (changed_list("kinds", 0, "hammer 2"), "words of letters .* got 'hammer 2'"),
        (changed_list("kinds", 0, ""), "words of letters"),
        (changed_list("kinds", 0, "iron -hammer"), "words of letters"),
        (changed_list("places", 0, "Shed in Bath"), "contains 'in', a word of the grammar"),
        ({"kinds": [["a", "b"]]}, "contains 'a'"),
        ({"kinds": [["hammer", "saw"]]}, "every sub-list of kinds must hold 5 to 64 names, got 2"),
        ({"places": []}, "places must hold 1 to 250 names"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fr.Theme.load(write(tmp_path, **changes))


def test_missing_fields_are_named(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text('style = "published"\n')
    with pytest.raises(ValueError, match="theme short: places is missing"):
        fr.Theme.load(str(path))


# --- learnt from data -----------------------------------------------------------------------------------------------


def same(a: fr.Theme, b: fr.Theme) -> bool:
    def lists(parts):
        return {frozenset(part) for part in parts}

    return lists(a.places) == lists(b.places) and lists(a.kinds) == lists(b.kinds) and a.total == b.total


@pytest.mark.parametrize("depths", [[2], [2, 3]])
def test_our_own_themes_are_learnt_back(depths):
    names = ["zoo", "school", "festival"]
    mixture = fr.Mixture.uniform(op=[4, 9], themes=names, modes=["forward", "reverse"], depths=depths)
    learnt = learn_themes(fr.TaskStream(mixture, seed=1)[0:1200].rows())
    for name in names:
        original = fr.Theme.load(name)
        assert same(learnt[name], original)
        if 3 in depths:
            assert (learnt[name].average, learnt[name].average_total) == (original.average, original.average_total)


def test_released_data_continue_in_their_own_words(reference, tmp_path):
    rows = reference("problems_medium.jsonl.gz") + reference("problems_hard.jsonl.gz")
    (tmp_path / "released.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = learn_file(tmp_path / "released.jsonl", tmp_path / "themes")
    assert [path.stem for path in paths] == ["crazy_zootopia", "movie_festival_awards", "teachers_in_school"]
    known = set(re.findall(r"\w+", " ".join(row["problem"] + row["question"] + row["solution"] for row in rows)))
    mixture = fr.Mixture.uniform(
        op=[3, 8], themes=[str(path) for path in paths], modes=["forward", "reverse"], depths=[2, 3]
    )
    batch = fr.TaskStream(mixture, seed=5)[0:300]
    for texts in zip(batch.problems, batch.questions, batch.solutions, strict=True):
        said = {word for word in re.findall(r"\w+", " ".join(texts)) if not word.isdigit()}
        assert said <= known
        published.read_solution(texts[2])
    assert fr.grade(batch, batch.solutions).verified.all()


def test_rows_that_do_not_show_enough():
    rows = fr.TaskStream(fr.Mixture.uniform(op=[2], themes=["zoo"]))[0:1].rows()
    with pytest.raises(ValueError, match=r"must hold 5 to 64 names|name no total"):
        learn_themes(rows)
    with pytest.raises(ValueError, match="row 0 has no 'solution'"):
        learn_themes([{"problem": "", "template": "zoo"}])
    with pytest.raises(ValueError, match="learn_themes: row 0: template must be a text, got \\['zoo'\\]"):
        learn_themes([{"problem": "", "solution": "", "template": ["zoo"]}])


@pytest.mark.parametrize(
    "content, message",
    [(b'{"problem": "a', "line 1: no JSON"), (b"{}\n[]", r"line 2: must be an object"), (b"\xff", "line 1: no JSON")],
)
def test_a_file_that_cannot_be_learnt_is_named_with_its_line(content, message, tmp_path):
    (tmp_path / "cut.jsonl").write_bytes(content.replace(b"{}", b'{"problem": "", "solution": "", "template": "a"}'))
    with pytest.raises(ValueError, match=rf"cut\.jsonl, {message}"):
        learn_file(tmp_path / "cut.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


WORDS = st.text(alphabet=st.characters(categories=["Lu", "Ll", "Lo"]), min_size=2, max_size=8).map(lambda w: w + "q")


@settings(max_examples=30)
@given(
    words=st.lists(WORDS, min_size=24, max_size=24, unique=True),
    mode=st.sampled_from(["forward", "reverse"]),
    depth=st.sampled_from([2, 3]),
    op=st.integers(2, 12),
    context=st.sampled_from([0, 200]),
)
def test_any_words_make_a_theme(tmp_path_factory, words, mode, depth, op, context):
    """Names of any letters: the texts are read back by the tests' own reader, which finds the answer."""
    changes = {
        "average": "average number of keepers",  # that the reader knows as a total of products
        "average_total": "total number of keepers",
        "places": [words[:5]],
        "kinds": [words[5:10]],
        "padding_places": [words[10:14], words[14:17]],
        "padding_kinds": [words[17:20], words[20:24]],
    }
    path = write(tmp_path_factory.mktemp("theme"), **changes)
    mixture = fr.Mixture.uniform(op=[op], themes=[path], modes=[mode], depths=[depth], context=context)
    batch = fr.TaskStream(mixture, seed=1)[0:3]
    assert fr.grade(batch, batch.solutions).verified.all()
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    for i in range(3):
        assert 0 not in tokenizer.encode(batch.documents[i])
        problem = published.read_problem(batch.problems[i], batch.questions[i])
        if mode == "forward":
            assert published.solve(problem, problem.asked)[0] == batch.answers[i]
        else:
            assert published.solve(problem, problem.told[0], unknown=batch.answers[i])[0] == problem.told[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"padding_places": [["Low"]]}, r"padding_places must be two lists, .* got lists of \[1\]"),
        ({"padding_kinds": [["blunt"], ["axe"]]}, r"padding_kinds must be two lists, 2 or more first words"),
        ({"padding_places": [["Low"], ["House 3"]]}, "padding_places must be words of letters"),
        ({"padding_places": [["North"], ["Shed", "Hut"]]}, "'North Shed' is used twice"),
        (
            {"padding_kinds": [["big iron", "cheap"], ["hammer", "drill"]]},
            "'iron hammer' is contained in 'big iron h",
        ),
    ],
)
def test_bad_padding_words_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fr.Theme.load(write(tmp_path, **changes))


@pytest.mark.parametrize("content", ["", "style = [", "style = 'published'\nplaces = 3\nkinds = []", "a = '\udcff'"])
def test_a_damaged_theme_is_named_by_its_file(content, tmp_path):
    (tmp_path / "mine.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"mine\.toml: "):
        fr.Theme.load(str(tmp_path / "mine.toml"))
