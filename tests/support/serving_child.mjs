// A client in Node of a server that is killed: `node serving_child.mjs SOCKET NAME append|talk`.
//
// It appends, or has its messages answered by a worker and a sender of its own, until standard input
// ends. It prints the number of each append and each message when it is acknowledged.
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
// Not the lane `resume`: a claim that was lost with the server is repeated. So no turn is.
const claims = { lease_s: 120, signal: stop.signal };
let sent = 0;
const loops =
  what === "talk"
    ? [db.work("main", answer, claims), db.send(async () => `${(sent += 1)}`, claims)]
    : [];

async function answer(turn) {
  await db.context(turn.session_id);
  const item = { role: "assistant", content: `re ${turn.message.content}` };
  return { entries: [{ item }], replies: [{ target: `${name}:1`, message: item.content }] };
}

await db.openSession({ key });
for (let number = 1; !ended; number += 1) {
  await (what === "talk" ? accept(number) : append(number));
  process.stdout.write(`${number}\n`);
}
for (const { inbox_no } of accepted) {
  while ((await db.outcome(inbox_no, { wait_s: 10 })).state !== "answered");
}
while (sent < accepted.length) await new Promise((resolve) => setTimeout(resolve, 50));
stop.abort();
await Promise.all(loops);
db.close();
