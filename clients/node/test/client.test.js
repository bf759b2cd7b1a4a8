// Against a real server. SESSIONDB_SOCKET names its socket, and the two others start it anew.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

import { SessionDB, SessionDBError } from "../index.js";

const PYTHON = process.env.SESSIONDB_PYTHON ?? "python3";
const user = (content) => ({ role: "user", content });
const answer = (content) => ({ role: "assistant", content });
const texts = (messages) => messages.map((message) => message.content);
const folder = mkdtempSync(join(tmpdir(), "sdb-node-"));
const socketPath = join(folder, "s");
let server, port, db;

async function start() {
  const options = ["--socket", socketPath, "--tcp", "0", "--token-file", join(folder, "token")];
  server = spawn(PYTHON, ["-m", "sessiondb", "serve", join(folder, "g.db"), "--json", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  const tcp = JSON.parse(line).addresses.find((one) => one.startsWith("http:"));
  port = Number(new URL(tcp).port);
}

async function kill() {
  server.kill("SIGKILL");
  await once(server, "exit");
}

before(async () => {
  await start();
  db = new SessionDB({ socketPath });
});

after(async () => {
  db.close();
  await kill();
  rmSync(folder, { recursive: true });
});

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

async function all(events, count) {
  const found = [];
  for await (const event of events) {
    found.push(event);
    if (found.length === count) break;
  }
  return found;
}

// A server in between, which breaks what a test wants broken.
async function through(t, breaks) {
  const path = join(folder, `proxy-${Math.random().toString(36).slice(2)}`);
  const proxy = http.createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      if (breaks.before?.(request, response)) return;
      const { method, url, headers } = request;
      const passed = http.request({ socketPath, method, path: url, headers }, (found) => {
        const whole = [];
        found.on("data", (piece) => whole.push(piece));
        found.on("end", () => {
          if (breaks.after?.(request)) return response.destroy();
          response.writeHead(found.statusCode, found.headers).end(Buffer.concat(whole));
        });
      });
      passed.end(Buffer.concat(pieces));
    });
  });
  proxy.listen(path);
  await once(proxy, "listening");
  const client = new SessionDB({ socketPath: path });
  t.after(() => {
    client.close();
    proxy.close();
  });
  return client;
}

test("two sessions are appended to, read, listed and searched", async () => {
  const one = await db.openSession({ key: "agent:main:web:1" });
  const two = await db.openSession({ key: "agent:main:web:a/b" });
  assert.notEqual(one.session_id, two.session_id);
  await db.append("agent:main:web:1", user("a red lamp"));
  await db.append("agent:main:web:a/b", user("a blue lamp"));
  await db.appendBatch(one.session_id, [{ item: answer("noted") }, { item: user("thanks") }]);
  assert.deepEqual(texts(await db.context(one.session_id)), ["a red lamp", "noted", "thanks"]);
  assert.deepEqual(texts(await db.context(two.session_id)), ["a blue lamp"]);
  const { hits } = await db.search("red lamp");
  assert.deepEqual(hits.map((hit) => hit.session_id), [one.session_id]);
  const { sessions } = await db.listSessions({ key_prefix: "agent:main:web:a" });
  assert.deepEqual(sessions.map((info) => info.session_id), [two.session_id]);
  assert.equal((await db.sessionInfo(two.session_id)).session_id, two.session_id);
});

test("a context crosses the socket again only when it has changed", async (t) => {
  const seen = [];
  const client = await through(t, {
    before: ({ url, headers }) => void (url.includes("/context") && seen.push(headers["if-none-match"])),
  });
  for (const key of ["agent:main:etag:1", "agent:main:etag:2"]) {
    await client.openSession({ key });
    await client.append(key, user(`hello ${key}`));
  }
  const first = await client.contextText("agent:main:etag:1");
  assert.equal(await client.contextText("agent:main:etag:1"), first);
  assert.deepEqual(texts(await client.context("agent:main:etag:2")), ["hello agent:main:etag:2"]);
  assert.deepEqual([seen[0], typeof seen[1], seen[2]], [undefined, "string", undefined]);
  await client.append("agent:main:etag:1", user("more"));
  assert.equal((await client.context("agent:main:etag:1")).length, 2);
});

test("an append whose answer is lost is stored once", async (t) => {
  let lost = 0;
  const client = await through(t, {
    after: ({ url }) => url.endsWith("/entries") && (lost += 1) <= 2,
  });
  await client.openSession({ key: "agent:main:lost:1" });
  const receipt = await client.append("agent:main:lost:1", user("once"));
  assert.equal(receipt.duplicate, true);
  assert.deepEqual(texts(await db.context("agent:main:lost:1")), ["once"]);
});

