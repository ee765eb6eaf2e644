"""Cloudflare's API for DNS records at a port of this host, for its own library to talk to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ZONE = "023e105f4ecef8ad9ca31a8372d0c353"
TOKEN = "a-token"  # noqa: S105
Body = dict[str, Any]


@dataclass
class Zone:
    """A zone: its records by ID, and how many of them a page and the zone may have.

    asked tells the requests; refusal is answered to all of them, if there is one: a status, a code
    and a message of Cloudflare's.
    """

    records: dict[str, Body] = field(default_factory=dict)
    page: int = 3
    limit: int = 200
    asked: list[str] = field(default_factory=list)
    batches: list[Body] = field(default_factory=list)
    refusal: tuple[int, int, str] | None = None

    def allow(self, authorization: str, asked: str, path: str) -> None:
        """Refuse who has no token, and who asks for another zone."""
        if self.refusal:
            raise Refused(*self.refusal)
        if authorization != f"Bearer {TOKEN}":
            raise Refused(403, 10000, "Authentication error")
        if urlsplit(asked).path != f"/zones/{ZONE}/{path}":
            raise Refused(404, 7003, "Could not route to that path")

    def add(self, kind: str, name: str, content: str, **more: object) -> str:
        number = f"{len(self.records) + 1:032x}"
        own = {"id": number, "type": kind, "name": name, "content": content, "ttl": 300}
        proxied = {"proxiable": kind == "A", "proxied": False}
        self.records[number] = {**own, **proxied, "settings": {}, "tags": [], **more}
        return number

    def listed(self, number: int, size: int) -> Body:
        """Return a page as Cloudflare does, which gives less than is asked for at will."""
        size = min(size, self.page)
        every = list(self.records.values())
        some = every[(number - 1) * size : number * size]
        about = {"page": number, "per_page": size, "count": len(some), "total_count": len(every)}
        return {**_good(some), "result_info": about}

    def batch(self, asked: Body) -> Body:
        """Do all or nothing, deletes first."""
        self.batches.append(asked)
        kept = dict(self.records)
        for each in asked.get("deletes", []):
            del kept[each["id"]]
        if len(kept) + len(asked.get("posts", [])) > self.limit:
            raise Refused(400, 81045, "Record quota exceeded.")
        self.records = kept
        for each in asked.get("posts", []):
            data = each.pop("data", None)
            if data:
                each["content"] = " ".join(str(value) for value in data.values())
            self.add(each.pop("type"), each.pop("name"), each.pop("content"), **each)
        return _good({"deletes": [], "patches": [], "puts": [], "posts": []})


class Refused(Exception):  # noqa: N818
    """What Cloudflare answers instead: a status, its code, and its message."""


def _good(result: object) -> Body:
    return {"success": True, "errors": [], "messages": [], "result": result}


@contextlib.contextmanager
def serving(zone: Zone) -> Iterator[str]:
    """Serve a zone; yield the API's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            number, size = (int(query.get(key, ["1"])[0]) for key in ("page", "per_page"))
            self._answer("dns_records", lambda: zone.listed(number, size))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer("dns_records/batch", lambda: zone.batch(asked))

        def _answer(self, path: str, call: Any) -> None:  # noqa: ANN401
            zone.asked.append(f"{self.command} {self.path}")
            status, body = 200, None
            try:
                zone.allow(self.headers["Authorization"], self.path, path)
                body = call()
            except Refused as error:
                status, code, message = error.args
                errors = [{"code": code, "message": message}]
                body = {"success": False, "errors": errors, "messages": [], "result": None}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
