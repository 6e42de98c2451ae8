"""A small double of the Hugging Face Hub on loopback, for the real clients: repositories with commits, branches and
tags, large files apart, and faults on request.

It speaks what huggingface_hub, transformers, datasets and the `hf` command ask of the Hub when they push, list and load
(no Xet: set HF_HUB_DISABLE_XET=1). What the Hub checks it checks: tokens, metadata of cards, hashes of large files, and
that a commit names large files which were uploaded.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import transformers.utils.hub
import yaml
from huggingface_hub import constants

USER = "tester"
TOKEN = "hf_loopback"
LFS_FROM_BYTES = 10_000_000
LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".bin", ".pt", ".npy", ".zip", ".png", ".wav")
LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-4.0", "other"}
TASKS = {"audio-classification", "feature-extraction", "fill-mask", "automatic-speech-recognition", "audio-to-audio"}
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """A file's content; large ones are named by their sha256, others by git's sha1."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Mapping[str, Blob]
    parent: "Commit | None" = None

    def history(self) -> "list[Commit]":
        """This commit and all before it, the newest first."""
        return [self, *(self.parent.history() if self.parent else [])]


@dataclass
class Repository:
    """One repository; `branches` and `tags` name commits."""

    kind: str
    name: str
    private: bool
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches["main"] = self._commit("initial commit", {".gitattributes": Blob(b"", False)}, None)

    def commit(self, branch: str, title: str, files: Mapping[str, Blob]) -> Commit:
        self.branches[branch] = self._commit(title, files, self.branches[branch])
        return self.branches[branch]

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or the start of a hash names."""
        named = self.branches.get(revision) or self.tags.get(revision)
        commits = [commit for head in (*self.branches.values(), *self.tags.values()) for commit in head.history()]
        by_hash = (commit for commit in commits if len(revision) >= 7 and commit.oid.startswith(revision))
        return named or next(by_hash, None)

    @property
    def files(self) -> dict[str, bytes]:
        """What lies on `main`, without what the Hub itself puts there."""
        return {path: blob.content for path, blob in self.branches["main"].files.items() if path != ".gitattributes"}

    @property
    def titles(self) -> list[str]:
        """The titles of the commits on `main` but the first, the oldest first."""
        return [commit.title for commit in self.branches["main"].history()][::-1][1:]

    def _commit(self, title: str, files: Mapping[str, Blob], parent: Commit | None) -> Commit:
        tree = json.dumps([title, parent and parent.oid, sorted((path, blob.oid) for path, blob in files.items())])
        return Commit(hashlib.sha1(f"{self.kind}/{self.name} {tree}".encode()).hexdigest(), title, files, parent)


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" matches `pattern`: an answer with `status`, or
    with `after_bytes` a connection cut after so much of the body; `reached` is set by the first."""

    pattern: str
    status: int
    after_bytes: int | None
    times: int
    reached: threading.Event = field(default_factory=threading.Event)


