// The client of `sessiondb serve`. It has no dependencies.
//
// Each method is one route (docs/reference/http.md), under the name that the OpenAPI document
// gives it. Fields have the library's names. A call is repeated while the server is away or
// busy, for `patience_ms`, because a change may be repeated: an append has a key, a message its
// event, a job and a claim an id. Two may not, and say so.
import { randomUUID } from "node:crypto";
import http from "node:http";

const PATIENCE_MS = 60_000;
const SILENCE_MS = 30_000;
const PAUSE_MS = [50, 100, 200, 500, 1_000];
const CONTEXTS_KEPT = 256;
const PUT_OFF = new Set([503, 507]); // the others say when the caller may ask anew, if ever
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOENT"]);

/** What the server refused, or that it could not be reached (`Unreachable`). */
export class SessionDBError extends Error {
  constructor({ type, message, status = 0, retry_after_ms = null, outcome = null, data = {} }) {
    super(message);
    this.name = "SessionDBError";
    this.type = type;
    this.status = status;
    this.retry_after_ms = retry_after_ms;
    this.outcome = outcome;
    this.data = data;
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

const path = (parts, ...values) =>
  parts.reduce((whole, part, at) => whole + encodeURIComponent(values[at - 1]) + part);

function queryOf(fields) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, one);
  }
  const text = query.toString();
  return text && `?${text}`;
}

export class SessionDB {
  #agent = new http.Agent({ keepAlive: true });
  #address;
  #headers;
  #patience_ms;
  #contexts = new Map();

  /** Connect to a socket, or to a port of 127.0.0.1 with its token. Nothing is sent yet. */
  constructor({ socketPath, port, token, patience_ms = PATIENCE_MS } = {}) {
    if ((socketPath === undefined) === (port === undefined)) {
      throw new TypeError("new SessionDB({ socketPath }) or new SessionDB({ port, token })");
    }
    this.#address = port === undefined ? { socketPath } : { host: "127.0.0.1", port };
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    this.#patience_ms = patience_ms;
  }

  /** Close the connections that are kept for the next call. */
  close() {
    this.#agent.destroy();
  }

  // -- sessions -----------------------------------------------------------------------------

  /** Return the session of a key or a foreign id, or a new one. A new one is not made twice: once it
   * was sent, the call is repeated only with a key or a foreign id. */
  async openSession(fields = {}, { signal } = {}) {
    const named = fields.key != null || fields.external_id != null;
    return this.#post("/v1/sessions", fields, { signal, once: !named });
  }

  async listSessions({ signal, ...fields } = {}) {
    return this.#get("/v1/sessions" + queryOf(fields), { signal });
  }

  async sessionInfo(session, { signal } = {}) {
    return this.#get(path`/v1/sessions/${session}`, { signal });
  }

  async entries(session, { signal, ...fields } = {}) {
    return this.#get(path`/v1/sessions/${session}/entries` + queryOf(fields), { signal });
  }

  async entry(session, entry_id, { signal } = {}) {
    return this.#get(path`/v1/sessions/${session}/entries/${entry_id}`, { signal });
  }

  async entryByKey(session, idempotency_key, { signal } = {}) {
    return this.#get(path`/v1/sessions/${session}/keys/${idempotency_key}`, { signal });
  }

  /** Append a message or an entry. It gets a key if it has none, so a repeat is stored once. */
  async append(session, item, { signal, idempotency_key = randomUUID(), ...fields } = {}) {
    const body = { item, idempotency_key, ...fields };
    return this.#post(path`/v1/sessions/${session}/entries`, body, { signal });
  }

  /** Append several `{ item, idempotency_key }` in one transaction, all or none. */
  async appendBatch(session, items, { signal, ...fields } = {}) {
    const keyed = items.map((one) => ({ idempotency_key: randomUUID(), ...one }));
    const body = { items: keyed, ...fields };
    return this.#post(path`/v1/sessions/${session}/entries/batch`, body, { signal });
  }

  /** Return the context for the model, as messages. */
  async context(session, options = {}) {
    return JSON.parse(await this.contextText(session, options));
  }

  /** Return the context as JSON text: the stored bytes. It crosses the socket when it changed. */
  async contextText(session, { signal, ...fields } = {}) {
    const route = path`/v1/sessions/${session}/context` + queryOf(fields);
    const known = this.#contexts.get(route);
    const headers = known === undefined ? {} : { "if-none-match": known.etag };
    const answer = await this.#repeated("GET", route, undefined, { signal, headers });
    this.#contexts.delete(route); // the one that was used last is the last to go
    const kept = answer.status === 304 ? known : { etag: answer.etag, text: answer.text };
    this.#contexts.set(route, kept);
    if (this.#contexts.size > CONTEXTS_KEPT) {
      this.#contexts.delete(this.#contexts.keys().next().value);
    }
    return kept.text;
  }

