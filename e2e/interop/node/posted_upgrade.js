// POST with a body and `Upgrade: tcp`, as docker exec sends it, by Node's client: node posted_upgrade.js URL.
// The server sends the body back behind its 101, and then what it gets.
'use strict';
const http = require('node:http');

const [base] = process.argv.slice(2);
const MORE = Buffer.from('what follows the 101\n'.repeat(5000));

function upgraded(number) {
  return new Promise((resolve) => {
    const body = `{"Detach":false,"Number":${number}}`;
    const headers = { Connection: 'Upgrade', Upgrade: 'tcp', 'Content-Length': body.length };
    const request = http.request(`${base}/exec/1/start`, { method: 'POST', headers });
    request.on('upgrade', (response, socket, head) => {
      const expected = Buffer.concat([Buffer.from(`POST ${body}\n`), MORE]);
      let came = head;
      const look = () => {
        if (came.length < expected.length) return;
        const whole = came.equals(expected) ? 'whole' : 'other bytes';
        resolve(`${response.statusCode} to ${response.headers.upgrade}, ${came.length} bytes ${whole}`);
        socket.destroy();
      };
      socket.on('data', (bytes) => { came = Buffer.concat([came, bytes]); look(); });
      socket.on('error', (error) => resolve(error.code));
      socket.on('close', () => resolve(`closed after ${came.length} bytes`));
      socket.write(MORE);
      look();
    });
    request.on('response', (response) => { response.resume(); resolve(`answered ${response.statusCode}`); });
    request.on('error', (error) => resolve(error.code));
    request.setTimeout(10000, () => request.destroy(new Error('timeout')));
    request.end(body);
  });
}

async function main() {
  console.log(`one: ${await upgraded(10)}`);
  const ends = await Promise.all(Array.from({ length: 20 }, (_, number) => upgraded(11 + number)));
  console.log(`20 at once: ${ends.filter((end) => end === ends[0]).length} x ${ends[0]}`);
  process.exit(0);
}
main();
