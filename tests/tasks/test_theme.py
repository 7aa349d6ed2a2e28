"""Themes: those that ship, one's own, and errors that name what is wrong with one."""

import pytest
import tomli_w

import fastreason as fr

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
    assert fr.available_themes() == ("festival", "school", "symbolic", "zoo")
    words = {name: {w for part in fr.Theme.load(name).places for w in part} for name in fr.available_themes()}
    assert not words["zoo"] & words["school"] | words["zoo"] & words["festival"]


def test_a_theme_of_ones_own(tmp_path):
    path = write(tmp_path)
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
        (changed_list("places", 0, "South Shed"), "'South Shed' stands for two things"),
        (changed_list("kinds", 0, "saw"), "the name 'saw' stands inside 'steel saw'"),
        (changed_list("kinds", 0, "iron  hammer"), "kinds must be words of letters with one blank between"),
        (changed_list("kinds", 0, "hammer 2"), "words of letters .* got 'hammer 2'"),
        (changed_list("kinds", 0, ""), "words of letters"),
        (changed_list("places", 0, "Shed in Bath"), "holds 'in', which has a meaning in the grammar"),
        ({"kinds": [["a", "b"]]}, "holds 'a'"),
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
