// A gateway in Node over `sessiondb serve`: each line of standard input is a message, and each
// answer is a line of standard output.
//
//     sessiondb serve gateway.db
//     node gateway.mjs gateway.db-serve/http.sock
//
// What is accepted is answered once, also when the server or this program is killed in between:
// every call that changes something may be repeated, and the client repeats it.
import readline from "node:readline";
import { SessionDB } from "../../clients/node/index.js";

const db = new SessionDB({ socketPath: process.argv[2], patience_ms: Infinity });

// Your model. It gets the context, which ends with the message that is to be answered.
async function model(messages) {
  return `you said: ${messages.at(-1).content}`;
}

async function answer(turn) {
  const text = await model(await db.context(turn.session_id));
  return {
    entries: [{ item: { role: "assistant", content: text } }],
    replies: [{ target: "terminal:1", message: text }],
  };
}

db.work("main", answer);
db.work("resume", answer); // what a killed worker has left
db.send(async (reply) => void process.stdout.write(`${reply.message}\n`));
let number = 0;
for await (const line of readline.createInterface({ input: process.stdin })) {
  number += 1;
  await db.accept({
    key: "agent:main:terminal:1",
    message: { role: "user", content: line },
    channel: "terminal",
    event_id: `${process.pid}:${number}`, // a real channel has ids of its own
  });
}
