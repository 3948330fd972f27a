"""All rows. To add one: a server, its port, what a Service would declare, its clients."""

import dataclasses
import pathlib
import re

from . import prepare
from .row import Client, Row, absent

HERE = pathlib.Path(__file__).resolve().parents[1]
FIELD = HERE.parent / "field/programs"
HTTP1 = ("names", "hop", "version", "phrase", "h2c")
LONG_CALLS, SHORT_CALLS = 100_000, 2_000


def choose(programs, short, calls):
    """The rows, and what is not tried with the reason."""
    calls = calls or (SHORT_CALLS if short else LONG_CALLS)
    every = [*grpc(programs, calls), *http1(programs, short), *http2(programs, calls), *bytes_(programs, short)]
    return present([row for row in every if row.short or not short])


def present(every):
    """Those whose programs are there, and what is not tried with the reason."""
    rows, missing = [], []
    for row in every:
        if lacks := absent([*row.server, *(client.line for client in row.clients)]):
            missing.append(f"{row.name}: no program {', '.join(lacks)} on this machine")
        else:
            rows.append(row)
    return rows, missing


def tools(programs):
    return programs / "go", programs / "venv/bin/python", HERE / "python"


def grpc(programs, calls):
    go, python, scripts = tools(programs)
    java = programs / "java/grpc-java"
    limit = 60 + calls // 100

    def load(name, *line, made=calls):
        return Client(name, [*line], limit, must=rf"calls {made} failed 0")

    return [
        Row("grpc-go", [[go / "server", "--port=50051"]], 50051, "grpc", [
            Client("grpc-go's interop client, 18 cases", ["bash", HERE / "grpc_interop.sh", go / "client", "{host}", "{port}"], 120,
                   must=r"\A(\w+: 0\n){18}\Z"),
            load_short(go, "unary 100 B, 50 at once", calls, limit),
            load("grpcio unary 100 B, 20 at once", python, scripts / "grpcio_load.py", "{to}", str(calls), "20"),
            load("Node http2 unary 100 B, 50 at once", "node", HERE / "node/grpc_load.js", "{to}", str(calls), "50"),
            load("Node http2 unary 100 B, ended late, 50 at once", "node", HERE / "node/grpc_load.js", "{to}", str(calls), "50", "late"),
            load_short(go, "bidi, 5 rounds each, 50 at once", calls // 10, limit, "-kind=bidi"),
            load_short(go, "unary 10 KB, 50 at once", calls // 10, limit, "-size=10000"),
            load_short(go, "unary 1 MB, 8 at once", calls // 1000, limit, "-size=1000000", "-parallel=8"),
        ], short=True),
        Row("grpcio", [[python, scripts / "grpcio_server.py", "50061"]], 50061, "grpc", [
            load_short(go, "unary 100 B, 50 at once", calls // 10, limit),
            Client("grpcio unary 100 B, 20 at once", [python, scripts / "grpcio_load.py", "{to}", str(calls // 10), "20"], limit,
                   must=rf"calls {calls // 10} failed 0"),
            Client("grpcio bidi, 20 at once", [python, scripts / "grpcio_load.py", "{to}", str(calls // 20), "20", "bidi"], limit,
                   must=rf"calls {calls // 20} failed 0"),
        ], short=True),
        # Of its own, so that the short form needs no Maven.
        Row("grpc-go", [[go / "server", "--port=50051"]], 50051, "grpc", [
            load("grpc-java unary 100 B, 50 at once", java, "load", "{to}", str(calls), "50"),
            load("grpc-java bidi, 5 rounds each, 50 at once", java, "load", "{to}", str(calls // 10), "50", "bidi", made=calls // 10),
        ]),
        Row("grpc-java", [[java, "serve", "50071"]], 50071, "grpc", [
            load_short(go, "unary 100 B, 50 at once", calls // 10, limit),
            load("grpcio unary 100 B, 20 at once", python, scripts / "grpcio_load.py", "{to}", str(calls // 10), "20", made=calls // 10),
            load("grpc-java unary 100 B, 50 at once", java, "load", "{to}", str(calls), "50"),
            load("grpc-java bidi, 5 rounds each, 50 at once", java, "load", "{to}", str(calls // 10), "50", "bidi", made=calls // 10),
        ]),
    ]


def load_short(go, name, calls, limit, *more):
    return Client(f"grpc-go {name}", [go / "grpcload", "-to={to}", f"-calls={calls}", *more], limit, must=rf"calls {calls} failed 0")


def http1(programs, short):
    go, python, scripts = tools(programs)

    def raw(pages="", *named):
        return Client("raw sockets", [python, scripts / "raw_http.py", "{to}", pages], 240, must="all whole", named=HTTP1 + named)

    node = Client("Node http", ["node", HERE / "node/client.js", "http://{to}"], 90, must="GET /hello at the end: 200", named=("trailers", "empty"))
    curl = Client("curl", ["bash", HERE / "curl.sh", "http://{to}"], 60, must="hello", named=HTTP1)
    wrk = Client("wrk, 50 at once", ["wrk", "-t2", "-c50", "-d2s", "http://{to}/hello"], 30, wrk_errors, "Socket errors|^$")
    events = Client("server-sent events", [python, scripts / "sse.py", "{to}"], 60, must="50 at once, in time and in order: ok")
    gocall = Client("Go net/http", [go / "nethttp", "call", "http://{to}"], 90, must="wrong map", named=("interim", "trailers", "headers"))
    queue = Client("curl, 30 at once, a third of which leave", ["bash", HERE / "short_queue.sh", "http://{to}"], 60,
                   must=r"(?s)== GET\n +10 left\n +20 stayed 200 6 bytes curl 0\nlongest wait: for the queue\n.*== POST\n +10 left\n +20 stayed 200 ")
    return [
        Row("nginx", [["nginx", "-c", "PLACE/nginx.conf", "-p", "PLACE"]], 8090, "http1", [raw("absolute", "host"), curl, wrk], ["nginx", "-v"], True, prepare.nginx),
        Row("Go net/http", [[go / "nethttp", "serve", ":8081"]], 8081, "http1", [raw("echo,abort,drip,absolute,half", "trailers"), gocall, node], short=True),
        Row("Node http", [["node", HERE / "node/server.js", "8082"]], 8082, "http1", [raw("echo,abort,drip"), gocall, node], short=True),
        Row("Apache", [["apache2", "-D", "FOREGROUND", "-f", "PLACE/apache.conf"]], 8095, "http1", [raw("absolute,half", "host"), curl], prepare=prepare.apache),
        Row("HAProxy", [[go / "nethttp", "serve", "127.0.0.1:8081"], ["haproxy", "-f", "PLACE/haproxy.cfg"]], 8097, "http1",
            [raw("echo,drip", "host", "trailers"), curl, wrk, gocall], prepare=prepare.haproxy,
            ready=lambda where: where.listening("server", 8081) and where.listening("server", 8097)),
        Row("uvicorn", [[programs / "venv/bin/uvicorn", "--app-dir", scripts, "--host", "0.0.0.0", "--port", "8100", "app_asgi:app"]], 8100, "http1",
            [raw("echo,drip"), curl, node, events, Client("websockets", [python, scripts / "websocket.py", "ws://{to}/"], 60, must="closed 1000")]),
        Row("hypercorn", [[programs / "venv/bin/hypercorn", "-b", "0.0.0.0:8101", scripts / "app_asgi.py:app"]], 8101, "http1",
            [raw("echo,drip"), curl, node, events]),
        Row("gunicorn", [[programs / "venv/bin/gunicorn", "--chdir", scripts, "-b", "0.0.0.0:8102", "--threads", "60", "app_wsgi:app"]], 8102, "http1",
            [raw("echo,drip,lax"), curl]),
        Row("Java HttpServer", [["java", HERE / "servers/Pages.java", "8103"]], 8103, "http1", [raw("echo,drip,lax", "close"), curl, dataclasses.replace(gocall, named=("interim", "gone", "trailers", "headers"))]),
        Row("Python http.server", [[python, scripts / "careless.py", "8105"]], 8105, "http1",
            [Client("Python http.client", [python, scripts / "neighbours.py", "{to}"], 90, must="honest DELETE /delete: 300 x 200 /honest")], short=True),
        Row("Node http, upgrades by POST", [["node", FIELD / "serve.js", "exec", "8107"]], 8107, "http1",
            [Client("bare sockets", [python, scripts / "posted_upgrade.py", "{to}"], 60, must="20 at once: 20 x 101 to tcp, body and 69000 bytes whole"),
             Client("Node http", ["node", HERE / "node/posted_upgrade.js", "http://{to}"], 60, must="20 at once: 20 x 101 to tcp, 105034 bytes whole")]),
        Row("Node http, a forward proxy", [[go / "nethttp", "serve", "127.0.0.1:8081"], ["node", FIELD / "serve.js", "forward", "8108"]], 8108, "http1",
            [Client("curl", ["bash", HERE / "forward.sh", "{to}", "http://127.0.0.1:8081"], 60,
                    must=r"== GET\nhello\nx-added: none\nx-host: 127.0.0.1:8081\nx-target: http://127.0.0.1:8081/hello\?a=%41&b=c\n(?s:.*)\n +20 200 6\n")],
            ready=lambda where: where.listening("server", 8081) and where.listening("server", 8108)),
        # Of their own, like those of HTTP/2 below: the short form has no time for them.
        Row("Go net/http", [[go / "nethttp", "serve", ":8081"]], 8081, "http1", [interim(go)]),
        Row("Python http.server, its queue full", [[python, scripts / "short_queue.py", "8106"]], 8106, "http1", [queue]),
        Row("websockets", [[python, scripts / "websocket.py", "8104"]], 8104, "http1",
            [Client("websockets", [python, scripts / "websocket.py", "ws://{to}/"], 60, must="closed 1000"),
             Client("resets at every stage, 50 at once", [python, scripts / "websocket_resets.py", "{to}"], 120,
                    must=r"\Aone beside them: open\n(?:50 of 50 reset .* left: ok; the one beside them: same\n){12}\Z")], short=False),
    ]


def interim(go, *more):
    """103 and 100 before answers, as many as the client then says."""
    return Client("Go net/http, interim answers", [go / "nethttp", "interim", "http://{to}", *more], 60, named=("interim",),
                  must=r"in turn:(?: 103){5} HTTP.*, 200 times\nconnections so far: 1\n.* at once:(?: 103){5} HTTP.*, 5000 times\n.* at once: 100 HTTP.*, 20 times\n")


def http2(programs, calls):
    go, python, scripts = tools(programs)
    limit = 60 + calls // 100

    def h2load(*more):
        return Client(f"h2load {' '.join(map(str, more))}".replace(str(HERE) + "/", ""),
                      ["h2load", "-n", str(calls), *more, "http://{to}/bytes/1000"], limit, h2load_counts, rf"{calls} succeeded, 0 failed, 0 errored")

    frames = Client("h2 frame by frame", [python, scripts / "h2_frames.py", "{to}", "300"], 120, must="300 x 200 'ab' end")
    node = Client("Node http2", ["node", HERE / "node/client.js", "http://{to}", "h2"], 90, must="GET /hello at the end: 200")
    gocall = Client("Go net/http", [go / "nethttp", "call", "http://{to}", "h2"], 90, must="wrong map", named=("interim", "headers"))
    parts = [
        Client("Node http2, resets with NO_ERROR", ["node", HERE / "node/part.js", "http://{to}"], 60,
               must=r"POST 300000: 20 x 200 aborted end length=undefined 300000 bytes reset 0\n"),
        Client("h2, resets with NO_ERROR", [python, scripts / "part.py", "{to}"], 60, must=r"300000: 20 right, 20 x 200 \S.* reset NO_ERROR\n"),
    ]
    nghttp = Client("nghttp", ["bash", HERE / "nghttp.sh", "http://{to}"], 60, must="hello")
    hypercorn = [[programs / "venv/bin/hypercorn", "-b", "0.0.0.0:8111", scripts / "app_asgi.py:app"]]
    return [
        Row("nghttpd h2c", [["nghttpd", "--no-tls", "-d", "PLACE/www", "8110"]], 8110, "http2",
            [h2load("-c1", "-m50", "-d", HERE / "site/1k"), nghttp], ["nghttpd", "--version"], True, prepare.pages),
        Row("nginx h2c", [["nginx", "-c", "PLACE/nginx.conf", "-p", "PLACE"]], 8091, "http2", [h2load("-c10", "-m10"), nghttp], ["nginx", "-v"], True, prepare.nginx),
        Row("Go net/http h2c", [[go / "nethttp", "serve", ":8083"]], 8083, "http2", [frames, gocall, node], short=True),
        Row("Node http2", [["node", HERE / "node/server.js", "8084", "h2"]], 8084, "http2", [frames, gocall, node], short=True),
        Row("Go net/http h2c", [[go / "nethttp", "serve", ":8083"]], 8083, "http2", [interim(go, "h2")]),
        Row("Node http2", [["node", HERE / "node/server.js", "8084", "h2"]], 8084, "http2", parts),
        # A server for each client: after 1 000 requests of a connection, which clients share through the mesh, hypercorn
        # says GOAWAY and drops what it had accepted by then.
        Row("hypercorn h2c", hypercorn, 8111, "http2", [dataclasses.replace(gocall, named=("empty", *gocall.named))]),
        Row("hypercorn h2c", hypercorn, 8111, "http2", [node]),
    ]


def bytes_(programs, short):
    go, python, scripts = tools(programs)

    def script(name, line, must, limit=60, named=()):
        return Client(name, line, limit, must=must, named=named)

    def resets(kind):
        return script("resets, 50 at once", [python, scripts / "resets.py", kind, "{to}"], r"\A(?:50 of 50 .*\n){6,}(?:one behind them: .* ok\n){2,}\Z", 180)

    postgres = prepare.postgres_programs()
    return [
        Row("sockets", [[python, scripts / "raw_tcp.py", "serve", "8120"]], 8120, "opaque",
            [script("raw sockets", [python, scripts / "raw_tcp.py", "call", "{to}"], "50 at once, both ways: .'whole'", 120)]),
        Row("Redis", [["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "PLACE"]], 6379, "opaque",
            [script("redis-cli", ["bash", HERE / "redis.sh", "{host}", "{port}"], "PONG"),
             script("inline and pipelined", [python, scripts / "lines.py", "redis", "{to}"], "PONG", named=("http",)), resets("redis")], ["redis-server", "--version"], True),
        Row("Memcached", [["memcached", "-u", "nobody", "-p", "11211", "-l", "0.0.0.0"]], 11211, "opaque",
            [script("text protocol", [python, scripts / "lines.py", "memcached", "{to}"], r"VALUE(?s:.*)50 of 50 at once"), resets("memcached")], ["memcached", "-V"]),
        Row("NATS", [["nats-server", "-a", "0.0.0.0", "-p", "4222"]], 4222, "opaque",
            [script("text protocol", [python, scripts / "lines.py", "nats", "{to}"], r"MSG(?s:.*)50 of 50 at once"), resets("nats")], ["nats-server", "-v"]),
        Row("SMTP (aiosmtpd)", [[python, "-m", "aiosmtpd", "-n", "-l", "0.0.0.0:8025", "-c", "aiosmtpd.handlers.Debugging", "stdout"]], 8025, "opaque",
            [script("smtplib", [python, scripts / "smtp.py", "{host}", "{port}"], "sent 50 at once"), resets("smtp")]),
        Row("nginx with TLS", [["nginx", "-c", "PLACE/nginx.conf", "-p", "PLACE"]], 8093, "tls",
            [script("curl", ["bash", HERE / "https.sh", "{host}", "{port}"], r"2 200(?s:.*)== 50 at once\n +50 200 100000\n")], ["nginx", "-v"], True, prepare.nginx),
        Row("RabbitMQ", [prepare.rabbitmq_line()], 5672, "opaque",
            [script("pika", [python, scripts / "rabbit.py", "{host}", "{port}"], "50 of 50 at once", 120), resets("amqp")], prepare=prepare.rabbitmq),
        Row("RabbitMQ, STOMP", [prepare.rabbitmq_line("rabbitmq-stomp")], 61613, "opaque",
            [script("frames by hand", [python, scripts / "stomp.py", "{to}"], "50 of 50 at once", 90), resets("stomp")], prepare=prepare.rabbitmq_with_stomp),
        Row("OpenSSH", [["/usr/sbin/sshd", "-D", "-e", "-f", "PLACE/sshd_config"]], 8022, "opaque",
            [script("ssh, scp", ["bash", HERE / "ssh.sh", "{host}", "{port}"],
                    r"over ssh(?s:.*)\n +50 \w{64}  -\n.* read\n +20 100000\n.* send\n +20 8\n== behind them\ngoes on\n", 150), resets("ssh")], prepare=prepare.sshd),
        Row("PostgreSQL", [prepare.postgres_line(postgres)], 5432, "opaque",
            [script("psql", ["bash", HERE / "psql.sh", "{host}", "{port}"], r"cancel(?s:.*)== 50 at once\n +50 1250025000\n", 90), resets("postgres")],
            [f"{postgres}/postgres", "--version"], prepare=prepare.postgres),
        Row("MariaDB", [["mariadbd", "--no-defaults", "--user=root", "--datadir=PLACE/mysql", "--tmpdir=PLACE/mysql", "--port=3306", "--bind-address=0.0.0.0",
                         "--socket=PLACE/mysql.sock", "--skip-grant-tables", "--skip-networking=0", "--skip-name-resolve", "--max-connections=300"]], 3306, "opaque",
            [script("mariadb", ["bash", HERE / "mariadb.sh", "{host}", "{port}"], r"sum(?s:.*)\n +50 5000\n"), resets("mariadb")], ["mariadbd", "--version"], prepare=prepare.mariadb),
    ]


def h2load_counts(text):
    # Rates and times differ from run to run; how the requests ended must not.
    return "\n".join(re.findall(r"^(?:requests:|status codes:).*$", text, re.M))


def wrk_errors(text):
    return "\n".join(re.findall(r"^ *(?:Socket errors:|Non-2xx).*$", text, re.M))
