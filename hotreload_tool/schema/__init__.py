"""JSON schemas of the files that hotreload writes, and the part of JSON Schema that they use.

The schema files are the single definition; `problems` interprets them, so that no second list of rules can drift from
them. The jsonschema library says the same (a test compares the two) but takes longer to import than everything
else that applying a patch needs.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

_TYPES: dict[str, type] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
_ANNOTATIONS = frozenset({"$schema", "$defs", "title", "description"})


@lru_cache
def load(name: str) -> dict[str, Any]:
    """The schema in file `name` of this package."""
    document: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return document


def problems(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, at: str = "$") -> Iterator[str]:
    """Sentences that say where `value` is not as `schema` (draft 2020-12) wants it; none if it is.

    Raises NotImplementedError for a keyword it does not know: a rule must never be passed over.
    """
    root = root or schema
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind == "boolean")):
        yield f"{at} is {_shown(value)}, not of type {kind}"
        return
    for keyword, wanted in schema.items():
        if keyword not in _ANNOTATIONS and keyword not in ("$ref", "type"):
            yield from _check(keyword, wanted, value, schema, root, at)


def _check(keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str) -> Iterator[str]:
    if keyword == "properties":
        for name in wanted.keys() & value.keys():
            yield from problems(value[name], wanted[name], root, f"{at}.{name}")
    elif keyword == "items":
        for i, item in enumerate(value):
            yield from problems(item, wanted, root, f"{at}[{i}]")
    elif not _holds(keyword, wanted, value, schema):
        yield f"{at} is {_shown(value)}: {keyword} {_shown(wanted)} does not hold"


def _holds(keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    if keyword == "const":
        return type(value) is type(wanted) and bool(value == wanted)
    if keyword == "enum":
        return bool(value in wanted)
    if keyword == "required":
        return bool(value.keys() >= set(wanted))
    if keyword == "additionalProperties" and wanted is False:
        return bool(value.keys() <= schema["properties"].keys())
    if keyword == "pattern":
        return re.search(wanted, value) is not None and "\n" not in value   # `$` would allow a newline behind it
    if keyword in ("minimum", "maximum"):
        return bool(value >= wanted if keyword == "minimum" else value <= wanted)
    if keyword in ("minLength", "minItems"):
        return bool(len(value) >= wanted)
    if keyword == "maxItems":
        return bool(len(value) <= wanted)
    raise NotImplementedError(f"JSON Schema keyword {keyword}: {wanted!r}")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
