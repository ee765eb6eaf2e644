"""Oracle's API as the SDK's HTTP session meets it: recorded answers, and a check of signatures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from oci._vendor.requests import PreparedRequest, Response

ANSWERS = Path(__file__).parents[1] / "data" / "oci"
TENANCY = "ocid1.tenancy.oc1..aaaaexample"
USER = "ocid1.user.oc1..aaaaexample"
FINGERPRINT = ":".join(["ab"] * 16)


def profile(folder: Path, region: str = "eu-frankfurt-1") -> rsa.RSAPublicKey:
    """Write an ~/.oci/config and its key below ``folder``; return the key's public half."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / ".oci").mkdir()
    pem = folder / ".oci" / "key.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    lines = {
        "user": USER,
        "fingerprint": FINGERPRINT,
        "tenancy": TENANCY,
        "region": region,
        "key_file": str(pem),
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    (folder / ".oci" / "config").write_text(f"[DEFAULT]\n{text}")
    return key.public_key()


@dataclass
class Oracle:
    """A transport adapter of requests that answers from the files, or as ``refusals`` say.

    refusals maps a file's name to the status and code of the error that is answered instead. known
    is whose signature is right. asked tells which files were answered, in order.
    """

    known: rsa.RSAPublicKey
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    timeouts: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = {each.stem: json.loads(each.read_text()) for each in ANSWERS.glob("*.json")}

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, *_: object, **__: object) -> Oracle:
        return self

    def body(self, name: str) -> list[dict[str, Any]]:
        """Return a recorded body, to be changed."""
        body: list[dict[str, Any]] = self.answers[name]["body"]
        return body

    def send(self, request: PreparedRequest, timeout: object = None, **_: object) -> Response:
        self.timeouts.append(timeout)
        if not self._signed(request):
            return answer(request, 401, refusal("NotAuthenticated"))
        name = self._matching(request)
        self.asked.append(name)
        if name in self.refusals:
            status, code = self.refusals[name]
            return answer(request, status, refusal(code))
        told = self.answers[name]
        return answer(request, 200, told["body"], told.get("headers", {}))

    def close(self) -> None:
        pass

    def _signed(self, request: PreparedRequest) -> bool:
        """Tell whether the known key signed what was sent (draft-cavage-http-signatures)."""
        given = dict(re.findall(r'(\w+)="([^"]*)"', request.headers["authorization"]))
        assert given["keyId"] == f"{TENANCY}/{USER}/{FINGERPRINT}"
        where = urlsplit(request.url)
        own = {
            **{name.lower(): value for name, value in request.headers.items()},
            "(request-target)": f"{request.method.lower()} {where.path}"
            + (f"?{where.query}" if where.query else ""),
        }
        signed = "\n".join(f"{name}: {own[name]}" for name in given["headers"].split())
        signature = base64.b64decode(given["signature"])
        try:
            self.known.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def _matching(self, request: PreparedRequest) -> str:
        where = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(where.query).items()}
        fitting = [
            name
            for name, told in self.answers.items()
            if (told["method"], told["host"], told["path"])
            == (request.method, where.hostname, where.path)
            and told.get("query", {}).items() <= query.items()
            and ("page" in told.get("query", {})) == ("page" in query)
            and (told["method"] == "GET" or asks_for(request, told["body"][0]))
        ]
        assert len(fitting) == 1, f"{request.method} {request.url}: {fitting}"
        return fitting[0]


def asks_for(request: PreparedRequest, series: Mapping[str, Any]) -> bool:
    """Tell whether a question about measured figures is about this series, over the last 7 days."""
    asked = json.loads(request.body)
    start, end = (datetime.fromisoformat(asked[name]) for name in ("startTime", "endTime"))
    assert end - start == timedelta(days=7)
    resource = series["dimensions"]["resourceId"]
    begin = f'{series["name"]}[5m]{{resourceId = "{resource}"}}.'
    return bool(asked["namespace"] == series["namespace"] and asked["query"].startswith(begin))


def refusal(code: str) -> dict[str, str]:
    return {"code": code, "message": f"in Oracle's own words: {code}"}


def answer(
    request: PreparedRequest, status: int, body: object, headers: Mapping[str, str] | None = None
) -> Response:
    response = Response()
    response.status_code = status
    response.headers.update({"content-type": "application/json", **(headers or {})})
    response._content = json.dumps(body).encode()
    response.request, response.url = request, request.url
    return response
