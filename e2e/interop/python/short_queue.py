"""Python's HTTP server with the shortest accept queue, of which it takes one connection each
100 ms: while the queue is full the kernel drops a client's SYN, and the client repeats it."""

import http.server
import sys
import time

# At 0.2 some callers wait for more than 4 s also without the mesh, and one in 160 for 5 s.
EVERY = 0.1


class Hello(http.server.BaseHTTPRequestHandler):
    # One who connected and left must not be waited for.
    timeout = 5

    def do_GET(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"hello\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1

    def get_request(self):
        time.sleep(EVERY)
        return super().get_request()

    def handle_error(self, *_):
        """Clients leave while it reads or writes."""


Server(("0.0.0.0", int(sys.argv[1])), Hello).serve_forever()