test("a turn ends once, however it ends, although the answer to that is lost", async (t) => {
  let losing = "/complete";
  const client = await through(t, {
    after: ({ url }) => losing !== null && url.endsWith(losing) && ((losing = null), true),
  });
  const claim = async (name) => {
    const key = `agent:main:ends:${name}`;
    await client.accept({ key, channel: "ends", event_id: name, message: user("?") });
    return client.claimTurn("main", { wait_s: 5 });
  };
  const completed = await claim("completed");
  const entries = [{ item: answer("!") }];
  const ended = await client.completeTurn(completed.turn_no, { entries });
  assert.equal(ended.receipts, null, "what its first try did is not known here");
  assert.deepEqual(texts(await db.context("agent:main:ends:completed")), ["?", "!"]);
  await assert.rejects(client.failTurn(completed.turn_no, "too late"), { type: "TurnLost" });
  losing = "/fail";
  const failed = await claim("failed");
  assert.equal((await client.failTurn(failed.turn_no, "no", { retry: false })).turn_no, failed.turn_no);
  losing = "/release";
  const released = await claim("released");
  assert.equal((await client.releaseTurn(released.turn_no)).turn_no, released.turn_no);
  assert.equal(losing, null, "each was lost once");
});

test("a claim whose answer is lost takes the same turn, and the same reply, again", async (t) => {
  let losing = 1;
  const client = await through(t, {
    after: ({ url }) => url.endsWith("/claim") && losing > 0 && (losing -= 1) >= 0,
  });
  const keys = ["agent:main:claims:1", "agent:main:claims:2"];
  for (const [at, key] of keys.entries()) {
    await db.accept({ key, channel: "claims", event_id: `${at}`, message: user("?") });
  }
  const turn = await client.claimTurn("main");
  assert.equal(losing, 0);
  assert.deepEqual([turn.key, turn.attempt], [keys[0], 1]);
  const second = await client.claimTurn("main");
  assert.equal(second.key, keys[1], "another claim takes another message");
  assert.equal(await client.claimTurn("main"), null, "none was taken and forgotten");
  for (const one of [turn, second]) {
    const replies = [{ target: one.key, message: "!" }];
    await client.completeTurn(one.turn_no, { replies });
  }
  losing = 1;
  const replies = [await client.claimReply(), await client.claimReply()];
  assert.equal(losing, 0);
  assert.deepEqual(replies.map((one) => one.attempts), [1, 1]);
  assert.equal(new Set(replies.map((one) => one.outbox_no)).size, 2);
  assert.equal(await client.claimReply(), null, "none was taken and forgotten");
  for (const one of replies) await client.replySent(one.outbox_no, one.attempts);
});

test("what may not be repeated is not, once it was sent", async (t) => {
  let calls = 0;
  const client = await through(t, { after: () => (calls += 1) > 0 });
  const unknown = { type: "Unreachable", outcome: "unknown" };
  await assert.rejects(client.openSession({}), unknown);
  await assert.rejects(client.openSession({ session_id: "new" }), unknown);
  await assert.rejects(client.settleReply(1, "sent"), unknown);
  assert.equal(calls, 3);
  assert.equal((await db.sessionInfo("new")).session_id, "new", "the server had made it");
});

test("a refusal has its type, status, outcome and data, and is not repeated", async (t) => {
  let calls = 0;
  const client = await through(t, { before: () => void (calls += 1) });
  const missing = await client.sessionInfo("nobody").catch((error) => error);
  assert.ok(missing instanceof SessionDBError);
  assert.deepEqual([missing.type, missing.status, missing.outcome], ["NotFound", 404, "not_executed"]);
  const wrong = await client.openSession({ key: "no key" }).catch((error) => error);
  assert.deepEqual([wrong.type, wrong.status], ["InvalidKey", 422]);
  const unknown = await client.accept({ colour: "red" }).catch((error) => error);
  assert.equal(unknown.status, 422);
  assert.equal(calls, 3);
});

test("what the server puts off is repeated until patience ends", async (t) => {
  const busy = JSON.stringify({
    type: "StoreFull",
    message: "the disk is full",
    retry_after_ms: 20,
    outcome: "not_executed",
    data: {},
  });
  let refusals = 3;
  const client = await through(t, {
    before: (_, response) => {
      if (refusals === 0) return false;
      refusals -= 1;
      return response.writeHead(507, { "content-type": "application/json" }).end(busy);
    },
  });
  assert.equal((await client.health()).ok, true);
  assert.equal(refusals, 0);
  refusals = Infinity;
  const impatient = AbortSignal.timeout(200);
  await assert.rejects(client.health({ signal: impatient }), { name: "TimeoutError" });
  const hasty = new SessionDB({ socketPath: join(folder, "nobody"), patience_ms: 100 });
  const away = await hasty.health().catch((error) => error);
  assert.deepEqual([away.type, away.outcome], ["Unreachable", "not_executed"]);
  hasty.close();
});

