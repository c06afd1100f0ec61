"""Two ways to stand between a broker and MinIO: toxiproxy, which harms the connection, and a scripted HTTP proxy, which
harms what is said over it."""

import http.client
import http.server
import json
import pathlib
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request

import harness

TOXIPROXY = harness.CACHE / "peers" / "toxiproxy" / "server"


class Toxiproxy:
    """One proxy in front of `upstream` (host:port)."""

    def __init__(self, directory, upstream):
        self.port, self.control = harness.free_port(), harness.free_port()
        self.log = open(pathlib.Path(directory) / "toxiproxy.log", "ab")
        self.process = subprocess.Popen(
            [str(TOXIPROXY), "-host", "127.0.0.1", "-port", str(self.control)],
            stdout=self.log, stderr=self.log, start_new_session=True,
        )
        harness.wait_until(self.answers, 20, "toxiproxy ready")
        self.ask("POST", "/proxies", {"name": "s3", "listen": f"127.0.0.1:{self.port}", "upstream": upstream})

    def answers(self):
        try:
            return self.ask("GET", "/version") is not None
        except OSError:
            return False

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control}{path}", method=method,
            data=None if body is None else json.dumps(body).encode(), headers={"User-Agent": "tests"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def up(self, enabled):
        self.ask("POST", "/proxies/s3", {"enabled": enabled})

    def toxic(self, kind, stream="downstream", toxicity=1.0, **attributes):
        self.ask("POST", "/proxies/s3/toxics", {
            "name": kind, "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes,
        })

    def heal(self):
        self.ask("POST", "/reset")

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Reply:
    """What the scripted store says without asking MinIO."""

    def __init__(self, status, code="", message="scripted"):
        self.status = status
        self.body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


LOST, FLIPPED, CUT, STUCK = "lost", "flipped", "cut", "stuck"


class ScriptedStore:
    """Passes requests to MinIO. `rule(method, path, headers)` may return None (pass), a `Reply`, or LOST (apply, then
    drop the connection), FLIPPED (one byte of the body is wrong), CUT (half of the body), STUCK (half, then silence)."""

    def __init__(self, upstream):
        self.upstream, self.rule, self.seen = upstream, None, []
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one(self):
                store.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def handle(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        rule = self.rule
        action = rule(request.command, request.path, request.headers) if rule else None
        self.seen.append((time.monotonic(), request.command, request.path, action))
        if isinstance(action, Reply):
            return self.answer(request, action.status, [("Content-Type", "application/xml")], action.body)
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body if body else None)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if action == LOST:
            return self.drop(request)
        if action == FLIPPED and data:
            data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x10]) + data[len(data) // 2 + 1:]
        headers = [pair for pair in answer.getheaders() if pair[0].lower() not in ("content-length", "transfer-encoding", "connection")]
        if request.command == "HEAD":
            headers.append(("Content-Length", answer.getheader("Content-Length", "0")))
            return self.answer(request, answer.status, headers, b"", length=False)
        if action in (CUT, STUCK):
            self.answer(request, answer.status, headers, data, upto=len(data) // 2)
            if action == STUCK:
                time.sleep(20)
            return self.drop(request)
        self.answer(request, answer.status, headers, data)

    def answer(self, request, status, headers, body, length=True, upto=None):
        request.send_response_only(status)
        for name, value in headers:
            request.send_header(name, value)
        if length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body if upto is None else body[:upto])
        request.wfile.flush()

    def drop(self, request):
        request.close_connection = True
        try:
            request.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
