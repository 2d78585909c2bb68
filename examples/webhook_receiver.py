"""Receive webhooks that are signed as Standard Webhooks, and count each of them once.

WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 8080
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from picopay.client import webhooks
from picopay.client.webhooks import WebhookRejected

SECRET = os.environ["WEBHOOK_SECRET"]
BODY_BYTES_MAX = 64 * 1024
seen: set[str | None] = set()  # a table with a unique id, where it matters


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_BYTES_MAX:
            self.answer(413)
            return
        body = self.rfile.read(length)
        try:
            webhook = webhooks.receive(body, self.headers.items(), SECRET)
        except WebhookRejected as rejected:
            print(f"rejected: {rejected.reason}", flush=True)
            self.answer(401)
            return
        if webhook.id not in seen:
            seen.add(webhook.id)
            print(f"received {webhook.id}: {webhook.data}", flush=True)
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver) as server:
        print("listening", flush=True)
        server.serve_forever()
