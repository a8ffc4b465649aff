// A client of quorate made from proto/ alone: node client.js PROTO_DIR ENDPOINT...
//
// Prints a line for each thing that was as it should be; anything else is an error.
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const path = require('node:path');
const { createRequire } = require('node:module');

// The packages are installed outside of the tree.
const installed = createRequire(path.join(process.env.QUORATE_NODE_PACKAGES || __dirname, 'package.json'));
const grpc = installed('@grpc/grpc-js');
const loader = installed('@grpc/proto-loader');

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit += 1) byte = (byte >>> 1) ^ (byte & 1 ? 0x82f63b78 : 0);
  return byte >>> 0;
});

function crc32c(data) {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

async function main(proto, endpoints) {
  // 64-bit numbers as text: a version above 2^53 would lose digits as a number.
  const options = { keepCase: true, longs: String, enums: String, oneofs: true, includeDirs: [proto] };
  const { Sessions } = grpc.loadPackageDefinition(loader.loadSync('quorate/v1/sessions.proto', options)).quorate.v1;
  // An answer may be larger than what a client takes by default.
  const limits = { 'grpc.max_receive_message_length': 64 << 20 };
  const stubs = endpoints.map((endpoint) => new Sessions(endpoint, grpc.credentials.createInsecure(), limits));
  const within = () => ({ deadline: Date.now() + 20_000 });
  const waiting = () => {
    const metadata = new grpc.Metadata();
    metadata.setOptions({ waitForReady: true });
    return metadata;
  };
  const unary = (stub, method, request) =>
    new Promise((resolve, reject) => {
      stub[method](request, waiting(), within(), (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  const write = (stub, operation, cluster_id = Buffer.alloc(0)) => unary(stub, 'Write', { tag: 1, cluster_id, write: operation });

  const nonce = crypto.randomBytes(16);
  const opened = await write(stubs[0], { open_client: { nonce } });
  const [client, cluster] = [opened.outcome.client_opened, opened.cluster_id];
  assert.ok(BigInt(client) > 0n && cluster.length === 16);
  assert.equal((await write(stubs[2], { open_client: { nonce } })).outcome.client_opened, client);
  console.log('open');

  const request = (sequence) => ({ client, nonce, sequence, acknowledged_below: sequence });
  const blob = (data) => ({ codec: 'CODEC_NONE', raw_bytes: data.length, crc32c: crc32c(data), data });
  // A plain value: the tag 0, then its bytes.
  const full = (value) => ({ full: { head: blob(Buffer.concat([Buffer.from([0]), Buffer.from(value)])) } });
  const save = (sequence, id, value) => ({ save: { request: request(sequence), id, change: full(value) } });

  async function load(stub, id) {
    const call = stub.Load({ tag: 1, load: { id, consistency: 'CONSISTENCY_LINEARIZABLE' } }, waiting(), within());
    const [blobs, loaded] = [[], { frames: 0 }];
    for await (const answer of call) {
      loaded.frames += 1;
      loaded.start = answer.load.start || loaded.start;
      loaded.last = answer.load.last;
      for (const piece of answer.load.pieces) {
        if (piece.begin) blobs.push({ begun: piece.head || piece.chunk.blob, data: [] });
        blobs[blobs.length - 1].data.push(piece.data);
      }
    }
    assert.ok(loaded.last, 'the last frame says so');
    for (const one of blobs) {
      one.data = Buffer.concat(one.data);
      assert.equal(String(one.data.length), one.begun.stored_bytes);
      assert.equal(crc32c(one.data), one.begun.crc32c);
    }
    loaded.value = blobs.length ? blobs[0].data.subarray(1) : null;
    return loaded;
  }

  const first = save(1, 'languages/node/a', 'grüße');
  const saved = (await write(stubs[0], first, cluster)).outcome;
  assert.equal(saved.saved.version, '1');
  for (const stub of stubs) {
    assert.deepEqual((await write(stub, first, cluster)).outcome, saved, 'a repeated request is answered as the first time');
    assert.equal((await load(stub, 'languages/node/a')).value.toString(), 'grüße');
  }
  console.log('save and load');

  const conditional = { request: request(2), id: 'languages/node/a', expected: { at: { version: 7 } }, change: full('other') };
  const conflict = (await write(stubs[1], { save_if_version: { ...conditional, on_conflict: 'ON_CONFLICT_REJECT' } }, cluster)).outcome;
  assert.equal(conflict.verdict, 'conflict');
  assert.equal(conflict.conflict.actual, '1');
  console.log('conflict');

  await write(stubs[2], save(3, 'languages/node/b', 'second'), cluster);
  const listing = { prefix: 'languages/node/', limit: 1, consistency: 'CONSISTENCY_LINEARIZABLE' };
  const page = (await unary(stubs[1], 'List', { tag: 1, list: listing })).list;
  assert.deepEqual([page.sessions.map((listed) => listed.id), page.more], [['languages/node/a'], true]);
  const next = (await unary(stubs[1], 'List', { tag: 1, list: { ...listing, after: 'languages/node/a' } })).list;
  assert.deepEqual([next.sessions.map((listed) => listed.id), Boolean(next.more)], [['languages/node/b'], false]);
  console.log('list');

  const large = crypto.randomBytes(3 << 20);
  await write(stubs[0], save(4, 'languages/node/large', large), cluster);
  const answer = await load(stubs[2], 'languages/node/large');
  assert.ok(answer.value.equals(large) && answer.frames > 2);
  console.log('a large answer');

  for (const [operation, code] of [
    [{ save: { request: request(5), id: '' } }, grpc.status.INVALID_ARGUMENT],
    [{ save: { request: request(5), id: 'ü\n'.repeat(500_000) } }, grpc.status.INVALID_ARGUMENT],
    [save(5, 'languages/node/too large', Buffer.alloc(21 << 20)), grpc.status.OUT_OF_RANGE],
  ]) {
    const error = await write(stubs[0], operation, cluster).then(() => assert.fail('it was not refused'), (refused) => refused);
    assert.equal(error.code, code, error.message);
    const [details] = error.metadata.get('grpc-status-details-bin');
    assert.ok(details.includes('quorate') && details.includes('applied') && details.includes('INVALID'), String(details));
    assert.ok(Buffer.byteLength(error.details) <= 512);
  }
  assert.equal((await write(stubs[0], save(5, 'languages/node/a', 'third'), cluster)).outcome.saved.version, '2');
  console.log('refusal');
  stubs.forEach((stub) => stub.close());
}

main(process.argv[2], process.argv.slice(3)).catch((error) => {
  console.error(error);
  process.exit(1);
});
