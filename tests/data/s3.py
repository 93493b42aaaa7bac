"""A store that speaks as much S3 as s3fs needs: listing, HEAD, and GET of ranges. It counts bytes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Store:
    """Serves the files of a folder as the keys of one bucket, `s3://bucket/...`."""

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self.folder, self.latency = folder, latency
        self.sent: Counter[str] = Counter()  # bytes of bodies by method, and requests
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again at the same port."""
        handler = type("Handler", (_Handler,), {"store": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.0"  # no connection outlives the server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        time.sleep(self.store.latency)
        url = urlsplit(self.path)
        key = unquote(url.path).strip("/").partition("/")[2]
        path = self.store.folder / key
        if "list-type=2" in url.query:
            self._send(200, self._listing(parse_qs(url.query)), body=body)
        elif not key or not path.is_file():
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", body=body)
        else:
            self._file(path, body=body)

    def _file(self, path: Path, *, body: bool) -> None:
        status, size = 200, path.stat().st_size
        start, end = 0, size - 1
        headers = {
            "ETag": f'"{_tag(path)}"',
            "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or end), end)
            status = 206
            if start >= size:
                self._send(416, b"<Error><Code>InvalidRange</Code></Error>", body=body)
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(end + 1 - start) if body else b""
        self._send(status, content, headers, body=body, size=end + 1 - start)

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        keys, folders = [], set()
        for path in sorted(self.store.folder.rglob("*")):
            key = path.relative_to(self.store.folder).as_posix()
            if not path.is_file() or not key.startswith(prefix):
                continue
            inner, found, _ = key.removeprefix(prefix).partition("/")
            if delimiter and found:
                folders.add(f"{prefix}{inner}/")
                continue
            time_of = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(path.stat().st_mtime))
            keys.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                f"<ETag>&quot;{_tag(path)}&quot;</ETag><LastModified>{time_of}</LastModified></Contents>"
            )
        common = [
            f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>"
            for f in sorted(folders)
        ]
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><KeyCount>{len(keys) + len(common)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{''.join(keys)}{''.join(common)}</ListBucketResult>"
        ).encode()

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        body: bool,
        size: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        self.store.sent["requests"] += 1
        if body:
            self.wfile.write(content)
            self.store.sent["bytes"] += len(content)

    def log_message(self, *_: object) -> None:
        pass


def _tag(path: Path) -> str:
    status = path.stat()
    return md5(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
