// The context engine. It owns no conversation: the host's messages are the truth, and a turn waits
// for the server for a moment at most.
//
//   assemble    [summary, ...tail] if a summary covers the beginning of the host's messages, else
//               what the host gave
//   commitTurn  hands the messages to the server, in the background. It is always "committed":
//               what the server missed is handed over later, at the latest before a summary
//   compact     begins a summary in the background, and returns. When the model has refused the
//               context because it is too long, it waits for the summary
import { applied, chained, covers, isApplied, keysOf, namesOf, tokensOf } from "./history.js";
import { request } from "./prompt.js";

const BATCH = 100; // messages handed over at once
const BATCH_CHARS = 4 * 1024 * 1024;
const LEASE_S = 60;
const PAUSE_MS = 60_000; // after a summary that failed
const GROWTH = 1.2; // of a context before the next summary, if the last one left it too large
const CLIENT = "sessiondb-openclaw"; // the same after a restart: its own job is begun anew
const CONVERSATIONS = 500; // whose state is kept

/** What the plugin knows of conversations. One for the life of the process. */
export class Memory {
  #conversations = new Map();

  /** `quick` is a client that gives up at once, `patient` one that waits for the server. */
  constructor({ config, log, quick, patient, quick_ms, detached, complete, delegate }) {
    Object.assign(this, {
      config,
      log,
      quick,
      patient,
      quick_ms,
      detached,
      complete,
      delegate,
    });
  }

  /** Return what is known of a conversation of the host. */
  of(sessionId) {
    const found = this.#conversations.get(sessionId) ?? new Conversation(this, sessionId);
    this.#conversations.delete(sessionId); // the one that was used last is the last to go
    this.#conversations.set(sessionId, found);
    if (this.#conversations.size > CONVERSATIONS) {
      this.#conversations.delete(this.#conversations.keys().next().value);
    }
    return found;
  }
}

export class Engine {
  info = {
    id: "sessiondb",
    name: "sessiondb",
    version: "0.1.0",
    ownsCompaction: true,
    turnMaintenanceMode: "background",
    // Without both, and `commitTurn`, the host does not use the engine.
    transcriptSemantics: {
      currentTurnFence: "before-current-turn-entry-v1",
      turnAdvancementIdempotency: "atomic-idempotent-v1",
    },
  };

  #memory;

  constructor(memory) {
    this.#memory = memory;
  }

  // The host wants it, and calls `commitTurn`.
  async ingest() {
    return { ingested: false };
  }

  async assemble({ sessionId, messages, tokenBudget = Infinity }) {
    return this.#memory.of(sessionId).assemble(messages, tokenBudget);
  }

  async commitTurn({ sessionId, messages, isHeartbeat }) {
    // The host may drop a heartbeat that said nothing. If it keeps it, `assemble` has it.
    if (!isHeartbeat) this.#memory.of(sessionId).commit(messages);
    return { status: "committed" };
  }

  async compact(call) {
    return this.#memory.of(call.sessionId).compact(call);
  }
}

class Conversation {
  #memory;
  #sessionId;
  #names = null; // of the host's messages. null: it has not shown them yet
  #waiting = []; // [key, message]: perhaps not handed over yet
  #tokens = 0; // of the context, as estimated last
  #floor = 0; // of the context, behind the last summary
  #summary; // undefined: not asked for yet. null: there is none
  #asking = null;
  #home = null; // { session_id, no, keys }: the server's session, and what it has
  #handing = Promise.resolve();
  #job = null; // the promise of a summary that is being written
  #nextAt = 0;

  constructor(memory, sessionId) {
    this.#memory = memory;
    this.#sessionId = sessionId;
  }

