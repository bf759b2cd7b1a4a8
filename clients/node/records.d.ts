// Written by tools/node_types.py from the OpenAPI document. Do not edit.

/** A message from a channel. */
export interface Accept {
  key: string;
  message: Record<string, unknown> | string;
  channel: string;
  event_id: string;
  lane?: string;
  by_person?: boolean | null;
  answer?: boolean;
  details?: Record<string, unknown> | null;
}

/** The receipt of a message. It is on disk. */
export interface Accepted {
  inbox_no: number;
  session_id: string;
  state: "queued" | "claimed" | "interrupted" | "done" | "dead" | "heard";
  accepted_at_ms: number;
  ahead: number;
  duplicate: boolean;
}

/** Something that is not as it should be, by a rule of `health.py`. */
export interface Alarm {
  level: "green" | "yellow" | "red";
  rule: string;
  text: string;
  next_step: string | null;
}

/** One item to append. */
export interface Append {
  item: Record<string, unknown> | string;
  idempotency_key?: string | null;
  asked_epoch?: number | null;
}

/** Several items, in one transaction. */
export interface AppendBatch {
  items: BatchItem[];
  expect_head?: string | null;
  all_or_nothing?: boolean;
  asked_epoch?: number | null;
}

/** One of several items. */
export interface BatchItem {
  item: Record<string, unknown> | string;
  idempotency_key?: string | null;
  at_ms?: number | null;
}

/** How to begin a compaction. */
export interface BeginCompaction {
  client_id: string;
  lease_s?: number;
  trigger?: string;
  keep_recent_tokens?: number;
  threshold_tokens?: number | null;
}

/** A compaction that runs, and what is to be summarised. */
export interface BegunCompaction {
  compaction_id: string;
  session_id: string;
  base_epoch: number;
  tokens_before: number;
  keeps_all: boolean;
  expires_at_ms: number;
  messages: Record<string, unknown>[];
}

/** A channel for which replies wait. */
export interface ChannelStatus {
  channel: string;
  replies_waiting: number;
  waits_until_ms: number | null;
  reason: string | null;
}

/** How to claim a reply. */
export interface ClaimReply {
  lease_s?: number;
  full?: string[];
  wait_s?: number;
  claim_id?: string | null;
}

/** How to claim a turn. */
export interface ClaimTurn {
  lease_s?: number;
  timeout_s?: number;
  wait_s?: number;
  claim_id?: string | null;
}

/** A reply to send. */
export interface ClaimedReply {
  outbox_no: number;
  attempts: number;
  session_id: string;
  turn_no: number | null;
  target: string;
  channel: string;
  message: unknown;
  details: Record<string, unknown>;
  created_at_ms: number;
}

/** A message to work on. Its number is the fencing token of all that is written about it. */
export interface ClaimedTurn {
  turn_no: number;
  session_id: string;
  key: string | null;
  message: Record<string, unknown>;
  attempt: number;
  kind: string;
  inbox_no: number;
  channel: string;
  event_id: string;
  details: Record<string, unknown>;
  previous: unknown;
  accepted_at_ms: number;
  expires_at_ms: number;
  deadline_ms: number;
}

/** A summary. */
export interface CommitCompaction {
  summary: string;
  details?: unknown;
}

/** A compaction job, as stored. */
export interface CompactionInfo {
  compaction_id: string;
  session_id: string;
  state: "running" | "committed" | "superseded" | "rejected" | "failed" | "cancelled" | "expired" | "abandoned";
  trigger: string;
  base_epoch: number;
  epoch: number | null;
  late: boolean;
  tokens_before: number;
  tokens_after: number | null;
  owner: string | null;
  begun_at_ms: number;
  deadline_ms: number;
  finished_at_ms: number | null;
  reason: string | null;
}

/** The outcome of a commit. The same compaction id always gets the same answer. */
export interface CompactionResult {
  compaction_id: string;
  session_id: string;
  outcome: "committed" | "superseded" | "rejected";
  epoch: number;
  late: boolean;
  tokens_before: number;
  tokens_after: number | null;
  entry_id: string | null;
  reason: string | null;
}

/** A compaction that has begun and not ended. */
export interface CompactionStatus {
  compaction_id: string;
  session_id: string;
  trigger: string;
  owner: string | null;
  owner_alive: boolean | null;
  begun_at_ms: number;
  deadline_ms: number;
  age_ms: number;
  overdue: boolean;
}

/** Compactions of a session, newest first. */
export interface Compactions {
  compactions: CompactionInfo[];
}

/** What a turn came to. */
export interface CompleteTurn {
  entries?: BatchItem[];
  replies?: TurnReply[];
  incomplete?: string | null;
  asked_epoch?: number | null;
}

export interface ContextQuery {
  epoch?: number;
  last?: number;
  raw?: boolean;
}

