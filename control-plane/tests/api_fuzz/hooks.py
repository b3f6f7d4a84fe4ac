"""The caller of a fuzzing run: who asks, and that nobody gets what their role does not open.

Fuzzed requests end sessions, change passwords, remove users. A caller that lost its credential is made anew with
the admin token, so that all routes stay within reach and none has to be left out.
"""

import itertools
import json
import os
import threading

import requests
import schemathesis

URL = os.environ["WEIR_URL"]
ADMIN = {"Authorization": "Bearer " + os.environ["WEIR_ADMIN_TOKEN"]}
# {"kind": "user" | "machine" | "sensor" | "admin_token", "name", "role", "scopes", "token"}
CALLER = json.loads(os.environ["WEIR_CALLER"])
PASSWORD = "correct horse battery"
RANK = {"viewer": 0, "operator": 1, "admin": 2}
TIMEOUT_S = 60
COUNT = itertools.count(1)


def address():
    """Another one each time: who guesses passwords is held up by address, and would see nothing else."""
    number = next(COUNT)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def call(method, path, status=(200,), headers=None, **body):
    headers = {**(headers or {}), "X-Forwarded-For": address()}
    answer = requests.request(method, URL + path, headers=headers, json=body, timeout=TIMEOUT_S)
    assert answer.status_code in status, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer


def log_in():
    """A session of a new user of the caller's role: the one before may be gone, or held up for wrong guesses."""
    name = f"{CALLER['name']}-{next(COUNT)}"
    call("POST", "/api/v1/users", (200,), ADMIN, name=name, role=CALLER["role"], password=PASSWORD)
    return call("POST", "/api/v1/auth/login", name=name, password=PASSWORD).json()["access_token"]


def make_token():
    made = call("POST", "/api/v1/tokens", (200,), ADMIN, name=CALLER["name"], role=CALLER["role"],
                scopes=CALLER["scopes"])
    return made.json()["secret"]


MAKE = {"user": log_in, "machine": make_token}.get(CALLER["kind"], lambda: CALLER["token"])


@schemathesis.auth(refresh_interval=None)
class Credential:
    lock = threading.Lock()
    token = None

    def get(self, case, context):
        with Credential.lock:
            if Credential.token is None:
                Credential.token = MAKE()
            return Credential.token

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = "Bearer " + data


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers = case.headers or {}
    case.headers["X-Forwarded-For"] = address()


@schemathesis.hook
def after_call(context, case, response):
    sent = response.request.headers.get("Authorization", "")
    with Credential.lock:
        # Not where an extractor was fed a wrong credential on purpose: only where ours is void.
        if response.status_code == 401 and sent == f"Bearer {Credential.token}":
            Credential.token = None


# What a JSON schema cannot say of a value: a grammar, whether it fits another one, what there is, who may.
BEYOND_SCHEMA = {
    "filter", "src", "dst", "address", "protocol", "from", "to", "step", "continuation", "sensor", "user", "role",
    "password", "new_password", "current_password",
    # Of rules, silences and receivers: labels by name, receivers that there are, one of two fields, times that follow.
    "labels", "after", "receivers", "condition", "condition.filter", "condition.above", "condition.ratio_above", "target",
    "target.url", "starts_at", "ends_at", "settings", "prefixes",
    # Of mail: hosts and addresses have grammars, a user goes with a password, and no TLS needs a setting.
    # A request for a certificate: DER in PEM, with a signature.
    "csr",
    "target.host", "target.tls", "target.user", "target.password_secret", "target.from", "target.to",
}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """A refused request that the schema allows is a failure, unless all that is at fault is beyond schemas."""
    kind = type(failure).__name__
    if kind == "JsonSchemaError":
        # A file without lines has no line to look at.
        return bool(response.content)
    if kind != "RejectedPositiveData" or response.status_code not in (400, 422):
        return True
    problem = response.json()
    # A binary format, which has fuzzers of its own.
    if problem["type"] == "urn:weir:problem:not-a-batch":
        return False
    # To a JSON schema 682.0 is an integer, to the API it is not.
    # A setting is held against its own bounds, which are durations, networks and the like.
    wrong = {e["field"].split(".")[0] if e["field"].startswith("settings.") else e["field"]
             for e in problem.get("errors", []) if "floating point" not in e["message"]}
    return not problem.get("errors") or not wrong <= BEYOND_SCHEMA


@schemathesis.serializer("application/x-protobuf")
def protobuf(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def ndjson(context, response):
    """The first line stands for all: they are written by one function."""
    return json.loads(response.content.split(b"\n", 1)[0] or b"null")


@schemathesis.check
def nobody_passes_without_the_role(ctx, response, case):
    """The words of the document, held against who asked."""
    # Every route answers a browser's OPTIONS.
    if not 200 <= response.status_code < 300 or case.method.upper() == "OPTIONS":
        return
    words = case.operation.definition.raw.get("description", "")
    kind = CALLER["kind"]
    if "For whoever logged in." in words:
        assert kind == "user", f"a {kind} passed where only a session may"
    if "Role: " not in words:
        return
    line = words[words.index("Role: ") + len("Role: "):]
    role = line.split(" ")[0].rstrip(";.")
    assert kind != "sensor", "a sensor passed where a role is needed"
    assert RANK[CALLER["role"]] >= RANK[role], f"a {CALLER['role']} passed where {role} is needed"
    if kind == "machine":
        assert "not for machines" not in line, "a machine's token passed where only people may"
        # Where topics ask for theirs, the line names none.
        scope = line.split("scope `")[1].split("`")[0] if "scope `" in line else None
        assert scope is None or scope in CALLER["scopes"], f"a token without the scope {scope} passed"
