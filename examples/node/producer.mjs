// A producer for Node.js 20.15 or newer, with the usual client: npm install redis@5
//
//   import { connect } from "./producer.mjs";
//   const contacts = await connect("redis://localhost:6379/0");
//   await contacts.send([{ owner: "1", contact: "9", op: "delete" }]);
//
// From a shell: node producer.mjs redis://localhost:6379/0 < changes.jsonl
import { createInterface } from "node:readline";
import { crc32 } from "node:zlib";
import { createClient } from "redis";

const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const isId = (id) => typeof id === "string" && id !== "" && Buffer.byteLength(id) <= 256 && !CONTROL.test(id);

export const partitionOf = (owner, partitions) => crc32(owner) % partitions; // of its UTF-8, unsigned

// Nobody waits for the changes of the lane "bulk"; without a lane, it is "live".
export function streamOf({ owner, lane = "live" }, partitions, namespace = "contact-sync") {
  if (lane !== "live" && lane !== "bulk") throw new RangeError("lane must be live or bulk");
  return `${namespace}:{${partitionOf(owner, partitions)}}:${lane === "bulk" ? "bulk" : "events"}`;
}

export function entryOf({ owner, contact, op, at, source, traceparent }) {
  if (!isId(owner)) throw new RangeError("owner must be 1 to 256 bytes of UTF-8 without control characters");
  if (!isId(contact)) throw new RangeError("contact must be 1 to 256 bytes of UTF-8 without control characters");
  if (op !== "upsert" && op !== "delete") throw new RangeError("op must be upsert or delete");
  if (!Number.isSafeInteger(at) || at < 1e12) throw new RangeError("at must be Unix milliseconds");
  const entry = { owner, contact, op, at: String(at) };
  return { ...entry, ...(source && { source }), ...(traceparent && { traceparent }) };
}

export async function connect(url, namespace = "contact-sync") {
  const redis = await createClient({ url }).connect();
  let last = 0; // stamps never go back, also where the machine's clock does
  return {
    async send(changes) {
      const entries = changes.map((change) => entryOf({ at: (last = Math.max(last, Date.now())), ...change }));
      const partitions = Number((await redis.hGet(`${namespace}:config`, "partitions")) ?? 64);
      const streams = changes.map((change) => streamOf(change, partitions, namespace));
      return Promise.all(entries.map((entry, i) => redis.xAdd(streams[i], "*", entry))); // one round trip
    },
    close: () => redis.close(),
  };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const contacts = await connect(process.argv[2] ?? "redis://localhost:6379/0", process.argv[3]);
  for await (const line of createInterface({ input: process.stdin })) await contacts.send([JSON.parse(line)]);
  await contacts.close();
}