  // -- messages -----------------------------------------------------------------------------

  async accept(fields, { signal } = {}) {
    return this.#post("/v1/messages", fields, { signal });
  }

  async edit(fields, { signal } = {}) {
    return this.#post("/v1/messages/edit", fields, { signal });
  }

  async withdraw(fields, { signal } = {}) {
    return this.#post("/v1/messages/withdraw", fields, { signal });
  }

  async outcome(inbox_no, { signal, ...fields } = {}) {
    const route = path`/v1/messages/${inbox_no}/outcome` + queryOf(fields);
    return this.#get(route, { signal, wait_s: fields.wait_s });
  }

  // -- turns --------------------------------------------------------------------------------

  /** Claim the next message of a lane. Null: there is none. */
  async claimTurn(lane, { signal, claim_id = randomUUID(), ...fields } = {}) {
    const route = path`/v1/lanes/${lane}/claim`;
    return this.#post(route, { claim_id, ...fields }, { signal, wait_s: fields.wait_s });
  }

  async renewTurn(turn_no, { signal, ...fields } = {}) {
    return this.#post(path`/v1/turns/${turn_no}/renew`, fields, { signal });
  }

  async appendToTurn(turn_no, item, { signal, idempotency_key = randomUUID(), ...fields } = {}) {
    const body = { item, idempotency_key, ...fields };
    return this.#post(path`/v1/turns/${turn_no}/entries`, body, { signal });
  }

  async noteTurn(turn_no, details, { signal } = {}) {
    return this.#call("PUT", path`/v1/turns/${turn_no}/note`, { details }, { signal });
  }

  /** End a turn with its answer. The receipts are null if an earlier try of this call did it. */
  async completeTurn(turn_no, { signal, ...fields } = {}) {
    const route = path`/v1/turns/${turn_no}/complete`;
    return this.#ended(route, fields, signal, "completed", { receipts: null });
  }

  async failTurn(turn_no, reason, { signal, ...fields } = {}) {
    const route = path`/v1/turns/${turn_no}/fail`;
    return this.#ended(route, { reason, ...fields }, signal, "failed", { turn_no });
  }

  async releaseTurn(turn_no, { signal, ...fields } = {}) {
    const route = path`/v1/turns/${turn_no}/release`;
    return this.#ended(route, fields, signal, "interrupted", { turn_no });
  }

  async lanes({ signal } = {}) {
    return this.#get("/v1/lanes", { signal });
  }

  async setLane(lane, { signal, ...fields }) {
    return this.#call("PUT", path`/v1/lanes/${lane}`, fields, { signal });
  }

  /** Answer the messages of a lane, one after another, until the signal is aborted.
   *
   * `handler(turn, signal)` returns `{ entries, replies }`. Its signal is aborted when the turn was
   * taken over. What it throws fails the turn, and the message is tried again. Throws when the
   * server stays away for `patience_ms`, as `send` does. */
  async work(lane, handler, { signal, lease_s = 30, ...fields } = {}) {
    while (!signal?.aborted) {
      const turn = await this.claimTurn(lane, { signal, lease_s, wait_s: 30, ...fields }).catch(
        unlessAborted(signal),
      );
      if (turn) await this.#answer(turn, handler, lease_s, signal);
    }
  }