class HubDouble:
    """The server; `repositories` by "models/owner/name", `requests` as "METHOD /path" in their order."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["HubDouble"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def model(self, name: str) -> Repository:
        return self.repositories[f"models/{name}"]

    def fail(self, pattern: str, *, status: int = 503, times: int = 1) -> Fault:
        """The next `times` matching requests are answered by `status` and nothing else happens."""
        return self._add(Fault(pattern, status, None, times))

    def cut(self, pattern: str, *, after_bytes: int, times: int = 1) -> Fault:
        """The next `times` matching requests lose their connection after so many bytes of their body."""
        return self._add(Fault(pattern, 0, after_bytes, times))

    def environment(self, home: str) -> dict[str, str]:
        """The variables with which a client in a process of its own comes here; `home` holds its caches."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": home,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
        }

    def _add(self, fault: Fault) -> Fault:
        with self.lock:
            self.faults.append(fault)
        return fault

    def take_fault(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


class _Refused(Exception):
    """An answer that is an error; `code` is the Hub's X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


REPO = r"(?P<kind>models|datasets)/(?P<name>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/]+)"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubDouble

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        path = url.path
        fault = self.hub.take_fault(f"{self.command} {unquote(path)}")
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.after_bytes is not None:
            self.rfile.read(min(fault.after_bytes, length))
            fault.reached.set()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self._read_body(length)
        if self.body is None:  # the client went away in the middle
            self.close_connection = True
            return
        try:
            if fault is not None:
                fault.reached.set()
                raise _Refused(fault.status, "the double was asked to fail")
            for method, pattern, action in _ROUTES:
                found = re.fullmatch(pattern, path)
                if method == self.command and found:
                    with self.hub.lock:
                        action(self, **{name: unquote(part) for name, part in found.groupdict().items()})
                    return
            raise _Refused(404, f"the double knows no {self.command} {path}")
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self._send(refused.status, {"error": refused.message}, headers)

    def _read_body(self, length: int) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data))} | dict(headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    @property
    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _need_token(self) -> None:
        if not self._has_token:
            raise _Refused(401, "Invalid username or password.")

    def _repository(self, kind: str, name: str, *, writes: bool = False) -> Repository:
        found = self.hub.repositories.get(f"{kind}/{name}")
        if found is None or (found.private and not self._has_token):
            raise _Refused(404 if self._has_token else 401, "Repository not found", "RepoNotFound")
        if writes:
            self._need_token()
        return found

    def _commit_of(self, repository: Repository, revision: str) -> Commit:
        commit = repository.find(revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Accounts and cards

    def whoami(self) -> None:
        self._need_token()
        self._send(200, {"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": {"type": "access_token"}})

    def validate_yaml(self) -> None:
        errors = list(_faults_of_card(self.json["content"]))
        answer = {"errors": [{"message": message} for message in errors], "warnings": []}
        self._send(400 if errors else 200, answer)

    # Repositories

    def create(self) -> None:
        self._need_token()
        asked = self.json
        kind = f"{asked.get('type') or 'model'}s"
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if f"{kind}/{name}" in self.hub.repositories:
            return self._send(409, {"error": "You already created this repo", "url": url})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repositories[f"{kind}/{name}"] = Repository(kind, name, private)
        return self._send(200, {"url": url, "name": name, "id": name})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._repository(kind, name)
        commit = self._commit_of(repository, revision)
        card = _metadata(commit.files["README.md"].content.decode()) if "README.md" in commit.files else {}
        with_blobs = "blobs" in self.query
        siblings = [
            {"rfilename": path} | ({"size": len(blob.content), "blobId": blob.oid} if with_blobs else {})
            for path, blob in commit.files.items()
        ]
        answer = {"_id": name, "id": name, "modelId": name, "author": name.split("/")[0], "sha": commit.oid}
        answer |= {"private": repository.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0}
        answer |= {"tags": card.get("tags", []), "cardData": card, "siblings": siblings, "lastModified": DATE}
        answer |= {"createdAt": DATE}
        if kind == "models":
            answer |= {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
        self._send(200, answer)

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> None:
        commit = self._commit_of(self._repository(kind, name), revision)
        inside = f"{path}/" if path else ""
        entries = [item for item in _entries(commit) if item["path"].startswith(inside)]
        if path and not entries:
            raise _Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            entries = [item for item in entries if "/" not in item["path"][len(inside) :]]
        self._send(200, entries)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        commit = self._commit_of(self._repository(kind, name), revision)
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = self.json["paths"] if is_json else parse_qs((self.body or b"").decode())["paths"]
        self._send(200, [item for item in _entries(commit) if item["path"] in asked])

    def refs(self, kind: str, name: str) -> None:
        repository = self._repository(kind, name)

        def listed(named: Mapping[str, Commit], what: str) -> list[dict[str, str]]:
            return [
                {"name": ref, "ref": f"refs/{what}/{ref}", "targetCommit": commit.oid} for ref, commit in named.items()
            ]

        answer = {"branches": listed(repository.branches, "heads"), "tags": listed(repository.tags, "tags")}
        self._send(200, answer | {"converts": [], "pullRequests": []})

    def commits(self, kind: str, name: str, revision: str) -> None:
        history = self._commit_of(self._repository(kind, name), revision).history()
        self._send(
            200,
            [
                {"id": commit.oid, "title": commit.title, "message": "", "date": DATE, "authors": [{"user": USER}]}
                for commit in history
            ],
        )

    def create_branch(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, writes=True)
        if revision in repository.branches:
            raise _Refused(409, f"Reference already exists: refs/heads/{revision}")
        repository.branches[revision] = self._commit_of(repository, self.json.get("startingPoint", "main"))
        self._send(200, {})

    def create_tag(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, writes=True)
        repository.tags[self.json["tag"]] = self._commit_of(repository, revision)
        self._send(200, {})

    # Pushing

    def preupload(self, kind: str, name: str, revision: str) -> None:
        there = self._commit_of(self._repository(kind, name, writes=True), revision).files
        answer = []
        for file in self.json["files"]:
            is_lfs = file["size"] >= LFS_FROM_BYTES or file["path"].endswith(LFS_SUFFIXES)
            known = {"oid": there[file["path"]].oid} if file["path"] in there else {}
            mode = "lfs" if is_lfs else "regular"
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | known)
        self._send(200, {"files": answer})

    def lfs_batch(self, name: str) -> None:
        self._need_token()
        objects = []
        for wanted in self.json["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/large-files/{wanted['oid']}", "header": {}}}
            upload |= {"verify": {"href": f"{self.hub.endpoint}/large-files/{wanted['oid']}/verify", "header": {}}}
            objects.append(wanted | ({} if wanted["oid"] in self.hub.large_files else {"actions": upload}))
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body or b"").hexdigest() != oid:
            raise _Refused(400, f"the content is not that of {oid}")
        self.hub.large_files[oid] = self.body or b""
        self._send(200, b"")

    def lfs_verify(self, oid: str) -> None:
        if len(self.hub.large_files.get(oid, b"")) != self.json["size"]:
            raise _Refused(404, f"{oid} was not uploaded")
        self._send(200, {})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, writes=True)
        if revision not in repository.branches:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repository.branches[revision]
        lines = [json.loads(line) for line in (self.body or b"").splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", head.oid) != head.oid:
            raise _Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        made = repository.commit(revision, header["summary"], files)
        url = f"{self.hub.endpoint}/{name}/commit/{made.oid}"
        self._send(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def _apply(self, files: dict[str, Blob], key: Literal["file", "lfsFile"] | str, value: Mapping[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]), is_lfs=False)
        elif key == "lfsFile" and value["oid"] in self.hub.large_files:
            files[path] = Blob(self.hub.large_files[value["oid"]], is_lfs=True)
        elif key == "lfsFile":
            raise _Refused(400, f"the content of {path} was not uploaded")
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            for inside in [other for other in files if other.startswith(path.rstrip("/") + "/")]:
                del files[inside]
        else:
            raise _Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")

    # Loading

    def resolve(self, name: str, revision: str, path: str, kind: str = "models") -> None:
        commit = self._commit_of(self._repository(kind.rstrip("/"), name), revision)
        if path not in commit.files:
            raise _Refused(404, f"Entry not found: {path}", "EntryNotFound")
        blob = commit.files[path]
        headers = {"ETag": f'"{blob.oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        headers |= {"Content-Type": "application/octet-stream"}
        if blob.is_lfs:
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._send(200, blob.content, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(blob.content)), len(blob.content) - 1)
        headers |= {"Content-Range": f"bytes {start}-{end}/{len(blob.content)}"}
        return self._send(206, blob.content[start : end + 1], headers)


_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", f"/api/{REPO}", _Handler.info),
    ("GET", f"/api/{REPO}/revision/{REVISION}", _Handler.info),
    ("GET", f"/api/{REPO}/tree/{REVISION}", _Handler.tree),
    ("GET", f"/api/{REPO}/tree/{REVISION}/(?P<path>.+)", _Handler.tree),
    ("POST", f"/api/{REPO}/paths-info/{REVISION}", _Handler.paths_info),
    ("GET", f"/api/{REPO}/refs", _Handler.refs),
    ("GET", f"/api/{REPO}/commits/{REVISION}", _Handler.commits),
    ("POST", f"/api/{REPO}/branch/{REVISION}", _Handler.create_branch),
    ("POST", f"/api/{REPO}/tag/{REVISION}", _Handler.create_tag),
    ("POST", f"/api/{REPO}/preupload/{REVISION}", _Handler.preupload),
    ("POST", f"/api/{REPO}/commit/{REVISION}", _Handler.commit),
    ("POST", r"/(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+?)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/large-files/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", "/large-files/(?P<oid>[0-9a-f]{64})/verify", _Handler.lfs_verify),
    *(
        (method, rf"/{kind}(?P<name>[\w.-]+/[\w.-]+)/resolve/{REVISION}/(?P<path>.+)", _Handler.resolve)
        for method in ("HEAD", "GET")
        for kind in ("(?P<kind>datasets/)", "")
    ),
]


def _entries(commit: Commit) -> list[dict[str, Any]]:
    """Files and folders as the Hub lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in commit.files for depth in range(1, path.count("/") + 1)}
    entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
    for path, blob in sorted(commit.files.items()):
        entry = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.content)}
        if blob.is_lfs:
            entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
        entries.append(entry)
    return entries


