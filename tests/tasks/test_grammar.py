"""The grammar in docs/grammar.md, compiled to regular expressions, against documents of the stream."""

import re
from pathlib import Path

import pytest

import fastreason as fr

PAGE = Path(__file__).parents[2] / "docs" / "grammar.md"
SYMBOLS = {"{": "(?:", "}": ")*", "[": "(?:", "]": ")?", "(": "(?:", ")": ")", "|": "|", ",": ""}
TOKEN = re.compile(r'\s*(?:"(?P<text>[^"]*)"|\? (?P<regex>.*?) \?|(?P<symbol>[][{}()|,])|(?P<rule>[a-z]+(?: [a-z]+)*))')


def rules(section: str) -> dict[str, str]:
    """The rules in the blocks of a section."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    text = "".join(re.findall(r"```ebnf\n(.*?)```", text, flags=re.S))
    return dict(re.findall(r"^([a-z ]+?)\s*= (.*?) ;$", text, flags=re.S | re.M))


def compiled(style: str) -> re.Pattern[str]:
    """No rule refers to itself, so the whole grammar is one regular expression; what fits a rule is not tried again."""
    grammar = rules("Both styles") | rules(style)

    def expand(body: str) -> str:
        found, at, body = "", 0, body.rstrip()
        while at < len(body):
            token = TOKEN.match(body, at)
            assert token, body[at:]
            at, kind = token.end(), token.lastgroup
            if kind == "rule":
                found += f"(?>{expand(grammar[token['rule']])})"
            else:
                found += {"text": re.escape, "regex": str, "symbol": SYMBOLS.get}[kind](token[kind])
        return found

    return re.compile(expand(grammar["document"]))


PUBLISHED = [
    {"op": [2, 3, 4, 6, 9], "themes": ["zoo", "school", "festival"], "modes": ["forward", "reverse"], "depths": [2, 3]},
    {"op": [3], "themes": ["zoo"], "context": 200},
]
SYMBOLIC = [{"op": [2, 3, 4, 6, 9], "themes": ["symbolic", "symbolic-b"]}]
STYLES = {"Published style": PUBLISHED, "Symbolic style": SYMBOLIC}
# what to write instead of what, once
MUTATIONS = {
    "Published style": [
        ("Define ", "define "), (" as ", " is "), ("; so ", ", so "), (" equals ", " is "), (" = ", " == "),
        (" </answer>", ""), (". Define", " Define"), ("</question>", "</questions>"), ("<answer> ", "<answer> one "),
    ],
    "Symbolic style": [
        (" ?", "?"), (": ", " = "), (". ", " "), (" = ", "="), (" </answer>", ""), ("</solution>", ""),
        ("<answer> ", "<answer> one "), (".", "..")
    ],
}  # fmt: skip


@pytest.fixture(scope="module", params=STYLES)
def style(request):
    stream = fr.TaskStream(fr.Mixture.from_dict(STYLES[request.param]), seed=0)
    return request.param, compiled(request.param), stream[0:200].documents


def test_every_document_is_of_the_grammar(style):
    _, grammar, documents = style
    assert not [document for document in documents if not grammar.fullmatch(document)]


def test_what_is_written_otherwise_is_not(style):
    name, grammar, documents = style
    for before, after in MUTATIONS[name]:
        mutated = [document.replace(before, after, 1) for document in documents if before in document]
        assert len(mutated) > 50, before
        assert not [document for document in mutated if grammar.fullmatch(document)], (before, after)


def test_documents_of_one_style_are_not_of_the_other(style):
    name, _, documents = style
    other = compiled(next(key for key in STYLES if key != name))
    assert not [document for document in documents if other.fullmatch(document)]
