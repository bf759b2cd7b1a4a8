// The operator's view: `db.status()` of the library as tables, read again every few seconds.
// The verdict, its reasons and the commands that go on are the library's own.
const at = id => document.getElementById(id);
const AGAIN_MS = 3000;
const WORDS = {green: "All is well", yellow: "Look at this today", red: "Somebody waits in vain"};

function make(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text; element.className = name;
  return element;
}
function table(place, heads, rows, nothing) {
  if (!rows.length) { at(place).replaceChildren(make("p", nothing, "quiet")); return; }
  const whole = document.createElement("table"), head = whole.createTHead().insertRow(), body = whole.createTBody();
  for (const text of heads) head.append(make("th", text));
  for (const row of rows) { const line = body.insertRow(); for (const [number, text] of row.entries()) { const cell = line.insertCell(); cell.textContent = text; cell.dataset.head = heads[number]; } }
  at(place).replaceChildren(whole);
}
const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;     // for a shell
const mib = bytes => bytes === null ? "unknown" : `${(bytes / 2 ** 20).toLocaleString("en", {maximumFractionDigits: 1})} MiB`;
function age(since_ms, now_ms) {
  const s = Math.max(0, Math.round((now_ms - since_ms) / 1000));
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}
function show({verdict, database, dead_letters, unknown_replies}) {
  const now = database.at_ms, since = when => age(when, now);
  at("verdict").dataset.level = verdict;
  at("verdict").textContent = `${WORDS[verdict]} (${verdict}). ${new Date(now).toLocaleTimeString()}`;
  at("alarms").replaceChildren(...(database.alarms.length ? database.alarms : [{level: "green", text: "Nothing.", next_step: null}]).map(alarm => {
    const line = make("p", alarm.text, alarm.level);
    if (alarm.next_step) line.append(document.createElement("br"), make("code", alarm.next_step));
    return line;
  }));
  table("held", ["what", "does", "for", "process"], database.held.map(one =>
    [one.what, one.operation, since(one.since_ms), `${one.program} ${one.pid}${one.alive === false ? ", dead" : ""}`]), "Nothing is being worked on.");
  table("lanes", ["queue", "running", "waiting", "oldest", "interrupted", "given up"], database.lanes.map(lane =>
    [lane.lane + (lane.paused_at_ms === null ? "" : " (paused)"), `${lane.running} of ${lane.concurrency}`, lane.waiting,
      lane.oldest_waiting_ms === null ? "" : since(lane.oldest_waiting_ms), lane.interrupted, lane.dead]), "There are none.");
  table("decide", ["what", "why", "command"], [
    ...dead_letters.map(one => [`message ${one.inbox_no} was given up`, one.reason ?? "", `sessiondb dead ${quoted(database.path)} --requeue ${one.inbox_no}`]),
    ...unknown_replies.map(one => [`reply ${one.outbox_no} to ${one.target} may have been sent`, one.reason ?? "", `sessiondb outbox ${quoted(database.path)} --state unknown`]),
  ], "Nothing does.");
  table("processes", ["process", "open for", "state"], database.processes.map(one =>
    [`${one.program} ${one.pid}`, since(one.opened_at_ms), one.alive === false ? "died" : one.draining_since_ms === null ? "works" : "stops"]), "None.");
  table("size", ["database", "write-ahead log", "free on the disk", "sessions"],
    [[mib(database.file_bytes), mib(database.wal_bytes), mib(database.disk_free_bytes), database.sessions.toLocaleString("en")]], "");
}
async function look() {
  try {
    const answer = await fetch("/status");
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    at("verdict").dataset.level = "red";
    at("verdict").textContent = `The gateway does not answer: ${error.message}. What is below is old.`;
  }
  setTimeout(look, AGAIN_MS);
}
look();
