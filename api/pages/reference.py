"""The API explained to people: its addresses, parameters, metrics, flags and problems, from what the code declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.pages.words import FLAGS, words_of
from api.problems import KINDS
from astrid.catalog import METRICS, ORIGINS

TRY: Final = {
    "/v1/leaderboard": "/v1/leaderboard?limit=10",
    "/v1/projects": "/v1/projects?limit=10",
    "/v1/gaps": "/v1/gaps?limit=10",
    "/v1/coverage": "/v1/coverage?source=github",
    "/v1/canaries": "/v1/canaries",
    "/v1/reconciliation": "/v1/reconciliation?limit=10",
    "/v1/runs": "/v1/runs?limit=10",
    "/healthz": "/healthz",
    "/readyz": "/readyz",
    "/metrics": "/metrics",
}
"""Addresses that answer without knowing a project."""


def reference_page(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the template from an OpenAPI description."""
    routes = []
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            routes.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "paragraphs": [part.replace("\n", " ") for part in operation["description"].split("\n\n")],
                    "parameters": [_describe(parameter) for parameter in operation.get("parameters", ())],
                    "fields": _fields(description, operation),
                    "try": TRY.get(path),
                }
            )
    return {
        "routes": routes,
        "metrics": [(metric, words_of(metric.name)) for metric in METRICS],
        "origins": ORIGINS,
        "flags": list(FLAGS.items()),
        "problems": KINDS,
    }


def _describe(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = parameter["schema"]
    options = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    limits = [f"from {o['minimum']:,}" for o in options if "minimum" in o]
    limits += [f"to {o['maximum']:,}" for o in options if "maximum" in o]
    return {
        "name": parameter["name"],
        "required": parameter["required"],
        "type": " or ".join(o.get("format", o.get("type", "")) for o in options),
        "limits": " ".join(limits),
        "default": schema.get("default"),
        "description": parameter.get("description") or schema.get("description", ""),
    }


def _fields(description: Mapping[str, Any], operation: Mapping[str, Any]) -> list[tuple[str, str]]:
    content = operation["responses"]["200"].get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    shape = description["components"]["schemas"].get(name, {})
    return [(field, about.get("description", "")) for field, about in shape.get("properties", {}).items()]
