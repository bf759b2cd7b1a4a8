// A client in Node of a server that is killed: `node serving_child.mjs SOCKET NAME append|talk`.
//
// It appends, or has its messages answered by a worker of its own, until standard input ends. It
// prints the number of each append and each message when it is acknowledged.
import { SessionDB } from "../../clients/node/index.js";

const [socketPath, name, what] = process.argv.slice(2);
const db = new SessionDB({ socketPath, patience_ms: Infinity });
const key = `agent:main:kills:${name}`;
let ended = false;
process.stdin.on("end", () => (ended = true)).resume();

async function append(number) {
  const idempotency_key = `${name}:${number}`;
  await db.append(key, { role: "user", content: `${number}` }, { idempotency_key });
}

const accepted = [];
async function accept(number) {
  const message = { role: "user", content: `${number}` };
  accepted.push(await db.accept({ key, channel: name, event_id: `${number}`, message }));
}

const stop = new AbortController();
// A turn whose claim was lost with the server comes again in the lane `resume`.
const lanes = what === "talk" ? ["main", "resume"] : [];
const work = lanes.map((lane) => db.work(lane, answer, { lease_s: 5, signal: stop.signal }));

async function answer(turn) {
  await db.context(turn.session_id);
  const item = { role: "assistant", content: `re ${turn.message.content}` };
  return { entries: [{ item }] };
}

await db.openSession({ key });
for (let number = 1; !ended; number += 1) {
  await (what === "talk" ? accept(number) : append(number));
  process.stdout.write(`${number}\n`);
}
for (const { inbox_no } of accepted) {
  while ((await db.outcome(inbox_no, { wait_s: 10 })).state !== "answered");
}
stop.abort();
await Promise.all(work);
db.close();
