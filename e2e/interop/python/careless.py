"""Python's HTTP server with an application that leaves every body where it is, and sends
content with HEAD and 304 too. Each harms the connection of the client that asks for it."""

import http.server
import sys
import time


class Careless(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        content = self.path.encode()
        self.send_response(304 if self.path == "/same" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD" or self.path == "/same":
            time.sleep(0.01)
        self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, *_):
        """Clients leave while it writes."""


Server(("0.0.0.0", int(sys.argv[1])), Careless).serve_forever()
