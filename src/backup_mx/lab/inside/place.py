"""Be told, inside a lab machine: a place on the Internet, as Apprise's ``json://`` tells it.

    place.py 8090 FOLDER/told.jsonl

Each POST becomes a line of that file: JSON, with when it came (seconds since 1970) and what was
posted. It runs alone, on the machine's own Python.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Taken(BaseHTTPRequestHandler):
    """Takes whatever is JSON."""

    def do_POST(self) -> None:
        """Note what came, then answer."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "told": told}) + "\n")
        self.send_response(200)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("", int(sys.argv[1])), Taken).serve_forever()
