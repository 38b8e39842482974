"""A local server for small archives that breaks off, stalls or changes as a test configures it."""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from urllib.parse import unquote

TRAINING_IDS = [1377, 1378, 1379, 4360, 15610]
VALIDATION_IDS = {1: [1386, 1392], 2: [10018, 15612]}
TRAINING, TABLE, VALIDATION = (
    f"Bone+Age+{name}.zip" for name in ("Training+Set", "Training+Set+Annotations", "Validation+Set")
)


class Site:
    """The server's files, configured misbehavior, and received requests."""

    def __init__(self, **files: bytes) -> None:
        self.files = dict(files)
        self.break_after: list[int] = []  # bytes of the body, for each of the next responses
        self.stall_after: int | None = None  # bytes of the body after which it stalls until `resume`
        self.resume = threading.Event()
        self.errors: list[int] = []  # status of each of the next responses
        self.ranges = True
        self.if_range = True
        self.weak = False
        self.shift = 0  # bytes by which a partial response starts elsewhere than requested
        self.declared: dict[str, int] = {}  # a wrong Content-Length
        self.redirect: str | None = None
        self.requests: list[tuple[str, str | None, int]] = []  # name, Range, status
        self.url = ""

    def tag(self, content: bytes) -> str:
        return ("W/" if self.weak else "") + f'"{hashlib.sha256(content).hexdigest()[:16]}"'

    def gets(self, name: str) -> list[tuple[str | None, int]]:
        return [(range_, status) for n, range_, status in self.requests if n == name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, name = self.site, unquote(self.path.lstrip("/"))
        content, wanted = site.files.get(name), self.headers.get("Range")
        body, status, extra = content or b"", 200, {}
        if content is None:
            body, status = b"<html>no such key</html>", 404
        elif site.redirect:
            body, status, extra = b"", 302, {"Location": site.redirect}
        elif site.errors:
            body, status = b"", site.errors.pop(0)
        elif wanted and site.ranges and not (site.if_range and self.headers["If-Range"] != site.tag(content)):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) + site.shift
            body, status = content[start:], 206 if start < len(content) else 416
            extra = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        site.requests.append((name, wanted, status))
        self.send_response(status)
        if status in (200, 206):
            self.send_header("ETag", site.tag(content or b""))
        for header, value in extra.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(site.declared.get(name, len(body))))
        self.end_headers()
        self.close_connection = True
        with suppress(ConnectionError):  # the client has disconnected
            if site.stall_after is not None and site.stall_after < len(body):
                self.wfile.write(body[: site.stall_after])
                site.resume.wait(20)
            else:
                self.wfile.write(body[: site.break_after.pop(0) if site.break_after else len(body)])


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve `site` on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield site
    finally:
        site.resume.set()
        server.shutdown()
        server.server_close()


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file of the entries, also with names that `zipfile` would change."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return memory.getvalue()


def noise(number: int, size: int = 20_000) -> bytes:
    """Return bytes that hardly compress, like an image."""
    return Random(number).randbytes(size)


def challenge_files() -> dict[str, bytes]:
    """Return the challenge's three archives with a few small images."""
    junk = {"__MACOSX/._1377.png": b"junk", ".DS_Store": b"junk"}
    images = {f"boneage-training-dataset/{i}.png": noise(i) for i in TRAINING_IDS}
    table = "id,boneage,male\n" + "".join(f"{i},{60 + i % 99},{i % 2 == 0}\n" for i in TRAINING_IDS)
    inner = {
        f"Bone Age Validation Set/boneage-validation-dataset-{n}.zip": zipped(
            {f"boneage-validation-dataset-{n}/{i}.png": noise(i) for i in ids} | junk
        )
        for n, ids in VALIDATION_IDS.items()
    }
    labels = "Image ID,male,Bone Age (months)\n" + "".join(
        f"{i},TRUE,{i % 200}.5\n" for ids in VALIDATION_IDS.values() for i in ids
    )
    validation = inner | {"Bone Age Validation Set/Validation Dataset.csv": labels.encode()}
    return {
        TRAINING: zipped({"boneage-training-dataset/": b""} | images | junk),
        TABLE: zipped({"train.csv": table.encode()} | junk),
        VALIDATION: zipped(validation | junk),
    }


def tree(root: Path) -> dict[str, bytes]:
    """Return the content of every file under `root`, without the lock."""
    files = (f for f in sorted(root.rglob("*")) if f.is_file() and f.name != ".download.lock")
    return {str(f.relative_to(root)): f.read_bytes() for f in files}
