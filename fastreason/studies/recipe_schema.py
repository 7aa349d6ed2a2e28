"""The JSON Schema of recipe files, from which editors complete and check them: `fastreason info --schema`.

It is generated from the settings classes, so it knows every field of them with its type and its sentence. A size, a
variant or a file over a base may leave out any field, so none is required.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from ..runtime.field_docs import sentences_of
from ..tasks.mixture import DEPTHS, MODES, Cell, available_mixtures
from .recipe import Recipe
from .stages import KINDS, SHORT_FORM, Stage
from .study import Claim, RangePart

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe or study as TOML, draft 2020-12; mixtures may be named, as in `read_recipe`."""
    definitions: dict[str, Any] = {"MixturePart": _mixture_part(), "Mixture": _mixture()}
    for form in (Recipe, Claim, RangePart):
        schema = TypeAdapter(form).json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {}) | {form.__name__: schema}
        _explain(form, definitions)
    for kind in KINDS.values():  # a file may give a supervised stage of one phase its mixture
        definitions[kind.__name__]["properties"].setdefault("mixture", {"description": "The mixture, of one phase."})
    for definition in definitions.values():
        definition.pop("required", None)
        if "mixture" in definition.get("properties", {}):
            sentence = definition["properties"]["mixture"].get("description")
            definition["properties"]["mixture"] = _described({"$ref": "#/$defs/Mixture"}, sentence)
    definitions["Stage"] = _stage(definitions)
    by_name = {"$ref": "#/$defs/Stage"}
    recipe = definitions.pop("Recipe")
    recipe["properties"]["stages"] = _described(_list(by_name), recipe["properties"]["stages"]["description"])
    for name in SHORT_FORM:  # a listed stage may be called so
        recipe["properties"][name] = _described(by_name, recipe["properties"][name]["description"])
    study = {**recipe["properties"], **_study_fields()}
    variant = {**recipe["properties"], **_variant_fields()}
    # a table of another name changes the stage of this name
    like = _described(_TEXT, "Another size, from which all fields are taken that are not given.")
    sized = {**study, "like": like}
    definitions["Size"] = {"type": "object", "additionalProperties": by_name, "properties": sized}
    definitions["Variant"] = {"type": "object", "additionalProperties": by_name, "properties": variant}
    whole = {
        **study,
        "base": _described(_TEXT, "Another recipe, by name or .toml file, whose fields are taken where this has none."),
        "sizes": _tables({"$ref": "#/$defs/Size"}, "Fields by size, which --size selects."),
    }
    title = {"$schema": DRAFT, "title": "A recipe or study of fastreason", "type": "object"}
    return {
        **title,
        "type": "object",
        "additionalProperties": by_name,
        "properties": whole,
        "$defs": dict(sorted(definitions.items())),
    }


def _stage(definitions: dict[str, Any]) -> dict[str, Any]:
    """The fields of a stage of any kind, beside its own."""
    own, sentences = definitions["Stage"]["properties"], sentences_of(Stage)
    own = {name: _described(_without_null(own[name]), sentences[name]) for name in own if name != "settings"}
    own["like"] = _described(_TEXT, "A stage above, from which all fields are taken that are not given.")
    settings: dict[str, Any] = {}
    for kind in KINDS.values():
        for name, field in definitions[kind.__name__]["properties"].items():
            known = settings.setdefault(name, field)
            if {**known, "description": ""} != {**field, "description": ""}:
                settings[name] = {"anyOf": [known, field], "description": known["description"]}
    return {"type": "object", "additionalProperties": False, "properties": {**settings, **own}}


