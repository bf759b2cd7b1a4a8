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

let last;
async function accept(number) {
  const message = { role: "user", content: `${number}` };
  last = await db.accept({ key, channel: name, event_id: `${number}`, message });
}

const stop = new AbortController();
const work = what === "talk" && db.work("main", answer, { signal: stop.signal });

async function answer(turn) {
  const context = await db.context(turn.session_id);
  const item = { role: "assistant", content: `re ${context.at(-1).content}` };
  return { entries: [{ item }] };
}

await db.openSession({ key });
for (let number = 1; !ended; number += 1) {
  await (what === "talk" ? accept(number) : append(number));
  process.stdout.write(`${number}\n`);
}
while (last && !(await db.outcome(last.inbox_no, { wait_s: 10 })).state.match(/answered/));
stop.abort();
await work;
db.close();