  async #answer(turn, handler, lease_s, signal) {
    const lost = new AbortController();
    const renewing = setInterval(() => {
      this.renewTurn(turn.turn_no, { lease_s }).catch((error) => {
        if (error.type === "TurnLost") lost.abort(error);
      });
    }, (lease_s * 1_000) / 3);
    try {
      const stops = signal === undefined ? lost.signal : AbortSignal.any([signal, lost.signal]);
      let answer;
      try {
        answer = await handler(turn, stops);
      } catch (error) {
        if (lost.signal.aborted) return;
        if (signal?.aborted) await this.releaseTurn(turn.turn_no, { reason: "its worker stops" });
        else await this.failTurn(turn.turn_no, String(error?.message ?? error));
        return;
      }
      try {
        await this.completeTurn(turn.turn_no, answer);
      } catch (error) {
        if (error.type === "TurnLost" || error.status < 400 || error.status >= 500) throw error;
        await this.failTurn(turn.turn_no, error.message); // no answer that can be stored
      }
    } catch (error) {
      if (error.type !== "TurnLost") throw error; // somebody else has the message by now
    } finally {
      clearInterval(renewing);
    }
  }

  // -- outbox -------------------------------------------------------------------------------

  /** Claim the next reply to send. Null: there is none. */
  async claimReply({ signal, claim_id = randomUUID(), ...fields } = {}) {
    const body = { claim_id, ...fields };
    return this.#post("/v1/outbox/claim", body, { signal, wait_s: fields.wait_s });
  }

  async replySent(outbox_no, attempt, { signal, ...fields } = {}) {
    return this.#post(path`/v1/outbox/${outbox_no}/sent`, { attempt, ...fields }, { signal });
  }

  async replyFailed(outbox_no, attempt, reason, { signal, ...fields } = {}) {
    const body = { attempt, reason, ...fields };
    return this.#post(path`/v1/outbox/${outbox_no}/failed`, body, { signal });
  }

  /** Settle a reply that is unknown or failed. Not repeated once it was sent: a second decision
   * would be refused, although the first was recorded. */
  async settleReply(outbox_no, state, { signal } = {}) {
    return this.#post(path`/v1/outbox/${outbox_no}/settle`, { state }, { signal, once: true });
  }

  /** Send replies, one after another, until the signal is aborted.
   *
   * `channel(reply)` returns the channel's receipt, if it has one. What it throws with a `reason`
   * was not sent for certain, and is tried again after `retry_after_s`. Of any other error nobody
   * knows: a warning of the process says it, the reply becomes `unknown`, and a person decides. */
  async send(channel, { signal, ...fields } = {}) {
    while (!signal?.aborted) {
      const reply = await this.claimReply({ signal, wait_s: 30, ...fields }).catch(
        unlessAborted(signal),
      );
      if (!reply) continue;
      let receipt;
      try {
        receipt = await channel(reply);
      } catch (error) {
        if (error?.reason === undefined) {
          process.emitWarning(`reply ${reply.outbox_no} was sent or not: ${error?.stack ?? error}`);
          continue;
        }
        const { reason, retry_after_s } = error;
        await this.replyFailed(reply.outbox_no, reply.attempts, reason, { retry_after_s });
        continue;
      }
      await this.replySent(reply.outbox_no, reply.attempts, { receipt });
    }
  }

  // -- compactions --------------------------------------------------------------------------

  async beginCompaction(session, { signal, client_id = randomUUID(), ...fields } = {}) {
    const body = { client_id, ...fields };
    return this.#post(path`/v1/sessions/${session}/compactions`, body, { signal });
  }

  async listCompactions(session, { signal, ...fields } = {}) {
    return this.#get(path`/v1/sessions/${session}/compactions` + queryOf(fields), { signal });
  }

  async renewCompaction(compaction_id, { signal, ...fields } = {}) {
    return this.#post(path`/v1/compactions/${compaction_id}/renew`, fields, { signal });
  }

  async commitCompaction(compaction_id, summary, { signal, ...fields } = {}) {
    const body = { summary, ...fields };
    return this.#post(path`/v1/compactions/${compaction_id}/commit`, body, { signal });
  }

  async failCompaction(compaction_id, reason, { signal, ...fields } = {}) {
    const body = { reason, ...fields };
    return this.#post(path`/v1/compactions/${compaction_id}/fail`, body, { signal });
  }

  /** Summarise the older part of a session: `summarise(job)` returns the summary. Nothing waits for
   * it. What it throws gives the compaction up, and is thrown. */
  async compact(session, summarise, { signal, lease_s = 60, ...fields } = {}) {
    const job = await this.beginCompaction(session, { signal, lease_s, ...fields });
    const renewing = setInterval(() => {
      this.renewCompaction(job.compaction_id, { lease_s }).catch(() => {}); // the commit says it
    }, (lease_s * 1_000) / 3);
    try {
      let summary;
      try {
        summary = await summarise(job);
      } catch (error) {
        await this.failCompaction(job.compaction_id, String(error?.message ?? error));
        throw error;
      }
      return await this.commitCompaction(job.compaction_id, summary);
    } finally {
      clearInterval(renewing);
    }
  }

  // -- the database -------------------------------------------------------------------------

  async search(words, { signal, ...fields } = {}) {
    return this.#get("/v1/search" + queryOf({ words, ...fields }), { signal });
  }

  async status({ signal, ...fields } = {}) {
    return this.#get("/v1/status" + queryOf(fields), { signal });
  }

  async health({ signal } = {}) {
    return this.#get("/v1/health", { signal });
  }

  async document({ signal } = {}) {
    return this.#get("/v1/openapi.json", { signal });
  }

  /** Iterate over events, now and as they come, behind `after` or the newest.
   *
   * A stream that breaks goes on behind the last event that was seen: none is missed, none comes
   * twice. It ends when the signal is aborted, or the server stays away for `patience_ms`. */
  async *followEvents({ signal, after, audience } = {}) {
    let away_since = null;
    for (;;) {
      try {
        const stream = await this.#open("/v1/events" + queryOf({ after, audience }), signal);
        away_since = null;
        for await (const { id, event } of eventsOf(stream)) {
          if (event !== null) yield event;
          after = id;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (error instanceof SessionDBError && error.status < 500) throw error;
        away_since ??= Date.now();
        if (Date.now() - away_since > this.#patience_ms) throw unreachable(error, null);
      }
      await sleep(PAUSE_MS[2], signal).catch(() => {});
      if (signal?.aborted) return;
    }
  }

  // -- calls --------------------------------------------------------------------------------

  #get(route, options) {
    return this.#call("GET", route, undefined, options);
  }

  #post(route, body, options) {
    return this.#call("POST", route, body, options);
  }

  async #call(method, route, body, options) {
    const { text } = await this.#repeated(method, route, body, options);
    return text === "" ? null : JSON.parse(text);
  }

  // The answer of a first try may be lost. A second is told that the turn has ended: by the first.
  async #ended(route, body, signal, state, found) {
    const tries = { count: 0 };
    try {
      return await this.#post(route, body, { signal, tries });
    } catch (error) {
      if (error.type === "TurnLost" && error.data.state === state && tries.count > 1) return found;
      throw error;
    }
  }

  async #repeated(method, route, body, options = {}) {
    const { signal, once = false, headers = {}, wait_s = 0, tries = { count: 0 } } = options;
    const until = Date.now() + this.#patience_ms + wait_s * 1_000;
    const text = body === undefined ? undefined : JSON.stringify(body);
    for (let try_no = 0; ; try_no += 1) {
      signal?.throwIfAborted();
      let error, pause_ms;
      try {
        tries.count += 1;
        const answer = await this.#once(method, route, text, headers, signal, wait_s);
        if (answer.status < 400) return answer;
        error = refusal(answer);
        if (!PUT_OFF.has(error.status) || error.retry_after_ms === null) throw error;
        if (once && error.outcome !== "not_executed") throw error;
        pause_ms = error.retry_after_ms;
      } catch (thrown) {
        if (signal?.aborted) throw signal.reason;
        if (thrown instanceof SessionDBError) throw thrown;
        const unsent = NEVER_SENT.has(thrown.code);
        error = unreachable(thrown, unsent ? "not_executed" : "unknown");
        if (once && !unsent) throw error;
        pause_ms = PAUSE_MS[Math.min(try_no, PAUSE_MS.length - 1)];
      }
      if (Date.now() + pause_ms > until) throw error;
      await sleep(pause_ms, signal);
    }
  }

  #request(method, route, headers, signal) {
    return http.request({
      ...this.#address,
      agent: this.#agent,
      method,
      path: route,
      headers: { ...this.#headers, ...headers },
      signal,
    });
  }

  #once(method, route, text, headers, signal, wait_s) {
    return new Promise((resolve, reject) => {
      const typed = text === undefined ? headers : { ...headers, "content-type": "application/json" };
      const request = this.#request(method, route, typed, signal);
      request.setTimeout(SILENCE_MS + wait_s * 1_000, () => {
        request.destroy(new Error(`the server has said nothing for ${SILENCE_MS / 1_000} s`));
      });
      request.on("error", reject);
      request.on("response", (response) => {
        gathered(response).then(
          (found) =>
            resolve({ status: response.statusCode, etag: response.headers.etag, text: found }),
          reject,
        );
      });
      request.end(text);
    });
  }

  #open(route, signal) {
    return new Promise((resolve, reject) => {
      const request = this.#request("GET", route, { accept: "text/event-stream" }, signal);
      request.setTimeout(SILENCE_MS, () => request.destroy(new Error("the stream is silent")));
      request.on("error", reject);
      request.on("response", (response) => {
        if (response.statusCode === 200) resolve(response);
        else {
          gathered(response).then(
            (text) => reject(refusal({ status: response.statusCode, text })),
            reject,
          );
        }
      });
      request.end();
    });
  }
}

async function gathered(response) {
  const pieces = [];
  for await (const piece of response) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

function refusal({ status, text }) {
  try {
    return new SessionDBError({ status, ...JSON.parse(text) });
  } catch {
    const message = `the server answered ${status} without JSON: ${text.slice(0, 200)}`;
    return new SessionDBError({ type: "NoAnswer", status, message });
  }
}

function unreachable(cause, outcome) {
  const message = `sessiondb does not answer: ${cause.message}. Is \`sessiondb serve\` running?`;
  const error = new SessionDBError({ type: "Unreachable", message, outcome });
  error.cause = cause;
  return error;
}

const unlessAborted = (signal) => (error) => {
  if (!signal?.aborted) throw error;
  return null;
};

async function* eventsOf(stream) {
  let rest = "";
  stream.setEncoding("utf8");
  for await (const piece of stream) {
    rest += piece;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const { id, data } = fieldsOf(block);
      // The first block has the stream's place, and no event.
      if (id !== undefined) yield { id: Number(id), event: data ? JSON.parse(data) : null };
    }
  }
}

function fieldsOf(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return fields;
}