def _metadata(card: str) -> Any:
    found = re.match(r"^---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def _faults_of_card(card: str) -> Iterator[str]:
    """What the Hub would refuse in a model's card, of the fields that are used here."""
    try:
        data = _metadata(card)
    except yaml.YAMLError as error:
        yield f"the metadata is not YAML: {error}"
        return
    if not isinstance(data, dict):
        yield "the metadata must be a mapping"
        return
    if data.get("license", "other") not in LICENSES:
        yield f'"license" must be one of the Hub\'s, found {data["license"]!r}'
    if data.get("license") == "other" and "license_name" not in data:
        yield '"license_name" is required where "license" is "other"'
    if data.get("pipeline_tag", "feature-extraction") not in TASKS:
        yield f'"pipeline_tag" must be a task, found {data["pipeline_tag"]!r}'
    for key in ("tags", "datasets"):
        if not all(isinstance(item, str) and item for item in data.get(key, [])):
            yield f'"{key}" must be a list of strings'
    ids = [*data.get("datasets", []), *([data["base_model"]] if isinstance(data.get("base_model"), str) else [])]
    for name in ids:
        if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", str(name)):
            yield f"{name!r} is no id of the Hub"
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str) or not isinstance(model.get("results"), list):
            yield '"model-index" needs a name and results'
        for result in model.get("results", []):
            for part, keys in {"task": ("type",), "dataset": ("type", "name")}.items():
                if not all(isinstance(result.get(part, {}).get(key), str) for key in keys):
                    yield f'"model-index": a result needs {part} with {", ".join(keys)}'
            for metric in result.get("metrics") or [{}]:
                if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), (int, float)):
                    yield '"model-index": a metric needs type and value'


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    """A double of the Hub that runs while the test does, with nothing in it."""
    with HubDouble().running() as double:
        yield double


@pytest.fixture
def hub_client(hub: HubDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubDouble:
    """The double, and huggingface_hub of this process turned to it: logged in, and retrying without waiting."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return hub
