"""A real browser opens a page of another site, which tries whatever a page can send."""

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from tests.running_triton import tiny_classifier

_NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
WITHIN_S = 90.0
PAGE = """<!doctype html><title>A page</title><iframe name="sink"></iframe><script>
const gateway = "GATEWAY", told = {};
async function attempt(name, path, options) {
  try {
    const answer = await fetch(gateway + path, {credentials: "CREDENTIALS", ...options});
    told[name] = answer.type == "opaque" ? "sent" : answer.status;
  } catch (error) { told[name] = "failed"; }
}
function form(path, type) {
  const made = document.createElement("form");
  Object.assign(made, {action: gateway + path, method: "POST", enctype: type, target: "sink"});
  made.innerHTML = "<input name='{\\"image\\": \\"' value='\\"}'>";
  document.body.append(made);
  return new Promise(done => {
    document.querySelector("iframe").onload = done;
    made.submit();
  });
}
onload = async () => {
  const plain = {method: "POST", mode: "no-cors"}, body = '{"image": "AAAA"}';
  await attempt("list", "/api/v1/list", {});
  await attempt("unload", "/api/v1/unload?name=m", plain);
  await attempt("load", "/api/v1/load?name=asleep", plain);
  await attempt("run", "/api/v1/run/m", {...plain, body});
  await attempt("register", "/api/v1/register?name=evil", {...plain, body});
  await attempt("key", "/api/v1/keys", {...plain, body: '{"name": "evil", "role": "admin"}'});
  await attempt("v2", "/v2/repository/models/m/unload", plain);
  const file = new FormData();
  file.append("file", new Blob(["x"]), "m.onnx");
  await attempt("form data", "/api/v1/register?name=evil2", {...plain, body: file});
  await attempt("delete", "/api/v1/models/m", {method: "DELETE"});
  await attempt("alias", "/api/v1/models/m/aliases/evil", {
    method: "PUT", headers: {"Content-Type": "application/json"}, body: '{"version": 1}'});
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
    await form("/api/v1/unload?name=m", type);
  navigator.sendBeacon(gateway + "/api/v1/unload?name=m", body);
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
};
</script>"""


class Site:
    """A site of somebody else, on a port of its own. `told` is what its page found out."""

    def __init__(self) -> None:
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self.page = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                content = site.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                site.told.put(json.loads(body))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # To a browser `localhost` is another site than 127.0.0.1.
        self.origin = f"http://localhost:{self.server.server_port}"


@contextlib.contextmanager
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def visited(
    page: Site, gateway: GatewayProcess, folder: Path, *, credentials: str = "include"
) -> dict[str, Any]:
    """Have the browser open the site's page; return what the page found out."""
    assert BROWSER is not None
    page.page = PAGE.replace("GATEWAY", gateway.url).replace("CREDENTIALS", credentials)
    command = [
        *(BROWSER, "--headless=new", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
        *("--disable-background-networking", "--disable-dev-shm-usage"),
        # Root may not use its sandbox.
        *(["--no-sandbox"] if os.getuid() == 0 else []),
        f"--user-data-dir={folder}",
        f"--log-file={folder}.log",
        # Keeps it open until it is ended.
        "--remote-debugging-port=0",
        page.origin,
    ]
    browser = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(folder.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return page.told.get(timeout=WITHIN_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, 9)
        browser.wait()


def state(gateway: GatewayProcess) -> Any:
    """What is registered and loaded, who has keys, and what was ever done."""
    paths = ("/api/v1/models", "/api/v1/keys", "/api/v1/audit")
    return [gateway.client.get(path).json() for path in paths]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser: chromium-headless-shell")
@pytest.mark.timeout(240)
def test_a_page_of_another_site_changes_nothing(tmp_path: Path) -> None:
    """All that a stranger's page sends to an open gateway is refused; a listed one may do it."""
    with site() as evil, site() as friend:
        environment = {"CORS_ORIGINS": friend.origin}
        with running_gateway(tmp_path, environment=environment) as gateway:
            gateway.register("m", tiny_classifier(), load="true")
            gateway.register("asleep", tiny_classifier(seed=1))
            before = state(gateway)
            told = visited(evil, gateway, tmp_path / "evil")
            assert state(gateway) == before
            readable = {name for name, outcome in told.items() if outcome not in {"sent", "failed"}}
            assert readable == set(), told
            assert told["unload"] == told["load"] == "sent"
            shown = gateway.client.get("/metrics").text
            refused = re.findall(r'refused_requests_total\{.*reason="cross_site"\} (\S+)', shown)
            # What the browser sent without asking first: simple requests, forms and the beacon.
            assert sum(map(float, refused)) >= sum(said == "sent" for said in told.values()) + 4
            assert not re.search(r'requests_total\{endpoint="run",.*status="200"', shown)
            # The very same page, of an origin that is listed: so the browser does send all that.
            told = visited(friend, gateway, tmp_path / "friend", credentials="omit")
            assert told["list"] == 200, told
            after = state(gateway)
            assert after != before
            actions = [entry["action"] for entry in after[2][len(before[2]) :]]
            assert {"unload", "load"} <= set(actions)
