"use strict";
/**
 * BullMQ: a job per change, added in bulk. Its documentation recommends several processes, each with a concurrency
 * larger than 1 where jobs wait for a network, and shows 50; and to remove jobs that are done.
 *
 *     node app.cjs        works
 *     node app.cjs load   adds what it reads
 */
const readline = require("node:readline");
const { Queue, Worker } = require("bullmq");
const IORedis = require("ioredis");

const QUEUE = "contacts";
const AT_ONCE = 1000;
const Redis = IORedis.default ?? IORedis;
const connection = new Redis(process.env.BENCH_REDIS_URL, { maxRetriesPerRequest: null });

async function load() {
  const queue = new Queue(QUEUE, { connection });
  let jobs = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [owner, contact, op] = line.split(" ");
    jobs.push({ name: "post", data: { owner, contact, op }, opts: { removeOnComplete: true } });
    if (jobs.length === AT_ONCE) {
      await queue.addBulk(jobs);
      jobs = [];
    }
  }
  if (jobs.length) await queue.addBulk(jobs);
  await queue.close();
  connection.disconnect();
}

function work() {
  const url = `${process.env.BENCH_ENDPOINT_URL}/v1/server/contact/sync`;
  const headers = { "Server-Key": "key", "Content-Type": "application/json" };
  const worker = new Worker(
    QUEUE,
    async ({ data }) => {
      const record = { ownerXCUserID: data.owner, contactXCUserID: data.contact, isDeleted: data.op === "delete" };
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ contacts: [record] }) });
      await answer.arrayBuffer();
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    },
    { connection, concurrency: 50 },
  );
  worker.on("error", (error) => console.error(error.message));
}

if (process.argv[2] === "load") load();
else work();
