"""A real child process for the supervisor: answers /readyz as the services do, and misbehaves on request."""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar


class Ready(BaseHTTPRequestHandler):
    status = 200
    media_type = "application/json"
    answer: ClassVar[dict[str, object]] = {"ready": True, "reasons": [], "details": {}}

    def do_GET(self) -> None:
        body = json.dumps(self.answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", self.media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Stuck(Ready):
    status = 503
    answer: ClassVar[dict[str, object]] = {"ready": False, "stuck": True, "reasons": ["The checkpoint lacks its vae."]}


class Unwell(Ready):
    status = 500
    media_type = "application/problem+json"
    answer: ClassVar[dict[str, object]] = {
        "title": "Internal error", "status": 500, "code": "internal_error", "detail": "The log has the cause.",
    }


def main(port: int, *manners: str) -> None:
    print(f"pid {os.getpid()}", flush=True)
    if "refuses-to-start" in manners:
        sys.exit("the checkpoint is missing")
    if "ignores-sigterm" in manners:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "has-a-worker" in manners:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"worker {worker.pid}", flush=True)
    if "shouts" in manners:
        print("x" * 3_000_000, flush=True)
    health = {"is-unwell": Unwell, "is-stuck": Stuck}
    HTTPServer(("127.0.0.1", port), next((health[name] for name in manners if name in health), Ready)).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
