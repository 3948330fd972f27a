// Servers by Node whose manners the rows need: serve.js MANNER PORT...
//
// exec     takes any upgrade to `tcp`, POST with a body too, as docker exec and attach do; the
//          first line back is the body, and then what comes is sent back
// forward  a forward proxy: absolute form and CONNECT; says in headers what it was sent
// later    answers after `ms` of the query, and serves any number of requests meanwhile
// h2       TLS with HTTP/2 and no other version
'use strict';
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const net = require('net');

const PAIR = { cert: process.env.CERTIFICATE || '/field/tls.crt', key: process.env.KEY || '/field/tls.key' };

function exec() {
  const server = http.createServer((request, response) => {
    // The upgrade was taken out on the way.
    request.resume();
    response.end('no upgrade\n');
  });
  server.on('upgrade', (request, socket, head) => {
    const length = Number(request.headers['content-length'] || 0);
    let body = head;
    let open = false;
    const more = () => {
      if (open || body.length < length) return;
      open = true;
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
      socket.write(`${request.method} ${body.subarray(0, length)}\n`);
      socket.write(body.subarray(length));
    };
    socket.on('error', () => socket.destroy());
    socket.on('data', (bytes) => {
      if (open) return socket.write(bytes);
      body = Buffer.concat([body, bytes]);
      more();
    });
    more();
  });
  return server;
}

function forward() {
  const server = http.createServer((request, response) => {
    const seen = {
      'x-target': request.url,
      'x-host': request.headers.host || '',
      'x-added': Object.keys(request.headers).filter((name) => name.startsWith('weft')).join(' ') || 'none',
    };
    if (!request.url.startsWith('http://')) {
      response.writeHead(400, seen).end('not a URL\n');
      return;
    }
    const next = http.request(request.url, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, seen);
      answer.pipe(response);
    });
    next.on('error', () => response.writeHead(502, seen).end());
    request.pipe(next);
  });
  server.on('connect', (request, socket, head) => {
    const [host, port] = request.url.split(':');
    const next = net.connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      next.write(head);
      next.pipe(socket).pipe(next);
    });
    next.on('error', () => socket.destroy());
    socket.on('error', () => next.destroy());
  });
  return server;
}

function later() {
  return http.createServer((request, response) => {
    const ms = Number(new URL(request.url, 'http://it').searchParams.get('ms') || 0);
    setTimeout(() => response.end('ok'), ms);
  });
}

function h2() {
  const options = { cert: fs.readFileSync(PAIR.cert), key: fs.readFileSync(PAIR.key), allowHTTP1: false };
  return http2.createSecureServer(options, (request, response) => response.end('h2\n'));
}

const MANNERS = { exec, forward, h2, later };
const [manner, ...ports] = process.argv.slice(2);
for (const port of ports) {
  // For tests: the port that port 0 came to.
  const server = MANNERS[manner]();
  server.listen(Number(port), '0.0.0.0', () => console.log(server.address().port));
}
process.on('SIGTERM', () => process.exit(0));
