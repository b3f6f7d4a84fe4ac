"""Examples of an OpenAPI document, held against their schemas. Reads it from standard input; prints what is wrong."""

import json
import sys

import jsonschema_rs

DOCUMENT = json.load(sys.stdin)
SCHEMAS = DOCUMENT["components"]["schemas"]


def check(what, schema, example):
    whole = {"allOf": [schema], "components": {"schemas": SCHEMAS}}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    for error in validator.iter_errors(example):
        print(f"{what}: {'/'.join(map(str, error.instance_path))}: {error.message}")


def example_of(holder, schema):
    """That of a parameter or a media type, or else of its schema."""
    for place in (holder, schema, SCHEMAS.get(schema.get("$ref", "").rsplit("/", 1)[-1], {})):
        if "example" in place:
            return [place["example"]]
        if "examples" in place:
            some = place["examples"]
            return [e["value"] for e in some.values()] if isinstance(some, dict) else list(some)
    return []


def examined(what, holder):
    schema = holder["schema"]
    found = example_of(holder, schema)
    if not found:
        print(f"{what}: no example")
    for example in found:
        check(what, schema, example)


for name, schema in SCHEMAS.items():
    if "enum" not in schema and "oneOf" not in schema:
        examined(name, {"schema": schema})
for path, operations in DOCUMENT["paths"].items():
    for method, operation in operations.items():
        where = f"{method.upper()} {path}"
        for parameter in operation.get("parameters", []):
            # A continuation is made by the server: none that is written down is one.
            if parameter["name"] != "continuation":
                examined(f"{where}: {parameter['name']}", parameter)
        contents = [("body", operation.get("requestBody", {}).get("content", {}))]
        contents += [(status, answer.get("content", {})) for status, answer in operation["responses"].items()]
        for kind, content in contents:
            for media, holder in content.items():
                # Batches are binary; of pages, files and metrics nobody needs an example.
                if "json" in media:
                    examined(f"{where}: {kind} {media}", holder)
