"""The page's server: one machine, one user. Nothing is found by path, so none can be asked for.

A page of another site that the user visits may try to reach it. So a request must name this machine
as its host (against DNS rebinding), come from no other origin, and changes nothing.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tokenlabel.errors import InputError
from tokenlabel.viewer.answers import Answers

__all__ = ["ViewerServer"]

_LOCAL = ("localhost", "127.0.0.1")
_TIMEOUT = 30.0
_MAX_WORDS = 32  # of one request


class ViewerServer(ThreadingHTTPServer):
    """Serves the page at `url`, to this machine only; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on port {port} ({error}): give another --port"
            ) from None
        self.answers = answers
        self.page = resources.files("tokenlabel.viewer").joinpath("page.html").read_text("utf-8")
        self.pictures = {"/image": answers.picture, "/words": answers.word_sheet}
        self.json_answers: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "/api/info": answers.info,
            "/api/list": answers.list,
            "/api/item": answers.item,
            "/api/crop": answers.crop,
        }

    def handle_error(self, *_request: Any) -> None:
        """A browser that leaves, or says nothing for too long, is no error."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"tokenlabel: the viewer failed on a request: {error!r}", file=sys.stderr)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT  # of the socket, in seconds

    def do_GET(self) -> None:
        if self._foreign():
            self._send(HTTPStatus.FORBIDDEN, b"for this machine only", "text/plain")
            return
        try:
            parts = urlsplit(self.path)
            words = dict(parse_qsl(parts.query, max_num_fields=_MAX_WORDS))
        except ValueError as error:
            self._refuse(f"this address cannot be read: {error}")
            return
        try:
            if parts.path == "/":
                self._send_page()
            elif parts.path in self.server.pictures:
                picture = self.server.pictures[parts.path](words)
                self._send(HTTPStatus.OK, picture, "image/jpeg", 3600)
            elif parts.path in self.server.json_answers:
                answer = self.server.json_answers[parts.path](words)
                self._send(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")
            else:
                self._send(HTTPStatus.NOT_FOUND, b"no such page", "text/plain")
        except InputError as error:
            self._refuse(str(error))

    def _refuse(self, reason: str) -> None:
        line = " ".join(reason.split()).encode("utf-8", "replace")
        self._send(HTTPStatus.BAD_REQUEST, line, "text/plain; charset=utf-8")

    def _foreign(self) -> bool:
        """Whether the request was made for another host, or by a page of another origin."""
        own = {f"{name}:{self.server.port}" for name in _LOCAL}
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        elsewhere = site not in ("none", "same-origin") and (
            self.headers.get("Sec-Fetch-Mode") != "navigate" or self.path.partition("?")[0] != "/"
        )
        return (
            self.headers.get("Host") not in own
            or (origin is not None and origin not in {f"http://{host}" for host in own})
            or elsewhere
        )

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
            " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )
        page = self.server.page.replace("NONCE", nonce).encode()
        self._send(HTTPStatus.OK, page, "text/html; charset=utf-8", policy=policy)

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str, keep: int = 0, policy: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", f"private, max-age={keep}" if keep else "no-store")
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Silent: the page itself tells of errors."""