test("a port wants the token", async () => {
  const token = readFileSync(join(folder, "token"), "utf8").trim();
  const good = new SessionDB({ port, token });
  assert.equal((await good.health()).ok, true);
  const bad = new SessionDB({ port, token: "wrong" });
  await assert.rejects(bad.health(), { type: "Unauthorized", status: 401 });
  good.close();
  bad.close();
});

test("a session is compacted while it is appended to", async () => {
  const key = "agent:main:compact:1";
  await db.openSession({ key });
  for (let number = 0; number < 6; number += 1) {
    await db.append(key, user(`question ${number} `.repeat(60)));
    await db.append(key, answer(`answer ${number} `.repeat(60)));
  }
  const done = await db.compact(
    key,
    async (job) => {
      await db.append(key, user("meanwhile"));
      return `they talked about ${job.messages.length} things`;
    },
    { keep_recent_tokens: 100 },
  );
  assert.equal(done.outcome, "committed");
  const context = await db.context(key);
  assert.match(JSON.stringify(context[0]), /they talked about/);
  assert.equal(context.at(-1).content, "meanwhile");
  const failed = db.compact(key, () => Promise.reject(new Error("the model is away")), {
    keep_recent_tokens: 0,
    trigger: "manual",
  });
  await assert.rejects(failed, /the model is away/);
  const { compactions } = await db.listCompactions(key);
  assert.deepEqual(compactions.map((one) => one.state), ["failed", "committed"]);
});

test("workers answer and send, and events go on across a kill of the server", async (t) => {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const { signal } = stop;
  const sent = [];
  const seen = [];
  const events = (async () => {
    for await (const event of db.followEvents({ signal, after: 0 })) seen.push(event.event_no);
  })();
  const work = db.work(
    "main",
    async (turn) => {
      const text = `re ${turn.message.content}`;
      return { entries: [{ item: answer(text) }], replies: [{ target: turn.key, message: text }] };
    },
    { signal },
  );
  const sending = db.send(async (reply) => void sent.push(reply.message), { signal });
  const say = (key, event_id, content) =>
    db.accept({ key, channel: "web", event_id, message: user(content) });
  const first = await say("agent:main:work:1", "1", "one");
  const other = await say("agent:main:work:2", "2", "two");
  assert.equal((await db.outcome(first.inbox_no, { wait_s: 20 })).state, "answered");
  assert.equal((await db.outcome(other.inbox_no, { wait_s: 20 })).state, "answered");
  await until(() => sent.length === 2);
  await kill();
  const asked = say("agent:main:work:1", "3", "three");
  await start();
  const third = await asked;
  assert.equal((await db.outcome(third.inbox_no, { wait_s: 30 })).state, "answered");
  assert.deepEqual(texts(await db.context("agent:main:work:1")), ["one", "re one", "three", "re three"]);
  await until(() => sent.length === 3);
  assert.deepEqual(sent.sort(), ["re one", "re three", "re two"]);
  const { event_no } = (await all(db.followEvents({ after: 0 }), 1))[0];
  await until(() => seen.length >= 8);
  stop.abort();
  await Promise.all([events, work, sending]);
  const again = await all(db.followEvents({ after: 0 }), seen.length);
  assert.equal(seen[0], event_no);
  assert.deepEqual(seen, again.map((event) => event.event_no), "none missed, none twice");
});

test("a handler that throws, or answers what cannot be stored, is asked again", async (t) => {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const attempts = { throws: [], nonsense: [] };
  const keys = Object.keys(attempts).map((name) => `agent:main:fail:${name}`);
  const accepted = await Promise.all(
    keys.map((key, at) => db.accept({ key, channel: "f", event_id: `${at}`, message: user("?") })),
  );
  const work = db.work(
    "main",
    async (turn) => {
      const name = turn.key.split(":").at(-1);
      attempts[name].push(turn.attempt);
      if (turn.attempt > 1) return { entries: [{ item: answer("!") }] };
      if (name === "throws") throw new Error("the model is away");
      return { entries: [{ item: "no JSON" }] };
    },
    { signal: stop.signal },
  );
  for (const { inbox_no } of accepted) {
    assert.equal((await db.outcome(inbox_no, { wait_s: 60 })).state, "answered");
  }
  stop.abort();
  await work;
  assert.deepEqual(attempts, { throws: [1, 2], nonsense: [1, 2] });
  for (const key of keys) assert.deepEqual(texts(await db.context(key)), ["?", "!"]);
});
