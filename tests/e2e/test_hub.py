"""Names on the hub, against a server that speaks its protocol: the network is real, the port is local."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead
from bertwright.model.hub import local_folder
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDPIECE = WordPiece([*SPECIAL_TOKENS, "the", "cat", "sat"], TextRules(lowercase=True))
CONFIG = BertConfig(
    vocab_size=8,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    max_position_embeddings=9,
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub with one model, which remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                path = self.path.split("?")[0]
                hub.asked.append(path)
                if path.startswith(("/api/models/owner/small/revision/", "/api/models/owner/small/tree")) or path == (
                    "/api/models/owner/small"
                ):
                    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
                    if "/tree" in path:
                        entries = [
                            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
                            for name in names
                        ]
                        return self.send(json.dumps(entries).encode())
                    siblings = [{"rfilename": name} for name in names]
                    return self.send(json.dumps({"id": "owner/small", "sha": COMMIT, "siblings": siblings}).encode())
                file = folder / path.partition(f"/resolve/{COMMIT}/")[2]
                if path.startswith("/owner/small/resolve/") and file.is_file():
                    return self.send(file.read_bytes(), etag=True)
                code = "EntryNotFound" if path.startswith("/owner/small/resolve/") else "RepoNotFound"
                return self.send(b'{"error": "not found"}', status=404, code=code)

            do_GET = do_HEAD = answer

            def send(self, content: bytes, *, status: int = 200, etag: bool = False, code: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("X-Repo-Commit", COMMIT)
                if etag:
                    self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                if code:
                    self.send_header("X-Error-Code", code)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "upstream"
    Bert(CONFIG, {"mlm": MaskedLMHead(CONFIG)}).save_pretrained(folder, WORDPIECE)
    (folder / "pytorch_model.bin").write_bytes(b"another format of the same weights")
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes(b"of no use here")
    served = Hub(folder)
    yield served
    served.server.shutdown()
    served.server.server_close()


def bertwright(*arguments: str, home: Path, endpoint: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_COLOR": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    return subprocess.run(
        [sys.executable, "-m", "bertwright", *arguments], env=environment, cwd=home, capture_output=True, text=True
    )


def test_a_model_is_downloaded_once_and_then_read_from_the_cache(hub, tmp_path):
    fill = ("fill", "owner/small", "the [MASK] sat", "--json")
    first = bertwright(*fill, home=tmp_path, endpoint=hub.url)
    assert first.returncode == 0, first.stderr
    assert len(json.loads(first.stdout)) == 5
    files = [path.partition(f"/resolve/{COMMIT}/")[2] for path in hub.asked if "/resolve/" in path]
    assert "model.safetensors" in files
    assert not {"pytorch_model.bin", "onnx/model.onnx"} & set(files), "one format is enough"
    hub.asked.clear()
    again = bertwright(*fill, home=tmp_path, endpoint=hub.url)
    assert again.stdout == first.stdout
    assert hub.asked == [], "what is in the cache needs no network"
    offline = bertwright(*fill, home=tmp_path, endpoint="http://127.0.0.1:9", offline=True)
    assert offline.stdout == first.stdout


def test_a_cache_that_lacks_something_is_completed(hub, tmp_path):
    fill = ("fill", "owner/small", "the [MASK] sat", "--json")
    first = bertwright(*fill, home=tmp_path, endpoint=hub.url)
    for file in (tmp_path / "hub").rglob("vocab.txt"):
        file.unlink()
    for file in (tmp_path / "hub").rglob("tokenizer.json"):
        file.unlink()
    assert bertwright(*fill, home=tmp_path, endpoint=hub.url).stdout == first.stdout
    for marker in (tmp_path / "hub").rglob(".no_exist/*/modules.json"):
        marker.unlink()
    alone = bertwright(*fill, home=tmp_path, endpoint="http://127.0.0.1:9")
    assert alone.stdout == first.stdout
    assert "files may be missing" in alone.stderr


def test_what_the_hub_does_not_have_is_one_message(hub, tmp_path):
    unknown = bertwright("fill", "owner/other", "the [MASK]", home=tmp_path, endpoint=hub.url)
    assert unknown.returncode == 1
    assert "error: owner/other: no such folder, and the hub has no such model" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    offline = bertwright("fill", "owner/small", "the [MASK]", home=tmp_path, endpoint=hub.url, offline=True)
    assert "HF_HUB_OFFLINE is set" in offline.stderr
    unreachable = bertwright("fill", "owner/small", "the [MASK]", home=tmp_path, endpoint="http://127.0.0.1:9")
    assert "the hub cannot be reached" in unreachable.stderr


def test_a_local_folder_never_asks_the_hub(hub, tmp_path):
    (tmp_path / "owner").mkdir()
    Bert(CONFIG, {"mlm": MaskedLMHead(CONFIG)}, seed=3).save_pretrained(tmp_path / "owner/small", WORDPIECE)
    filled = bertwright("fill", "owner/small", "the [MASK] sat", home=tmp_path, endpoint=hub.url)
    assert filled.returncode == 0, filled.stderr
    assert hub.asked == []


@pytest.mark.parametrize("name", ["a/b/c", "../model", "what?", "/no/where"])
def test_a_path_that_cannot_be_a_name_is_not_looked_for(name):
    with pytest.raises(BertwrightError, match="no such folder"):
        local_folder(name)
