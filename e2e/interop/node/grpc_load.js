// Node's own http2 calls grpc's interop service:
// node grpc_load.js HOST:PORT CALLS PARALLEL [late]
// A request ends with write() and then end(); `late`, with end() in the next turn, which
// makes it an empty frame of its own, as streaming clients send it.
'use strict';
const http2 = require('node:http2');

const [to, calls, parallel] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const late = process.argv[5] === 'late';
const SIZE = 100;
const field = (number, payload) => Buffer.concat([Buffer.from([(number << 3) | 2, payload.length]), payload]);
const framed = (message) => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
};
const payload = field(2, Buffer.alloc(SIZE));
const asked = framed(Buffer.concat([Buffer.from([2 << 3, SIZE]), field(3, payload)]));
const expected = framed(field(1, payload));

const reasons = new Map();
let [started, done, session] = [0, 0, null];
const opened = () => {
  if (!session || session.closed || session.destroyed) {
    session = http2.connect(`http://${to}`);
    session.on('error', () => {});
  }
  return session;
};

function next() {
  if (started >= calls) return;
  started += 1;
  const pieces = [];
  let [status, reason] = [undefined, null];
  const finish = () => {
    const body = Buffer.concat(pieces);
    if (!reason && status !== '0') reason = `grpc-status ${status}`;
    if (!reason && !body.equals(expected)) reason = `wrong answer of ${body.length} bytes`;
    if (reason) reasons.set(reason, (reasons.get(reason) || 0) + 1);
    done += 1;
    if (done === calls) {
      const failed = [...reasons.values()].reduce((sum, one) => sum + one, 0);
      console.log(`calls ${calls} failed ${failed}`);
      for (const [text, count] of [...reasons].sort()) console.log(`  ${count} x ${text}`);
      process.exit(0);
    }
    next();
  };
  let call;
  try {
    call = opened().request({
      ':method': 'POST', ':path': '/grpc.testing.TestService/UnaryCall',
      'content-type': 'application/grpc', te: 'trailers',
    });
  } catch (error) {
    reason = error.code;
    setImmediate(finish);
    return;
  }
  call.setTimeout(10000, () => { reason = 'timeout'; call.close(8); });
  call.on('response', (head) => { if (head['grpc-status']) status = head['grpc-status']; });
  call.on('trailers', (tail) => { status = tail['grpc-status']; });
  call.on('data', (piece) => pieces.push(piece));
  call.on('error', (error) => { reason = `${error.code} ${error.message}`; });
  call.on('close', finish);
  call.write(asked);
  if (late) setImmediate(() => call.end());
  else call.end();
}
for (let n = 0; n < parallel; n += 1) next();
