// The methods of the client. What they take and answer: records.d.ts.
import type * as records from "./records.d.ts";

export type { records };

export interface Options {
  /** Ends the call, and what it waits for. */
  signal?: AbortSignal;
}

type Rest<Body, Given extends keyof Body = never> = Omit<Body, Given> & Options;
type Json = Record<string, unknown>;
/** An item as an object, or as JSON text where its bytes matter. */
type Item = Json | string;

export interface Answer {
  entries?: records.CompleteTurn["entries"];
  replies?: records.CompleteTurn["replies"];
  incomplete?: boolean;
  asked_epoch?: number | null;
}

export class SessionDBError extends Error {
  /** The name of the error's class (docs/reference/http.md), or `Unreachable`, `NoAnswer`. */
  type: string;
  /** The status of HTTP. 0: there was no answer. */
  status: number;
  retry_after_ms: number | null;
  outcome: "not_executed" | "committed" | "unknown" | null;
  data: Json;
}

export class SessionDB {
  constructor(where: {
    socketPath?: string;
    port?: number;
    token?: string;
    /** So long a call is repeated while the server is away or busy. */
    patience_ms?: number;
  });
  close(): void;

  openSession(fields?: records.OpenSession, options?: Options): Promise<records.SessionInfo>;
  listSessions(fields?: Rest<records.ListSessionsQuery>): Promise<records.SessionsPage>;
  sessionInfo(session: string, options?: Options): Promise<records.SessionInfo>;
  entries(session: string, fields?: Rest<records.EntriesQuery>): Promise<records.EntriesPage>;
  entry(session: string, entry_id: string, options?: Options): Promise<records.Entry>;
  entryByKey(session: string, idempotency_key: string, options?: Options): Promise<records.Entry>;
  append(
    session: string,
    item: Item,
    fields?: Rest<records.Append, "item">,
  ): Promise<records.Receipt>;
  appendBatch(
    session: string,
    items: records.BatchItem[],
    fields?: Rest<records.AppendBatch, "items">,
  ): Promise<records.Receipts>;
  context(session: string, fields?: Rest<records.ContextQuery>): Promise<Json[]>;
  contextText(session: string, fields?: Rest<records.ContextQuery>): Promise<string>;

  accept(fields: records.Accept, options?: Options): Promise<records.Accepted>;
  edit(fields: records.Edit, options?: Options): Promise<records.Edited>;
  withdraw(fields: records.Withdraw, options?: Options): Promise<records.Withdrawn>;
  outcome(inbox_no: number, fields?: Rest<records.OutcomeQuery>): Promise<records.Outcome>;

  claimTurn(lane: string, fields?: Rest<records.ClaimTurn>): Promise<records.ClaimedTurn | null>;
  renewTurn(turn_no: number, fields?: Rest<records.RenewTurn>): Promise<records.Renewed>;
  appendToTurn(
    turn_no: number,
    item: Item,
    fields?: Rest<records.Append, "item">,
  ): Promise<records.Receipt>;
  noteTurn(turn_no: number, details: Json, options?: Options): Promise<records.Ended>;
  completeTurn(
    turn_no: number,
    fields?: Rest<records.CompleteTurn>,
  ): Promise<records.Receipts | { receipts: null }>;
  failTurn(
    turn_no: number,
    reason: string,
    fields?: Rest<records.FailTurn, "reason">,
  ): Promise<records.Ended>;
  releaseTurn(turn_no: number, fields?: Rest<records.ReleaseTurn>): Promise<records.Ended>;
  lanes(options?: Options): Promise<records.Lanes>;
  setLane(lane: string, fields: Rest<records.SetLane>): Promise<records.Lane>;
  work(
    lane: string,
    handler: (turn: records.ClaimedTurn, signal: AbortSignal) => Promise<Answer | undefined>,
    fields?: Rest<records.ClaimTurn, "wait_s">,
  ): Promise<void>;

  claimReply(fields?: Rest<records.ClaimReply>): Promise<records.ClaimedReply | null>;
  replySent(
    outbox_no: number,
    attempt: number,
    fields?: Rest<records.ReplySent, "attempt">,
  ): Promise<records.Settled>;
  replyFailed(
    outbox_no: number,
    attempt: number,
    reason: string,
    fields?: Rest<records.ReplyRefused, "attempt" | "reason">,
  ): Promise<records.Settled>;
  settleReply(
    outbox_no: number,
    state: records.SettleReply["state"],
    options?: Options,
  ): Promise<records.Settled>;
  send(
    channel: (reply: records.ClaimedReply) => Promise<string | undefined>,
    fields?: Rest<records.ClaimReply, "wait_s">,
  ): Promise<void>;

  beginCompaction(
    session: string,
    fields?: Rest<Partial<records.BeginCompaction>>,
  ): Promise<records.BegunCompaction>;
  listCompactions(
    session: string,
    fields?: Rest<records.ListCompactionsQuery>,
  ): Promise<records.Compactions>;
  renewCompaction(
    compaction_id: string,
    fields?: Rest<records.RenewCompaction>,
  ): Promise<records.Renewed>;
  commitCompaction(
    compaction_id: string,
    summary: string,
    fields?: Rest<records.CommitCompaction, "summary">,
  ): Promise<records.CompactionResult>;
  failCompaction(
    compaction_id: string,
    reason: string,
    fields?: Rest<records.FailCompaction, "reason">,
  ): Promise<records.Failed>;
  compact(
    session: string,
    summarise: (job: records.BegunCompaction) => Promise<string>,
    fields?: Rest<Partial<records.BeginCompaction>>,
  ): Promise<records.CompactionResult>;

  search(words: string, fields?: Rest<records.SearchQuery, "words">): Promise<records.SearchPage>;
  status(fields?: Rest<records.StatusQuery>): Promise<records.DatabaseStatus>;
  health(options?: Options): Promise<records.Health>;
  document(options?: Options): Promise<Json>;
  followEvents(fields?: Rest<records.FollowEventsQuery>): AsyncGenerator<Json, void>;
}
