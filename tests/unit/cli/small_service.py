"""A real child process for the supervisor: answers /readyz as the services do, and misbehaves on request."""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ready": True, "reasons": [], "details": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


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
    HTTPServer(("127.0.0.1", port), Ready).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
