// A gateway in Node over `sessiondb serve`: each line of standard input is a message, and each
// answer is a line of standard output.
//
//     sessiondb serve gateway.db
//     node gateway.mjs gateway.db-serve/http.sock
//
// It needs no package. What is accepted is answered once, also when the server or this program
// is killed in between: every call that changes something may be repeated.
import http from "node:http";
import readline from "node:readline";

const socketPath = process.argv[2];
const agent = new http.Agent({ keepAlive: true });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function once(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, agent, method, path }, (response) => {
      const pieces = [];
      response.on("error", reject);
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => {
        const text = Buffer.concat(pieces).toString();
        resolve({ status: response.statusCode, found: text === "" ? null : JSON.parse(text) });
      });
    });
    request.on("error", reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

// Repeats a call until the server has answered it, and as the server asks while it is busy.
async function call(method, path, body) {
  for (;;) {
    let answer;
    try {
      answer = await once(method, path, body);
    } catch {
      await sleep(200); // the server is away: what became of the call is not known
      continue;
    }
    const { status, found } = answer;
    if (status < 400) return found;
    if (found.retry_after_ms !== null && found.type !== "TurnLost") {
      await sleep(found.retry_after_ms);
      continue;
    }
    throw Object.assign(new Error(found.message), found);
  }
}

// Your model. It gets the context, which ends with the message that is to be answered.
async function model(messages) {
  return `you said: ${messages.at(-1).content}`;
}

async function work() {
  for (;;) {
    const turn = await call("POST", "/v1/lanes/main/claim", { wait_s: 30, lease_s: 30 });
    if (turn === null) continue;
    const path = `/v1/turns/${turn.turn_no}`;
    const renewing = setInterval(() => call("POST", `${path}/renew`, {}).catch(() => {}), 10_000);
    try {
      const text = await model(await call("GET", `/v1/sessions/${turn.session_id}/context`));
      await call("POST", `${path}/complete`, {
        entries: [{ item: { role: "assistant", content: text } }],
        replies: [{ target: "terminal:1", message: text }],
      });
    } catch (error) {
      // TurnLost: it has ended. By this call, if its first answer was lost (`completed`).
      if (error.type !== "TurnLost") {
        await call("POST", `${path}/fail`, { reason: String(error) }).catch(() => {});
      }
    } finally {
      clearInterval(renewing);
    }
  }
}

async function send() {
  for (;;) {
    const reply = await call("POST", "/v1/outbox/claim", { wait_s: 30 });
    if (reply === null) continue;
    process.stdout.write(`${reply.message}\n`);
    await call("POST", `/v1/outbox/${reply.outbox_no}/sent`, { attempt: reply.attempts });
  }
}

work();
send();
let number = 0;
for await (const line of readline.createInterface({ input: process.stdin })) {
  number += 1;
  await call("POST", "/v1/messages", {
    key: "agent:main:terminal:1",
    message: { role: "user", content: line },
    channel: "terminal",
    event_id: `${process.pid}:${number}`, // a real channel has ids of its own
  });
}
