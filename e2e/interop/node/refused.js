// Node's own clients ask for what no rule admits: node refused.js URL [h2]. Prints what all
// clients of refusals print.
'use strict';
const http = require('node:http');
const http2 = require('node:http2');

const [base, kind] = process.argv.slice(2);
const SHOWN = 17;
const agent = new http.Agent({ keepAlive: true, maxSockets: 60 });
const sockets = new Set();
let session = null;

function ask(method, path, send = (call) => call.end()) {
  return new Promise((resolve) => {
    const pieces = [];
    let status = '';
    let settled = false;
    const finish = (end) => {
      if (settled) return;
      settled = true;
      resolve(end || `${status} ${Buffer.concat(pieces).toString().slice(0, SHOWN)}`.trim());
    };
    let call;
    if (kind === 'h2') {
      if (!session || session.closed || session.destroyed) {
        session = http2.connect(base);
        session.on('error', () => {});
        sockets.add(session);
      }
      call = session.request({ ':method': method, ':path': path }, { endStream: method === 'GET' || method === 'HEAD' });
      call.on('response', (got) => { status = got[':status']; });
      call.on('data', (piece) => pieces.push(piece));
      // A server that has answered may ask for the rest of an upload to be left.
      call.on('close', () => finish(call.rstCode ? `reset ${call.rstCode}` : ''));
    } else {
      call = http.request(base + path, { method, agent }, (got) => {
        status = got.statusCode;
        got.on('data', (piece) => pieces.push(piece));
        got.on('end', () => finish(''));
        got.on('error', (error) => finish(error.code));
      });
      call.on('socket', (socket) => sockets.add(socket));
    }
    call.on('error', (error) => finish(error.code));
    call.setTimeout(15000, () => { finish('timeout'); call.destroy(); });
    if (kind !== 'h2' || (method !== 'GET' && method !== 'HEAD')) send(call);
  });
}

async function main() {
  const show = async (name, one) => console.log(`${name}: ${await one}`);
  for (let n = 0; n < 10; n += 1) await ask('GET', '/private');
  await show('GET', ask('GET', '/private'));
  await show('HEAD', ask('HEAD', '/private'));
  await show('allowed behind them', ask('GET', '/hello'));
  await show('connections so far', sockets.size);
  const large = Buffer.alloc(1000000, 'x');
  await show('POST 1', ask('POST', '/private', (call) => call.end('x')));
  await show('POST 1000000', ask('POST', '/private', (call) => call.end(large)));
  await show('POST 1000000 of unknown length', ask('POST', '/private', (call) => {
    let n = 0;
    const more = () => {
      if (call.destroyed) return;
      if (n++ < 20) { call.write(large.subarray(0, 50000)); setImmediate(more); } else call.end();
    };
    more();
  }));
  const said = new Map();
  for (const one of await Promise.all(Array.from({ length: 50 }, () => ask('POST', '/private', (call) => call.end(large.subarray(0, 10000)))))) {
    said.set(one, (said.get(one) || 0) + 1);
  }
  console.log(`50 at once: ${[...said].map(([one, count]) => `${count} x ${one}`).join(' ')}`);
  await show('allowed at the end', ask('GET', '/hello'));
  process.exit(0);
}
main();