/** The condition of a database. Sizes in bytes, times in milliseconds since 1970 UTC. */
export interface DatabaseStatus {
  path: string;
  at_ms: number;
  schema_version: number;
  file_bytes: number;
  free_bytes: number;
  wal_bytes: number;
  wal_bytes_max: number;
  sessions: number;
  sessions_ended: number | null;
  keys: number | null;
  entries: number | null;
  compactions: Record<string, number> | null;
  running: CompactionStatus[];
  stuck: Stuck[];
  import_files: number;
  lines_damaged: number | null;
  lines_blank: number | null;
  processes: ProcessStatus[];
  processes_open: number;
  gateway: WorkStatus;
  lanes: Lane[];
  channels: ChannelStatus[];
  disk_free_bytes?: number | null;
  held?: Holding[];
  concerns?: string[];
  alarms?: Alarm[];
}

/** A new text of a message that was accepted. */
export interface Edit {
  key: string;
  message: Record<string, unknown> | string;
  channel: string;
  event_id: string;
  version: number;
  details?: Record<string, unknown> | null;
}

/** The receipt of an edit. It is on disk. */
export interface Edited {
  inbox_no: number;
  session_id: string;
  outcome: "replaced" | "queued" | "unchanged";
  answering_turn_no: number | null;
  duplicate: boolean;
}

/** That something has ended, and is on disk. */
export interface Ended {
  turn_no: number;
}

/** A page of a transcript. */
export interface EntriesPage {
  entries: Entry[];
}

export interface EntriesQuery {
  after?: number;
  before?: number;
  limit?: number;
  newest_first?: boolean;
  types?: string;
}

/** One entry as it is stored. */
export interface Entry {
  entry_no: number;
  entry_id: string;
  parent_no: number | null;
  position: number;
  type: string;
  role: string | null;
  tokens: number;
  usage_tokens: number | null;
  appended_at_ms: number;
  idempotency_key: string | null;
  payload: string;
}

export interface Error {
  type: "BodyTooLarge" | "BodyTooSlow" | "CompactionCoolDown" | "CompactionRefused" | "CompactionRunning" | "CompactionTimeout" | "ConstraintFailed" | "DetailsChanged" | "HeadMoved" | "IdentityConflict" | "InternalError" | "InvalidInput" | "InvalidKey" | "MalformedRequest" | "MethodNotAllowed" | "NewerSchema" | "NoSuchRoute" | "NotASessionDB" | "NotExecuted" | "NotFound" | "NothingToCompact" | "NothingToUndo" | "OpenError" | "OutcomeUnknown" | "PartlyStored" | "ReadTooLong" | "SearchDamaged" | "ServerBusy" | "SessionArchived" | "SessionBusy" | "SessionDBError" | "SessionEnded" | "StoreBusy" | "StoreClosed" | "StoreDamaged" | "StoreFailed" | "StoreFull" | "StoreReadOnly" | "StrayCancellation" | "TurnLost" | "Unauthorized" | "UnsafeFilesystem" | "UnsafeSQLite" | "WrongHost";
  message: string;
  retry_after_ms: unknown;
  outcome: "not_executed" | "committed" | "unknown" | null;
  data: Record<string, unknown>;
}

/** A compaction that is given up. */
export interface FailCompaction {
  reason: string;
  state?: "failed" | "cancelled" | "abandoned";
}

/** A turn that failed. */
export interface FailTurn {
  reason: string;
  retry?: boolean;
}

/** Whether a compaction ran, and was given up by this call. */
export interface Failed {
  compaction_id: string;
  recorded: boolean;
}

export interface FollowEventsQuery {
  audience?: "operator" | "user";
  after?: number;
}

/** That the server reads and the database answers. */
export interface Health {
  ok: boolean;
  verdict: string;
  at_ms: number;
}

/** Something that a process holds: a turn, a compaction, or a reply that it is sending. */
export interface Holding {
  what: "turn" | "compaction" | "reply";
  session_id: string;
  turn_no: number | null;
  compaction_id: string | null;
  outbox_no: number | null;
  operation: string;
  since_ms: number;
  until_ms: number;
  host: string;
  pid: number;
  program: string;
  alive: boolean | null;
  draining_since_ms: number | null;
}

/** A lane: its limits, and what is in it now. */
export interface Lane {
  lane: string;
  concurrency: number;
  priority: number;
  people: boolean;
  running: number;
  waiting: number;
  oldest_waiting_ms: number | null;
  interrupted: number;
  dead: number;
  paused_at_ms: number | null;
  settings: Record<string, unknown> | null;
}

/** The lanes, those that go first first. */
export interface Lanes {
  lanes: Lane[];
}

export interface ListCompactionsQuery {
  limit?: number;
}

export interface ListSessionsQuery {
  cursor?: string;
  limit?: number;
  agent_id?: string;
  namespace?: string;
  key_prefix?: string;
  updated_before?: number;
  with_ended?: boolean;
  newest_first?: boolean;
}

/** JSON for whoever takes the message over. */
export interface NoteTurn {
  details: unknown;
}

