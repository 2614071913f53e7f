// node test.mjs BOOTSTRAP: kafkajs, the client of JavaScript, which speaks old versions of every API.
import kafkajs from "kafkajs";
import * as snappy from "snappy";
import * as lz4 from "lz4-napi";
import * as zstd from "@bokuweb/zstd-wasm";

const { Kafka, CompressionTypes, CompressionCodecs, Partitioners, logLevel } = kafkajs;
const COUNT = 10_000, PARTITIONS = 4, PATIENCE = 60_000;
const run = `${process.pid}-${Date.now()}`;
const bootstrap = process.argv[2];
if (!bootstrap) throw new Error("usage: node test.mjs HOST:PORT");
let passed = 0, failed = 0;

// The client brings gzip; the others are given to it. Snappy comes framed from Java clients and bare from this one.
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const unframed = async (bytes) => {
  if (!bytes.subarray(0, 8).equals(XERIAL)) return snappy.uncompress(bytes);
  const parts = [];
  for (let at = 16; at < bytes.length; ) {
    const size = bytes.readInt32BE(at);
    parts.push(await snappy.uncompress(bytes.subarray(at + 4, at + 4 + size)));
    at += 4 + size;
  }
  return Buffer.concat(parts);
};
await zstd.init();
CompressionCodecs[CompressionTypes.Snappy] = () => ({ compress: (e) => snappy.compress(e.buffer), decompress: unframed });
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: (e) => lz4.compressFrame(e.buffer), decompress: (b) => lz4.decompressFrame(b) });
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async (e) => Buffer.from(zstd.compress(e.buffer, 3)), decompress: async (b) => Buffer.from(zstd.decompress(b)) });

const kafka = new Kafka({ clientId: "kafkajs-test", brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 8, initialRetryTime: 100 } });
const admin = kafka.admin();

const record = (i) => {
  const key = i % 100 === 99 ? null : `patient-${i % 97}`;
  const value = key && i % 50 === 7 ? null : `{"n":${i},"text":"${"hr spo2 ".repeat(i % 12)}"}`;
  // A header may come twice. This client writes no header without a value.
  const headers = i % 3 ? { n: String(i), unit: ["mmHg", "/min äöü"] } : {};
  return { key, value, headers };
};
const RECORDS = Array.from({ length: COUNT }, (_, i) => record(i));

const text = (v) => (v === null || v === undefined ? null : v.toString());
const plain = ({ key, value, headers }) =>
  JSON.stringify([text(key), text(value), Object.entries(headers ?? {}).map(([k, v]) => [k, Array.isArray(v) ? v.map(text) : text(v)])]);

const differences = (found) => {
  const total = found.reduce((n, part) => n + part.length, 0);
  if (total !== COUNT) return `${total} records instead of ${COUNT}`;
  const by = (records) => {
    const map = new Map();
    for (const r of records) map.set(text(r.key), [...(map.get(text(r.key)) ?? []), plain(r)]);
    return map;
  };
  const places = new Map();
  for (const [p, part] of found.entries()) {
    for (const r of part) {
      if (r.key !== null && (places.get(text(r.key)) ?? p) !== p) return `key ${r.key} is in two partitions`;
      places.set(text(r.key), p);
    }
  }
  const sent = by(RECORDS), got = by(found.flat());
  for (const [key, records] of sent) {
    const there = got.get(key) ?? [];
    if (key === null) { records.sort(); there.sort(); }
    const at = records.findIndex((r, i) => r !== there[i]);
    if (at >= 0 || records.length !== there.length) return `key ${key}: sent ${records[at]}, read ${there[at]}`;
  }
  return null;
};