  async assemble(messages, tokenBudget) {
    if (isApplied(messages)) return { messages, estimatedTokens: tokensOf(messages) };
    this.#names = namesOf(messages);
    this.#wait(this.#names, messages, 0);
    await this.#ask();
    const usable = this.#summary && covers(this.#summary, this.#names);
    const view = usable ? applied(this.#summary, messages) : messages;
    this.#tokens = tokensOf(view);
    const limit = Math.max(tokenBudget * this.#memory.config.compactAt, this.#floor * GROWTH);
    if (this.#tokens > limit) this.#begin("threshold");
    return { messages: view, estimatedTokens: this.#tokens };
  }

  commit(messages) {
    // After a restart the host may commit a turn again, and the server does not know its place.
    if (this.#names === null) return;
    const from = this.#names.length;
    this.#names = [...this.#names, ...namesOf(messages)];
    this.#wait(this.#names, messages, from);
    this.#memory
      .detached(() => this.#hand())
      .catch((error) => this.#log("debug", `its messages wait: ${error.message}`));
  }

  async compact({ compactionTarget = "budget", force, customInstructions, abortSignal, ...call }) {
    this.#nextAt = 0;
    const isDue = compactionTarget === "threshold"; // by hand, too. Else the model has refused
    const job = this.#begin(isDue && force ? "manual" : compactionTarget, customInstructions);
    if (isDue) {
      return {
        ok: true,
        compacted: false,
        reason: "the summary is written in the background",
      };
    }
    const tokensBefore = call.currentTokenCount ?? this.#tokens;
    // The job is patient with a server that is away. A turn that stands still is not.
    const away = this.#memory.quick.health().then(
      () => job.catch((error) => error.message),
      (error) => error.message,
    );
    const told = await Promise.race([away, aborted(abortSignal)]);
    abortSignal?.throwIfAborted();
    if (told === "committed") {
      return {
        ok: true,
        compacted: true,
        result: { tokensBefore, tokensAfter: this.#tokens },
      };
    }
    this.#log("warn", `the host compacts by itself: ${told}`);
    return this.#memory.delegate({
      compactionTarget,
      force,
      customInstructions,
      abortSignal,
      ...call,
    });
  }

  #log(level, text) {
    this.#memory.log[level]?.(`sessiondb: conversation ${this.#sessionId}: ${text}`);
  }

  // -- the summary that there is ------------------------------------------------------------

  /** Ask the server for its newest summary, once. A turn waits for a moment only. */
  async #ask() {
    if (this.#summary !== undefined) return;
    this.#asking ??= this.#memory
      .detached(async () => {
        const { quick } = this.#memory;
        const found = await newest(quick, await this.#session(quick));
        this.#summary ??= found;
      })
      .catch((error) => this.#log("debug", `its summary is not there yet: ${error.message}`))
      .finally(() => (this.#asking = null));
    let timer;
    const moment = new Promise((resolve) => (timer = setTimeout(resolve, this.#memory.quick_ms)));
    await Promise.race([this.#asking, moment]);
    clearTimeout(timer);
  }

  // -- what the server has ------------------------------------------------------------------

  /** Return the server's session: that of the last history under the host's id. */
  async #session(client) {
    if (this.#home !== null) return this.#home.session_id;
    let { session_id } = await client.openSession(this.#name(0));
    let no = 0;
    const later = () => client.openSession({ ...this.#name(no + 1), create: false });
    for (let found; (found = await orNull(later())); no += 1) session_id = found.session_id;
    this.#home ??= { session_id, no, keys: null };
    return this.#home.session_id;
  }

  #name(no) {
    const external_id = no === 0 ? this.#sessionId : `${this.#sessionId}#${no}`;
    return { namespace: "openclaw", external_id };
  }

  #wait(names, messages, from) {
    const keys = keysOf(names).slice(from);
    if (from === 0) this.#waiting = [];
    keys.forEach((key, at) => {
      if (!this.#home?.keys?.has(key)) this.#waiting.push([key, messages[at]]);
    });
  }

  /** Hand over what the server has not, in its order. One after another. */
  #hand() {
    const work = this.#handing.then(() => this.#handOver());
    this.#handing = work.catch(() => {});
    return work;
  }

  async #handOver() {
    const { patient } = this.#memory;
    await this.#session(patient);
    this.#home.keys ??= await this.#known(keysOf(this.#names ?? []));
    const [first] = this.#home.keys;
    if (first !== undefined && this.#names?.length > 0 && first !== this.#names[0]) {
      await this.#anew(); // the host was reset, and kept its id
    }
    for (let batch; (batch = this.#batch()).length > 0;) {
      const items = batch.map(([idempotency_key, item]) => ({ item, idempotency_key }));
      const { session_id, keys } = this.#home;
      await patient.appendBatch(session_id, items);
      for (const [key] of batch) keys.add(key);
    }
    this.#waiting = []; // else they would stay in memory
  }

  #batch() {
    const batch = [];
    let size = 0;
    for (const pair of this.#waiting) {
      if (this.#home.keys.has(pair[0])) continue;
      size += JSON.stringify(pair[1]).length;
      if (batch.length === BATCH || (batch.length > 0 && size > BATCH_CHARS)) break;
      batch.push(pair);
    }
    return batch;
  }

  /** Return the keys that the server has. They were handed over in order: the last one says it. */
  async #known(keys) {
    const { patient } = this.#memory;
    for (let count = keys.length, step = 1; count > 0; count -= step, step *= 2) {
      const found = await orNull(patient.entryByKey(this.#home.session_id, keys[count - 1]));
      if (found) return new Set(keys.slice(0, count));
    }
    return new Set();
  }

  /** Begin a session for a history that is not the one that the server has. */
  async #anew() {
    const no = this.#home.no + 1;
    const { session_id } = await this.#memory.patient.openSession(this.#name(no));
    this.#home = { session_id, no, keys: new Set() };
    this.#summary = null;
  }

  // -- the next summary ---------------------------------------------------------------------

  /** Begin a summary, unless one is being written, or the last one failed a moment ago. */
  #begin(trigger, instructions) {
    if (this.#job === null && Date.now() >= this.#nextAt) {
      const job = this.#memory.detached(() => this.#summarise(trigger, instructions));
      this.#job = job;
      job
        .catch((error) => {
          this.#nextAt = Date.now() + PAUSE_MS;
          this.#log("warn", `no summary was written: ${error.message}`);
        })
        .finally(() => (this.#job = null));
    }
    return this.#job ?? Promise.resolve("a summary failed a moment ago");
  }

  /** Write a summary, and return what became of it. */
  async #summarise(trigger, instructions) {
    const { patient, config } = this.#memory;
    await this.#hand();
    const { session_id } = this.#home;
    const asked = {
      client_id: CLIENT,
      trigger,
      lease_s: LEASE_S,
      keep_recent_tokens: config.keepRecentTokens,
    };
    let job;
    try {
      job = await patient.beginCompaction(session_id, asked);
    } catch (error) {
      if (error.type === "NothingToCompact") return "there is nothing to summarise";
      throw error;
    }
    const id = job.compaction_id;
    // A renewal that fails changes nothing: the commit says what became of the job.
    const renew = () => patient.renewCompaction(id, { lease_s: LEASE_S }).catch(() => {});
    const renewing = setInterval(renew, (LEASE_S * 1_000) / 3);
    try {
      return await this.#write(session_id, job, instructions);
    } catch (error) {
      await patient.failCompaction(id, String(error?.message ?? error));
      throw error;
    } finally {
      clearInterval(renewing);
    }
  }

  async #write(session_id, job, instructions) {
    const { patient, config } = this.#memory;
    const before = await newest(patient, session_id);
    const told = before === null ? job.messages : job.messages.slice(1);
    const details = {
      covered: (before?.covered ?? 0) + told.length,
      prefix: chained(before?.prefix ?? "", namesOf(told)),
    };
    if (this.#names !== null && !covers(details, this.#names)) {
      await this.#anew();
      throw new Error("the host's history has changed, and is handed over anew");
    }
    const call = request({
      previous: before?.summary,
      messages: told,
      instructions,
      maxTokens: config.summaryTokens,
      model: config.model,
    });
    const { text } = await this.#memory.complete(call);
    const done = await patient.commitCompaction(job.compaction_id, text, { details });
    if (done.outcome === "committed" && session_id === this.#home.session_id) {
      this.#summary = { summary: text, ...details };
      this.#tokens += Math.ceil(text.length / 4) - tokensOf(told);
      this.#floor = this.#tokens;
    }
    return done.outcome;
  }
}

/** Return the newest summary of a session, and what it covers. Null: there is none.
 *
 * One that another program wrote says nothing of that, so it covers no history. */
async function newest(client, session_id) {
  const asked = { types: "compaction", newest_first: true, limit: 1 };
  const [entry] = (await client.entries(session_id, asked)).entries;
  if (entry === undefined) return null;
  const { summary, details } = JSON.parse(entry.payload);
  return { summary, covered: details?.covered ?? 0, prefix: details?.prefix ?? null };
}

/** Wait for a call. Null: what it asks for is not there. */
async function orNull(call) {
  try {
    return await call;
  } catch (error) {
    if (error.type === "NotFound") return null;
    throw error;
  }
}

function aborted(signal) {
  return new Promise((resolve) => {
    const stop = () => resolve("it was aborted");
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop, { once: true });
  });
}
