"""A model that has to be downloaded first: the node answers meanwhile, says how far it is, and goes on by itself."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from conftest import ROOT

MODEL = ROOT / "models" / "florence2_tiny_tabletop"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub():
    """A local server that plays the hub and has the shipped model as owner/name; weights come when `release` is set."""
    files = {it.name: it.read_bytes() for it in MODEL.iterdir() if it.suffix in (".json", ".safetensors")}
    siblings = [
        {
            "rfilename": name,
            "size": len(content),
            "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            **({"lfs": {"sha256": hashlib.sha256(content).hexdigest()}} if name.endswith(".safetensors") else {}),
        }
        for name, content in files.items()
    ]
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[-1]
            is_listing = self.path.startswith("/api/models/owner/name/")
            body = json.dumps({"sha": COMMIT, "siblings": siblings}).encode() if is_listing else files.get(name)
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            half = len(body or b"") // 2 if name.endswith(".safetensors") else 0
            self.wfile.write((body or b"")[:half])
            if half:
                release.wait(60)
            self.wfile.write((body or b"")[half:])

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.release = release
    yield server
    release.set()
    server.shutdown()


def test_the_node_answers_while_a_model_is_downloaded(world, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    heard = world.listen(DiagnosticArray, "/diagnostics")
    world.start_node(wait=False, model="owner/name")

    def model_messages():
        return [it.message for array in heard for it in array.status if it.name.endswith(": model")]

    def is_halfway():
        return any("downloading owner/name" in it and "MB (model.safetensors)" in it for it in model_messages())

    world.spin_until(is_halfway, what="the progress of the download")
    assert world.state() == "configuring"
    hub.release.set()
    world.wait_for_state("active")
    heard.clear()
    world.spin_until(model_messages)
    assert model_messages()[-1].startswith("owner/name@01234567 on ")


def test_a_model_that_cannot_be_had_is_told(world, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    heard = world.listen(DiagnosticArray, "/diagnostics")
    world.start_node(wait=False, model="owner/name")
    world.spin_until(
        lambda: any("HF_HUB_OFFLINE is set" in it.message for array in heard for it in array.status),
        what="the reason in /diagnostics")
    assert world.state() == "unconfigured"
