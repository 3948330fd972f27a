// Node's own clients: node client.js URL [h2]. Prints what they saw.
'use strict';
const crypto = require('node:crypto');
const http = require('node:http');
const http2 = require('node:http2');

const [base, kind] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 60 });
let session = null;

function ask(method, path, send, headers = {}) {
  return new Promise((resolve) => {
    const sum = crypto.createHash('sha256');
    let [count, pieces, head, tail, settled] = [0, 0, '', null, false];
    const finish = (end) => {
      if (settled) return;
      settled = true;
      const trailers = tail && Object.keys(tail).length ? ` trailers ${JSON.stringify(tail)}` : '';
      resolve(`${head} ${count} bytes ${sum.digest('hex').slice(0, 8)}${trailers} ${end}`);
    };
    const take = (data) => { count += data.length; pieces += 1; sum.update(data); };
    let call;
    if (kind === 'h2') {
      if (!session || session.closed || session.destroyed) {
        session = http2.connect(base);
        session.on('error', () => {});
      }
      call = session.request({ ':method': method, ':path': path, ...headers }, { endStream: !send });
      call.on('response', (got) => { head = `${got[':status']} length=${got['content-length']}`; });
      call.on('trailers', (got) => { tail = { ...got }; });
      call.on('data', take);
      call.on('close', () => finish(call.rstCode ? `reset ${call.rstCode}` : 'end'));
      call.on('error', () => finish(`reset ${call.rstCode}`));
    } else {
      call = http.request(base + path, { method, agent, headers }, (got) => {
        head = `${got.statusCode} length=${got.headers['content-length']} ${got.headers['transfer-encoding'] || ''}`;
        got.on('data', take);
        got.on('end', () => { tail = got.trailers; finish('end'); });
        got.on('error', (error) => finish(error.code));
        got.on('aborted', () => finish('aborted'));
      });
      call.on('error', (error) => finish(error.code));
    }
    call.setTimeout(15000, () => { finish('timeout'); call.destroy(); });
    if (send) send(call);
    else call.end();
  });
}

async function main() {
  const show = async (name, one) => console.log(`${name}: ${await one}`);
  for (const path of ['/hello', '/bytes/0', '/bytes/1', '/bytes/100000', '/bytes/5000000', '/drip', '/trailers', '/abort', '/none']) {
    await show(`GET ${path}`, ask('GET', path));
  }
  await show('HEAD', ask('HEAD', '/bytes/1000'));
  for (const size of [0, 1, 16384, 65536, 1000000, 5000000]) {
    const body = Buffer.alloc(size, 'x');
    await show(`POST ${size} by end()`, ask('POST', '/echo', (call) => call.end(body)));
    await show(`POST ${size} by write() and end()`, ask('POST', '/echo', (call) => { call.write(body); call.end(); }));
    await show(`POST ${size}, the end later`, ask('POST', '/size', (call) => { call.write(body); setTimeout(() => call.end(), 20); }));
  }
  await show('POST in 50 pieces', ask('POST', '/echo', (call) => {
    let n = 0;
    const more = () => { if (n++ < 50) { call.write('piece '); setImmediate(more); } else call.end(); };
    more();
  }));
  let results = [];
  for (let n = 0; n < 300; n += 1) results.push(await ask('POST', '/size', (call) => { call.write('abc'); setImmediate(() => call.end()); }));
  console.log(`300 whose end comes after: ${tally(results)}`);
  results = [];
  for (let round = 0; round < 10; round += 1) {
    results.push(...await Promise.all(Array.from({ length: 50 }, (_, n) => ask('POST', '/echo', (call) => {
      call.write(`${n} `.repeat(100).slice(0, 200));
      setTimeout(() => call.end(), n % 7);
    }).then((said) => said.replace(/bytes \w+/, 'bytes')))));
  }
  console.log(`50 at once, 10 times: ${tally(results)}`);
  await show('GET /hello at the end', ask('GET', '/hello'));
  process.exit(0);
}

function tally(all) {
  const counts = new Map();
  for (const one of all) counts.set(one, (counts.get(one) || 0) + 1);
  return [...counts].sort().map(([one, count]) => `${count} x ${one}`).join(', ');
}
main();
