// The plugin in a host that is played, over a real server. `SESSIONDB_PYTHON` has sessiondb.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

import { SessionDB } from "../../node/index.js";
import { Engine, Memory } from "../engine.js";
import plugin from "../index.js";

const PYTHON = process.env.SESSIONDB_PYTHON ?? "python3";
const folder = mkdtempSync(join(tmpdir(), "sdb-claw-"));
const socketPath = join(folder, "s");
const LONG = " and some more words".repeat(40); // 200 tokens
const BY_HAND = { compactionTarget: "threshold", force: true };
const REFUSED = { compactionTarget: "budget", force: true };
let server, db;
let clock = 1_790_000_000_000;

async function start() {
  server = spawn(
    PYTHON,
    ["-m", "sessiondb", "serve", join(folder, "g.db"), "--json", "--socket", socketPath],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  await once(createInterface({ input: server.stdout }), "line");
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
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A model that answers when the test says so, unless it answers at once. */
class Model {
  calls = [];
  answers = (call, no) => `summary ${no}`;

  complete = async (call) => {
    this.calls.push(call);
    return { text: await this.answers(call, this.calls.length) };
  };

  wait() {
    const answered = [];
    this.answers = () => new Promise((...settle) => answered.push(settle));
    return answered;
  }
}

/** The plugin as the host loads it, or loads it again. */
function load(model, settings = {}) {
  let made;
  const warned = [];
  const logger = { warn: (text) => warned.push(text), debug() {} };
  plugin.register({
    pluginConfig: { socketPath, keepRecentTokens: 100, ...settings },
    logger,
    runtime: { llm: { complete: model.complete } },
    registerContextEngine: (id, factory) => (made = { id, factory }),
  });
  assert.equal(made.id, "sessiondb");
  return { engine: () => made.factory({}), warned };
}

/** A conversation as the host keeps it. */
class Talk {
  history = [];

  constructor(loaded, sessionId) {
    this.loaded = loaded;
    this.sessionId = sessionId;
  }

  assemble(tokenBudget = 100_000) {
    const { sessionId, history } = this;
    return this.loaded.engine().assemble({ sessionId, messages: [...history], tokenBudget });
  }

  /** Have a turn. Return the texts that the model was sent before it. */
  async turn(text, { tokenBudget, ...more } = {}) {
    const sent = await this.assemble(tokenBudget);
    const messages = [
      {
        role: "user",
        content: text,
        timestamp: (clock += 1),
        idempotencyKey: `${text}:user`,
      },
      {
        role: "assistant",
        content: [{ type: "text", text: `re ${text}${LONG}` }],
        timestamp: (clock += 1),
      },
    ];
    this.history.push(...messages);
    const { sessionId } = this;
    const told = await this.loaded.engine().commitTurn({ sessionId, messages, ...more });
    assert.deepEqual(told, { status: "committed" });
    return texts(sent.messages);
  }

  compact(more = {}) {
    const call = { sessionId: this.sessionId, sessionKey: "agent:main:x", ...more };
    return this.loaded.engine().compact(call);
  }
}

const textOf = ({ content }) => (typeof content === "string" ? content : (content[0].text ?? ""));
const texts = (messages) =>
  messages.map((message) => {
    const [, summary] = /<summary>\n(.*)\n<\/summary>/s.exec(textOf(message)) ?? [];
    return summary ?? textOf(message).replace(LONG, "");
  });
const home = (external_id, more = {}) =>
  db.openSession({ namespace: "openclaw", external_id, create: false, ...more });
const stored = async (id) =>
  (await db.entries((await home(id)).session_id, { types: "message", limit: 500 })).entries;
const has = async (id, count) => (await stored(id).catch(() => [])).length === count;

test("a summary replaces the beginning of its conversation, and nothing waits for it", async () => {
  const model = new Model();
  const loaded = load(model);
  const [one, two] = [new Talk(loaded, "one"), new Talk(loaded, "two")];
  for (const text of ["a", "b", "c"]) await one.turn(text);
  await two.turn("z");
  const answered = model.wait();
  const told = await one.compact({ ...BY_HAND, customInstructions: "keep the numbers" });
  assert.deepEqual([told.ok, told.compacted], [true, false]);
  await until(() => answered.length === 1);
  assert.deepEqual(await one.turn("d"), ["a", "re a", "b", "re b", "c", "re c"]);
  assert.match(model.calls[0].systemPrompt, /summarize/);
  const [asked] = model.calls[0].messages;
  assert.match(asked.content, /\[user\] a\n\[assistant\] re a/);
  assert.match(asked.content, /keep the numbers/);
  answered[0][0]("the first");
  await until(async () => texts((await one.assemble()).messages)[0] === "the first");
  assert.deepEqual(await one.turn("e"), ["the first", "re c", "d", "re d"]);
  assert.deepEqual(await two.turn("y"), ["z", "re z"]);
  await one.compact({ compactionTarget: "threshold" });
  await until(() => answered.length === 2);
  const [again] = model.calls[1].messages;
  assert.match(again.content, /<previous-summary>\nthe first\n/);
  assert.doesNotMatch(again.content, /re a/);
  answered[1][0]("the second");
  await until(async () => texts((await one.assemble()).messages)[0] === "the second");
  assert.deepEqual(await one.turn("f"), ["the second", "re e"]);
  assert.equal(model.calls.length, 2, "one call for each summary");
  await until(() => has("one", 12));
  assert.deepEqual(
    (await stored("one")).map((entry) => texts([JSON.parse(entry.payload).message])[0]),
    [...["a", "re a", "b", "re b", "c", "re c", "d", "re d", "e", "re e", "f", "re f"]],
  );
  await until(() => has("two", 4));
  assert.deepEqual(loaded.warned, []);
});

test("what the host gives back, with the summary in front, goes through", async () => {
  const model = new Model();
  const talk = new Talk(load(model), "back");
  for (const text of ["a", "b"]) await talk.turn(text);
  assert.equal((await talk.compact(REFUSED)).compacted, true);
  const view = (await talk.assemble()).messages;
  assert.deepEqual(texts(view), ["summary 1", "re b"]);
  const { engine } = talk.loaded;
  const again = await engine().assemble({
    sessionId: "back",
    messages: view,
    tokenBudget: 100_000,
  });
  assert.deepEqual(again.messages, view);
  assert.deepEqual(texts((await talk.assemble()).messages), ["summary 1", "re b"]);
});

test("a context that grows beyond its share of the budget is summarised by itself", async () => {
  const model = new Model();
  const talk = new Talk(load(model, { compactAt: 0.5 }), "grows");
  for (const text of ["a", "b", "c"]) await talk.turn(text, { tokenBudget: 2_000 });
  assert.equal(model.calls.length, 0);
  await talk.turn("d", { tokenBudget: 1_000 });
  await until(async () => texts((await talk.assemble()).messages)[0] === "summary 1");
  // What is left is still too much for such a budget. Nothing is paid again before it has grown.
  for (let count = 0; count < 3; count += 1) await talk.assemble(100);
  assert.equal(model.calls.length, 1);
});

test("after a reset nothing is said of what was before", async () => {
  const model = new Model();
  const loaded = load(model);
  const talk = new Talk(loaded, "reset");
  for (const text of ["a", "b"]) await talk.turn(text);
  await talk.compact();
  talk.history = []; // the host keeps the id
  assert.deepEqual(await talk.turn("c"), []);
  assert.deepEqual(await talk.turn("d"), ["c", "re c"]);
  await until(() => has("reset#1", 4));
  assert.equal((await talk.compact(REFUSED)).compacted, true);
  assert.deepEqual(texts((await talk.assemble()).messages), ["summary 2", "re d"]);
  assert.doesNotMatch(model.calls[1].messages[0].content, /re a|summary 1/);
  assert.equal((await stored("reset")).length, 4, "what was before stays where it was");
  const other = new Talk(load(model), "reset"); // and after a restart
  other.history = talk.history;
  assert.deepEqual(texts((await other.assemble()).messages), ["summary 2", "re d"]);
});

test("a history that was changed where the summary covers it is passed on as it is", async () => {
  const model = new Model();
  const loaded = load(model);
  const talk = new Talk(loaded, "edited");
  for (const text of ["a", "b", "c"]) await talk.turn(text);
  await talk.compact();
  assert.equal(texts((await talk.assemble()).messages)[0], "summary 1");
  const whole = talk.history;
  talk.history = whole.slice(0, 2); // a rewind to before the cut
  assert.deepEqual(texts((await talk.assemble()).messages), ["a", "re a"]);
  talk.history = [whole[0], whole[1], ...whole.slice(4)];
  assert.deepEqual(texts((await talk.assemble()).messages), ["a", "re a", "c", "re c"]);
  talk.history = whole;
  assert.equal(texts((await talk.assemble()).messages)[0], "summary 1");
  talk.history = [whole[0], whole[1], ...whole.slice(4)];
  await talk.turn("d");
  await talk.compact(BY_HAND);
  await until(() => loaded.warned.some((text) => text.includes("handed over anew")));
  await talk.assemble();
  await talk.compact(BY_HAND);
  await until(async () => texts((await talk.assemble()).messages)[0] === "summary 2");
  assert.doesNotMatch(model.calls[1].messages[0].content, /re b/);
});

test("a host that trims the results of tools has the same history", async () => {
  const model = new Model();
  const talk = new Talk(load(model), "tools");
  await talk.turn("a");
  const result = {
    role: "toolResult",
    toolCallId: "t1",
    toolName: "read",
    timestamp: (clock += 1),
  };
  const called = { type: "toolCall", id: "t1", name: "read", arguments: { path: "x" } };
  talk.history.push(
    { role: "user", content: "read it", timestamp: (clock += 1) },
    { role: "assistant", content: [called], timestamp: (clock += 1) },
    { ...result, content: [{ type: "text", text: "y".repeat(9_000) }] },
    { role: "assistant", content: [{ type: "text", text: "read" }], timestamp: (clock += 1) },
  );
  for (const text of ["b", "c"]) await talk.turn(text);
  await talk.compact();
  const [{ content }] = model.calls[0].messages;
  assert.match(content, /\(calls read \{"path":"x"\}\)\n\[result of read\] y{2000} \[7000 more/);
  talk.history[4] = { ...result, content: [{ type: "text", text: "(trimmed)" }] };
  assert.equal(texts((await talk.assemble()).messages)[0], "summary 1");
});

test("without a server turns go on, and it learns later what it missed", async () => {
  const model = new Model();
  const loaded = load(model);
  const [talk, other] = [new Talk(loaded, "away"), new Talk(loaded, "away-too")];
  await talk.turn("a");
  await until(() => has("away", 2));
  await kill();
  const began = Date.now();
  assert.deepEqual(await talk.turn("b"), ["a", "re a"]);
  assert.deepEqual(await talk.turn("c"), ["a", "re a", "b", "re b"]);
  assert.deepEqual(await other.turn("z"), []);
  assert.ok(Date.now() - began < 20_000, "no turn has waited for the server's patience");
  await start();
  await until(() => has("away", 6));
  await until(() => has("away-too", 2));
  assert.equal((await talk.compact(REFUSED)).compacted, true);
  assert.deepEqual(texts((await talk.assemble()).messages), ["summary 1", "re c"]);
});

test("a server that is killed while a summary is written commits it, late", async () => {
  const model = new Model();
  const loaded = load(model);
  const talk = new Talk(loaded, "killed");
  for (const text of ["a", "b"]) await talk.turn(text);
  const answered = model.wait();
  await talk.compact(BY_HAND);
  await until(() => answered.length === 1);
  await kill();
  answered[0][0]("late");
  assert.deepEqual(await talk.turn("c"), ["a", "re a", "b", "re b"]);
  await start();
  await until(async () => texts((await talk.assemble()).messages)[0] === "late");
  assert.deepEqual(await talk.turn("d"), ["late", "re b", "c", "re c"]);
  assert.equal(model.calls.length, 1);
});

test("a plugin that is loaded again finds its summary, and hands nothing over twice", async () => {
  const model = new Model();
  const talk = new Talk(load(model), "restart");
  for (let no = 0; no < 9; no += 1) await talk.turn(`m${no}`);
  await talk.compact();
  const before = await stored("restart");
  assert.equal(before.length, 18);
  talk.loaded = load(model);
  // The host commits a turn again, of which it did not hear.
  const { sessionId, history } = talk;
  await talk.loaded.engine().commitTurn({ sessionId, messages: history.slice(-2) });
  assert.deepEqual(texts((await talk.assemble()).messages), ["summary 1", "re m8"]);
  await talk.turn("n");
  await until(() => has("restart", 20));
  assert.deepEqual(
    (await stored("restart")).slice(0, 18).map((one) => one.entry_id),
    before.map((one) => one.entry_id),
  );
});

test("a turn of a heartbeat is handed over when the host shows that it keeps it", async () => {
  const talk = new Talk(load(new Model()), "beats");
  await talk.turn("a");
  await talk.turn("beat", { isHeartbeat: true });
  talk.history = talk.history.slice(0, 2); // the host has dropped it
  await talk.turn("b");
  await until(() => has("beats", 4));
  await talk.turn("beat 2", { isHeartbeat: true });
  await talk.turn("c");
  await until(() => has("beats", 8));
});

/** The engine with parts of a test's own. */
function engineOf(parts) {
  const memory = new Memory({
    config: { compactAt: 0.7, keepRecentTokens: 100, summaryTokens: 4_000 },
    log: { warn() {}, debug() {} },
    quick: db,
    patient: db,
    quick_ms: 300,
    detached: (work) => work(),
    delegate: async (call) => ({ ok: true, compacted: true, by: "the host", call }),
    ...parts,
  });
  return { engine: () => new Engine(memory), warned: [] };
}

test("a context that the model refuses is compacted by the host if all else fails", async () => {
  const fails = async () => Promise.reject(new Error("the model is away"));
  const talk = new Talk(engineOf({ complete: fails }), "refused");
  for (const text of ["a", "b"]) await talk.turn(text);
  const told = await talk.compact({ ...REFUSED, currentTokenCount: 9 });
  assert.equal(told.by, "the host");
  assert.deepEqual(told.call.sessionId, "refused");
  const { compactions } = await db.listCompactions((await home("refused")).session_id);
  assert.deepEqual(
    compactions.map((one) => [one.state, one.reason]),
    [["failed", "the model is away"]],
  );
  const late = new Model();
  const answered = late.wait();
  const waits = new Talk(engineOf({ complete: late.complete }), "stopped");
  for (const text of ["a", "b"]) await waits.turn(text);
  const stop = new AbortController();
  const compacting = waits.compact({ abortSignal: stop.signal });
  stop.abort(new Error("the person has stopped it"));
  await assert.rejects(compacting, /the person has stopped it/);
  await until(() => answered.length === 1);
  answered[0][0]("it was paid for, so it is used");
  await until(async () =>
    texts((await waits.assemble()).messages)[0].startsWith("it was paid for"),
  );
  const away = new SessionDB({ socketPath: join(folder, "nobody"), patience_ms: 100 });
  const lonely = new Talk(engineOf({ complete: fails, quick: away }), "lonely");
  assert.equal((await lonely.compact()).by, "the host", "there is no server");
  const empty = await new Talk(engineOf({ complete: fails }), "empty").compact();
  assert.equal(empty.by, "the host", "there is nothing to summarise");
});

test("a summary that another program wrote is used for no history", async () => {
  const model = new Model();
  const talk = new Talk(load(model), "foreign");
  for (const text of ["a", "b"]) await talk.turn(text);
  await until(() => has("foreign", 4));
  const { session_id } = await home("foreign");
  await db.compact(session_id, () => "by another", { keep_recent_tokens: 100 });
  const again = load(model); // it has not read a summary yet
  talk.loaded = again;
  assert.deepEqual(await talk.turn("c"), ["a", "re a", "b", "re b"]);
  await talk.compact(BY_HAND);
  await until(() => again.warned.length > 0);
  assert.match(again.warned[0], /handed over anew/);
  await talk.assemble();
  assert.equal((await talk.compact(REFUSED)).compacted, true);
  assert.deepEqual(texts((await talk.assemble()).messages), ["summary 1", "re c"]);
});

test("the manifest says what the host must know", () => {
  const read = (name) => JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url)));
  const manifest = read("openclaw.plugin.json");
  assert.deepEqual([manifest.id, manifest.kind], ["sessiondb", "context-engine"]);
  const { info, commitTurn } = new Engine(null);
  assert.equal(typeof commitTurn, "function");
  assert.equal(info.ownsCompaction, true);
  assert.deepEqual(Object.keys(info.transcriptSemantics), [
    "currentTurnFence",
    "turnAdvancementIdempotency",
  ]);
  const settings = Object.entries(manifest.configSchema.properties);
  assert.deepEqual(
    settings.filter(([, one]) => "default" in one).map(([name, one]) => [name, one.default]),
    [
      ["compactAt", 0.7],
      ["keepRecentTokens", 20_000],
      ["summaryTokens", 4_000],
    ],
  );
  const package_ = read("package.json");
  assert.equal(package_.version, info.version);
  assert.deepEqual(
    Object.keys(package_).filter((name) => /ependencies/.test(name)),
    [],
  );
});
