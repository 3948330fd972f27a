// Node's own http and http2 with the pages of the harness: node server.js PORT [h2]
'use strict';
const http = require('node:http');
const http2 = require('node:http2');

const piece = Buffer.from('0123456789abcdef'.repeat(4096));

function answer(request, response) {
  const path = request.url.split('?')[0];
  response.setHeader('content-type', 'text/plain');
  if (path === '/hello') {
    response.setHeader('content-length', 6);
    response.end('hello\n');
  } else if (path.startsWith('/bytes/')) {
    let left = Number(path.slice(7));
    response.setHeader('content-length', left);
    const more = () => {
      while (left > 0) {
        const part = piece.subarray(0, left);
        left -= part.length;
        if (!response.write(part)) {
          response.once('drain', more);
          return;
        }
      }
      response.end();
    };
    if (request.method === 'HEAD') response.end();
    else more();
  } else if (path === '/echo') {
    // A broken upload breaks its answer; the process goes on.
    request.on('error', () => response.destroy());
    request.pipe(response);
  } else if (path === '/size') {
    let [count, failed] = [0, ''];
    request.on('data', (data) => { count += data.length; });
    request.on('error', () => { failed = ' broken'; });
    request.on('end', () => response.end(`${count}${failed} ${JSON.stringify(request.trailers)}\n`));
  } else if (path === '/drip') {
    let n = 0;
    const drop = () => {
      response.write(`data: ${n}\n\n`);
      n += 1;
      if (n < 5) setTimeout(drop, 40);
      else response.end();
    };
    drop();
  } else if (path === '/trailers') {
    if (request.httpVersion !== '2.0') response.setHeader('trailer', 'x-sum');
    response.write('body\n');
    response.addTrailers({ 'x-sum': '42' });
    response.end();
  } else if (path === '/abort') {
    response.write('half');
    setTimeout(() => (response.stream ? response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : request.socket.destroy()), 50);
  } else if (path.startsWith('/part/') && response.stream) {
    // No length, and then a reset with NO_ERROR. The written bytes have left by then.
    const reset = () => response.stream.close(http2.constants.NGHTTP2_NO_ERROR);
    response.write(Buffer.alloc(Number(path.slice(6)), piece), () => setTimeout(reset, 50));
  } else {
    response.statusCode = 404;
    response.setHeader('content-length', 5);
    response.end('none\n');
  }
}

const [port, kind] = process.argv.slice(2);
process.on('uncaughtException', (error) => console.error(error));
(kind === 'h2' ? http2.createServer(answer) : http.createServer(answer)).listen(Number(port), '0.0.0.0');