const tried = async (name, step) => {
  const begun = Date.now();
  let said, timer;
  try {
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("not within a minute")), PATIENCE); });
    said = await Promise.race([step(), late]);
  } catch (error) {
    said = `${error.name}: ${error.message}`;
  } finally {
    clearTimeout(timer);
  }
  const ok = !said || said.startsWith("~");
  if (ok) passed++; else failed++;
  console.log(`${ok ? "ok  " : "FAIL"} ${name} ${said ? said.replace(/^~/, "") : ""} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
};

const make = (topic) => admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: PARTITIONS, replicationFactor: 1 }] });

const send = async (topic, compression, messages = RECORDS, options = {}) => {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options });
  await producer.connect();
  // One request after the other: this client numbers nothing unless told to, so order is ours to keep.
  for (let at = 0; at < messages.length; at += 1000) await producer.send({ topic, compression, acks: -1, messages: messages.slice(at, at + 1000) });
  await producer.disconnect();
};

const read = async (topic) => {
  const consumer = kafka.consumer({ groupId: `read-${topic}`, maxWaitTimeInMs: 200 });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const found = Array.from({ length: PARTITIONS }, () => []);
  let seen = 0;
  await new Promise((done, wrong) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => wrong(payload.error));
    consumer.run({ eachMessage: async ({ partition, message }) => { found[partition].push(message); if (++seen === COUNT) done(); } }).catch(wrong);
    setTimeout(done, 20_000).unref();
  });
  await consumer.disconnect();
  return found;
};

const roundTrip = async (name, compression, options) => {
  const topic = `clients.kafkajs.${name}.${run}`;
  await make(topic);
  await send(topic, compression, RECORDS, options);
  const ends = await admin.fetchTopicOffsets(topic);
  const total = ends.reduce((n, p) => n + Number(p.offset), 0);
  if (total !== COUNT) return `the partitions end at ${total} together`;
  return differences(await read(topic));
};

const group = async () => {
  const topic = `clients.kafkajs.group.${run}`, groupId = `g-${run}`;
  await make(topic);
  await send(topic, CompressionTypes.None);
  const seen = new Set();
  const member = async () => {
    const m = { consumer: kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 500, maxWaitTimeInMs: 200 }), parts: [] };
    m.consumer.on(m.consumer.events.GROUP_JOIN, ({ payload }) => { m.parts = payload.memberAssignment[topic] ?? []; });
    await m.consumer.connect();
    await m.consumer.subscribe({ topics: [topic], fromBeginning: true });
    await m.consumer.run({ eachMessage: async ({ partition, message }) => { seen.add(`${partition}/${message.offset}`); } });
    return m;
  };
  const until = async (ready) => { while (!(await ready())) await new Promise((r) => setTimeout(r, 50)); };
  const [one, two] = await Promise.all([member(), member()]);
  await until(() => one.parts.length && two.parts.length && new Set([...one.parts, ...two.parts]).size === PARTITIONS && one.parts.length + two.parts.length === PARTITIONS && seen.size === COUNT);
  const shares = `shares ${one.parts.length} and ${two.parts.length}, then all`;
  const described = (await admin.describeGroups([groupId])).groups[0];
  if (described.state !== "Stable" || described.members.length !== 2) return `described as ${described.state} with ${described.members.length} members`;
  await one.consumer.disconnect();
  await until(() => two.parts.length === PARTITIONS);
  await send(topic, CompressionTypes.GZIP, RECORDS.slice(0, 1000));
  await until(() => seen.size === COUNT + 1000);
  await two.consumer.disconnect();
  const committed = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions.reduce((n, p) => n + Number(p.offset), 0);
  return committed === COUNT + 1000 ? `~${shares}` : `${committed} committed`;
};

console.log("# kafkajs 2.2.4");
await admin.connect();
for (const name of ["None", "GZIP", "Snappy", "LZ4", "ZSTD"]) await tried(`produce and consume ${COUNT} records, ${name}`, () => roundTrip(name.toLowerCase(), CompressionTypes[name]));
await tried("idempotent producer", () => roundTrip("idempotent", CompressionTypes.GZIP, { idempotent: true, maxInFlightRequests: 1 }));
await tried("two consumers share and take over", group);
await tried("topics are listed and deleted", async () => {
  const mine = (await admin.listTopics()).filter((t) => t.endsWith(run));
  const group = `clients.kafkajs.group.${run}`;
  await admin.deleteTopics({ topics: [group], timeout: 10_000 });
  const left = (await admin.listTopics()).filter((t) => t.endsWith(run));
  return mine.length === 7 && left.length === 6 && !left.includes(group) ? null : `${mine.length} listed, ${left.length} left`;
});
await admin.disconnect().catch(() => {});
console.log(`kafkajs: ${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