/** Which session: by a key, by a foreign id, or a new one. */
export interface OpenSession {
  key?: string | null;
  namespace?: string | null;
  external_id?: string | null;
  session_id?: string | null;
  create?: boolean;
  agent_id?: string | null;
  cwd?: string | null;
  format?: "pi" | "openai-chat" | "openai-responses" | "anthropic" | null;
}

/** What became of a message (`SessionDB.wait`). */
export interface Outcome {
  inbox_no: number;
  session_id: string;
  state: "answered" | "incomplete" | "given_up" | "stopped" | "withdrawn" | "heard";
  reason: string | null;
  superseded_by: number | null;
  entries: Entry[];
}

export interface OutcomeQuery {
  wait_s?: number;
}

/** A process that opened the database for writing and has not closed it. */
export interface ProcessStatus {
  instance_no: number;
  program: string;
  pid: number;
  host: string;
  opened_at_ms: number;
  draining_since_ms: number | null;
  alive: boolean | null;
}

/** The place of an appended entry. The entry is on disk. */
export interface Receipt {
  entry_no: number;
  entry_id: string;
  position: number;
  epoch: number;
  tokens: number;
  appended_at_ms: number;
  duplicate: boolean;
}

/** What was appended. */
export interface Receipts {
  receipts: Receipt[];
}

/** A turn that its worker gives back. */
export interface ReleaseTurn {
  reason?: string;
}

/** A compaction whose summariser still works. */
export interface RenewCompaction {
  lease_s?: number;
}

/** A turn that its worker still works on. */
export interface RenewTurn {
  lease_s?: number;
  operation?: string | null;
}

/** Until when a lease holds. */
export interface Renewed {
  expires_at_ms: number;
}

/** A reply that its channel did not send, for certain. */
export interface ReplyRefused {
  attempt: number;
  reason: string;
  retry?: boolean;
  retry_after_s?: number | null;
}

/** A reply that its channel took. */
export interface ReplySent {
  attempt: number;
  receipt?: string | null;
}

/** An entry that has the words of a search. */
export interface SearchHit {
  session_id: string;
  agent_id: string | null;
  entry_id: string;
  entry_no: number;
  seq: number;
  type: string;
  role: string | null;
  appended_at_ms: number;
  snippet: string;
  marks: unknown[][];
  on_path: boolean;
  archived?: boolean;
}

/** A page of what a search has found: the newest session first, and of it the last entry. */
export interface SearchPage {
  hits: SearchHit[];
  next: number | null;
  unread: number;
  built: boolean;
}

export interface SearchQuery {
  words: string;
  session?: string;
  agent_id?: string;
  role?: string;
  since_ms?: number;
  before?: number;
  limit?: number;
}

/** A session's row, with values that are derived from other rows. */
export interface SessionInfo {
  session_id: string;
  keys: string[];
  agent_id: string | null;
  origin: "native" | "import" | "fork";
  version: number;
  format: "pi" | "openai-chat" | "openai-responses" | "anthropic" | null;
  name: string | null;
  entries: number;
  epoch: number;
  compactions: number;
  context_tokens: number;
  tokens_fresh: boolean;
  created_at_ms: number;
  updated_at_ms: number;
  ended_at_ms: number | null;
  forked_from: string | null;
  pinned_at_ms?: number | null;
  archived_at_ms?: number | null;
  namespace?: string | null;
  external_id?: string | null;
  details?: Record<string, unknown>;
  details_revision?: number;
}

/** A page of sessions. */
export interface SessionsPage {
  sessions: SessionInfo[];
  next: string | null;
}

/** The limits of a lane. */
export interface SetLane {
  concurrency: number;
  priority: number;
  people?: boolean | null;
}

/** What an operator decided about a reply that nobody knows about. */
export interface SettleReply {
  state: "sent" | "pending";
}

/** Whether a call recorded what became of a reply, or it had been recorded before. */
export interface Settled {
  outbox_no: number;
  recorded: boolean;
}

export interface StatusQuery {
  counts?: boolean;
}

/** Something that does not go on by itself: a row of the view `stuck`, or of a dead process. */
export interface Stuck {
  what: string;
  name: string;
  problem: string;
  session_id: string | null;
  place: string | null;
  since: string;
  until: string | null;
  owner: string | null;
  owner_alive: boolean | null;
  why: string;
  next_step: string;
}

/** A reply of a turn, for the outbox. */
export interface TurnReply {
  target: string;
  message: unknown;
}

/** A message that its sender took back. */
export interface Withdraw {
  channel: string;
  event_id: string;
}

/** What became of a message that its sender took back. */
export interface Withdrawn {
  outcome: "withdrawn" | "running" | "done" | "unknown";
  inbox_no: number | null;
  session_id: string | null;
  turn_no: number | null;
}

/** A gateway's waiting, running and unfinished work: counts of rows. */
export interface WorkStatus {
  messages_waiting: number;
  messages_interrupted: number;
  messages_dead: number;
  turns_running: number;
  turns_overdue: number;
  replies_pending: number;
  replies_sending: number;
  replies_unknown: number;
  replies_failed: number;
  events: number;
}