def _study_fields() -> dict[str, Any]:
    """The fields of a file that are not the recipe's."""
    return {
        "about": _described(_TEXT, "The question, in a few sentences."),
        "seeds": _described(_list(_INTEGER), "Each seed gives every variant a run."),
        "compute": _described(_TEXT, 'What a variant\'s beta splits, for example "1e6 tokens".'),
        "k": _described(_INTEGER, "The k of claims that name none."),
        "mixtures": _tables({"$ref": "#/$defs/Mixture"}, "Mixtures by name, for every `mixture = NAME`."),
        "ranges": _tables(_list({"$ref": "#/$defs/RangePart"}), "Sets of problems that scores are averaged over."),
        "claims": _described(_list({"$ref": "#/$defs/Claim"}), "Predictions about differences between variants."),
        "variants": _described(_list({"$ref": "#/$defs/Variant"}), "The recipe with fields replaced."),
    }


def _variant_fields() -> dict[str, Any]:
    return {
        "name": _described(_TEXT, "Name of the variant."),
        "note": _described(_TEXT, "One line for the report."),
        "remove": _described(_list(_TEXT), "Stages that this variant omits."),
        "split": _tables(_NUMBER, "The share of `compute` of each of some stages; 0 leaves a stage out."),
        "times": _described(_NUMBER, "How much of `compute` is split; default 1."),
        "beta": _described(_NUMBER, "The share of `compute` that RL gets; mid-training gets the rest."),
    }


def _mixture() -> dict[str, Any]:
    named = _described(_TEXT, f"A name in `mixtures`, or of the paper: {', '.join(available_mixtures())}.")
    return {"anyOf": [_list({"$ref": "#/$defs/MixturePart"}), {"$ref": "#/$defs/MixturePart"}, named]}


def _mixture_part() -> dict[str, Any]:
    """The arguments of `Mixture.uniform` and a weight: lists where a `Cell` has one value."""
    schema = TypeAdapter(Cell).json_schema()["properties"]
    sentences = sentences_of(Cell)
    lists = {"op": "op", "theme": "themes", "mode": "modes", "depth": "depths"}
    schema["mode"], schema["depth"] = {"enum": list(MODES)}, {"enum": list(DEPTHS)}
    part: dict[str, Any] = {"weight": _described(_NUMBER, "Share of the part among all parts; default 1.")}
    for name, field in schema.items():
        kind = {key: value for key, value in field.items() if key in ("type", "enum", "anyOf")}
        part[lists.get(name, name)] = _described(_list(kind) if name in lists else kind, sentences.get(name))
    return {"type": "object", "additionalProperties": False, "properties": part}


def _explain(kind: type[Any], definitions: dict[str, Any], done: frozenset[str] = frozenset()) -> None:
    """Gives the fields of a settings class, and of those it contains, their sentences."""
    if kind.__name__ in done or kind.__name__ not in definitions:
        return
    definition, sentences = definitions[kind.__name__], sentences_of(kind)
    definition["description"] = (kind.__doc__ or "").partition("\n\nAttributes:")[0]
    hints = get_type_hints(kind)
    for field in fields(kind):
        shown = definition["properties"].get(field.name)
        if shown is None:
            continue
        definition["properties"][field.name] = _described(_without_null(shown), sentences.get(field.name))
        for inner in _classes(hints[field.name]):
            _explain(inner, definitions, done | {kind.__name__})


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what TOML does not have, and without pydantic's title."""
    kept = {key: value for key, value in schema.items() if key != "title" and (key, value) != ("default", None)}
    options = [option for option in kept.get("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        del kept["anyOf"]
        kept |= options[0]
    return kept


def _classes(hint: Any) -> list[type[Any]]:
    """The settings classes in a type such as `list[Phase] | None`."""
    found = [hint] if isinstance(hint, type) and is_dataclass(hint) else []
    return found + [kind for argument in get_args(hint) for kind in _classes(argument)]


def _described(schema: dict[str, Any], sentence: str | None) -> dict[str, Any]:
    return {**schema, "description": " ".join(sentence.removeprefix("* ").split())} if sentence else schema


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _tables(value: dict[str, Any], sentence: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value, "description": sentence}
