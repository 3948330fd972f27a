// Node's http2 client of answers whose streams are reset with NO_ERROR before they end:
// node part.js URL. Prints how much came of each, and how it ended.
'use strict';
const http2 = require('node:http2');

const [base] = process.argv.slice(2);
const AT_ONCE = 20;

function ask(session, method, path) {
  return new Promise((resolve) => {
    const call = session.request({ ':method': method, ':path': path });
    const seen = [];
    let [count, length] = [0, undefined];
    call.on('response', (got) => { seen.push(got[':status']); length = got['content-length']; });
    call.on('data', (data) => { count += data.length; });
    for (const event of ['aborted', 'end']) call.on(event, () => seen.push(event));
    call.on('error', (error) => seen.push(error.code));
    call.on('close', () => resolve(`${seen.join(' ')} length=${length} ${count} bytes reset ${call.rstCode}`));
    call.setTimeout(15000, () => { seen.push('timeout'); call.close(http2.constants.NGHTTP2_CANCEL); });
    // While its request is open, Node reports that the response was truncated.
    if (method === 'GET') call.end();
  });
}

function tally(all) {
  const counts = new Map();
  for (const one of all) counts.set(one, (counts.get(one) || 0) + 1);
  return [...counts].sort().map(([one, count]) => `${count} x ${one}`).join(', ');
}

async function main() {
  const session = http2.connect(base);
  session.on('error', (error) => console.log(`connection: ${error.code}`));
  session.on('goaway', (code) => console.log(`connection: GOAWAY ${code}`));
  for (const method of ['GET', 'POST']) {
    for (const size of [1, 20000, 300000]) {
      const calls = Array.from({ length: AT_ONCE }, () => ask(session, method, `/part/${size}`));
      console.log(`${method} ${size}: ${tally(await Promise.all(calls))}`);
    }
  }
  console.log(`behind them: ${await ask(session, 'GET', '/hello')}`);
  process.exit(0);
}
main();
