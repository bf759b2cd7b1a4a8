// A message is kept here until the gateway has acknowledged it, and in localStorage until it was answered: whatever is
// unanswered when the page opens is sent again with the same event_id, which is harmless, and says what became of it.
import {markdown} from "/markdown.js";

const at = id => document.getElementById(id);
const query = new URLSearchParams(location.search);
const agent = query.get("agent") || "main", conversation = query.get("conversation") || "lobby";
const where = `agent=${encodeURIComponent(agent)}`;
const stored = `unanswered ${agent} ${conversation}`;
const words = {
  unsent: "not accepted yet; trying again", sending: "sending", accepted: "accepted", thinking: "thinking", delayed: "accepted; delayed",
  retrying: "failed; it is tried again", answered: "answered", together: "answered with a later one", incomplete: "no usable answer", dead: "could not be answered", stopped: "stopped",
  interrupted: "interrupted by a restart, and not lost", over: "it ended without an answer of its own",
};
// What the gateway calls a message that is not done, in the words above.
const waits = {queued: "accepted", claimed: "thinking", interrupted: "interrupted", heard: "accepted"};
const bad = new Set(["message_dead", "turn_incomplete", "compaction_failed"]);
const ended = {message_dead: "dead", turn_incomplete: "incomplete", turn_aborted: "stopped"};
const final = new Set(["answered", "together", "incomplete", "dead", "stopped", "over"]);
const mine = new Map();      // event_id -> {text, state, inbox_no, element}
const early = new Map();     // inbox_no -> the latest state, told before the receipt arrived
let retry_ms = 250, online = false, compacting = false, facts = "", help = {};
const shown = new Set();    // the numbers of notices that are shown: one comes again after a crash, or to a page that has read it
let compacted_at = 0;        // when this page heard last how a compaction ended
let waiting = null;         // notices that arrive while the conversation is being read

const pending = () => JSON.parse(localStorage.getItem(stored) || "[]");
const keep = items => localStorage.setItem(stored, JSON.stringify(items));
const forget = event_id => keep(pending().filter(item => item.event_id !== event_id));

const LIST_MS = 15000;
let draft = null;           // the answer that is being written: its element, and its text so far

function make(tag, name = "", ...parts) {
  const element = document.createElement(tag);
  element.className = name; element.append(...parts);
  return element;
}
function clock(ms) {
  const when = new Date(ms), time = make("time"), today = when.toDateString() === new Date().toDateString();
  time.dateTime = when.toISOString(); time.title = when.toLocaleString();
  time.textContent = when.toLocaleString([], {...(today ? {} : {day: "numeric", month: "short"}), hour: "2-digit", minute: "2-digit"});
  return time;
}
function bubble(kind, text, at_ms = Date.now()) {
  const words = make("div", "text", kind === "user" ? text : markdown(text));
  return show(make("article", kind, words, make("small", "", make("span", "state"), clock(at_ms))));
}
function note(text, kind = "", at_ms = Date.now()) {
  return show(make("div", `note ${kind}`, make("span", "", text), " ", clock(at_ms)));
}
function write(begins_at, piece) {
  draft ||= {element: bubble("assistant draft", ""), text: ""};
  draft.text = draft.text.slice(0, begins_at) + piece;
  draft.element.setAttribute("aria-live", "off");
  draft.element.querySelector(".text").replaceChildren(markdown(draft.text));
  show(draft.element);
}
function noDraft() { draft?.element.remove(); draft = null; }
function showHelp() {
  const card = make("dl", "note card help");
  for (const [word, does] of Object.entries(help)) {
    const use = make("button", "plain", word);
    use.type = "button";
    use.onclick = () => { at("text").value = word; at("text").focus(); };
    card.append(make("dt", "", use), make("dd", "", does));
  }
  show(card);
}
function show(element) {
  const box = at("said"), low = box.scrollHeight - box.scrollTop - box.clientHeight < 120;
  box.append(element);
  if (low) box.scrollTop = box.scrollHeight;
  return element;
}
function set(event_id, state, more = "") {
  const message = mine.get(event_id);
  if (!message || final.has(message.state) && !final.has(state)) return;
  message.state = state;
  message.element.dataset.state = state;
  message.element.querySelector(".state").textContent = words[state] + more;
  if (final.has(state)) forget(event_id);
}
function byNumber(inbox_no) {
  for (const [event_id, message] of mine) if (message.inbox_no === inbox_no) return event_id;
}
function setByNumber(inbox_no, state, more) {
  const event_id = byNumber(inbox_no);
  if (event_id) set(event_id, state, more); else early.set(inbox_no, [state, more]);
}
// Its answer came with that of a newer message. One that this page will send again is known by its number then.
function together(inbox_no) {
  early.set(inbox_no, ["together", ""]);
  const messages = [...mine], newest = messages.findLastIndex(([, one]) => one.state === "answered");
  for (const [event_id, one] of messages.slice(0, Math.max(newest, 0))) if (one.state === "accepted") set(event_id, "together");
}
function add(event_id, text, state, at_ms) {
  if (!mine.has(event_id)) mine.set(event_id, {text, state, element: bubble("user", text, at_ms)});
  set(event_id, state);
  return mine.get(event_id);
}
function told(event_id, receipt) {
  const message = mine.get(event_id);
  if (!message) return;
  message.inbox_no = receipt.inbox_no;
  // "done" without an answer that is shown: the answer is the next thing that arrives, or a notice says what became of it.
  const state = {...waits, dead: "dead", done: "over"}[receipt.state] || "accepted";
  // The socket may have been faster: what it told goes further than a receipt.
  if (["sending", "unsent", "accepted"].includes(message.state)) set(event_id, state, receipt.ahead ? `; ${receipt.ahead} before it` : "");
  if (early.has(receipt.inbox_no)) { set(event_id, ...early.get(receipt.inbox_no)); early.delete(receipt.inbox_no); }
}
function answer(notice) {
  if (notice.event_id && [...document.querySelectorAll("[data-answers]")].some(one => one.dataset.answers === notice.event_id)) return;
  noDraft();
  bubble("assistant", notice.text, notice.at_ms).dataset.answers = notice.event_id || "";
  set(notice.event_id, "answered");
}

async function send(event_id, text) {
  const body = JSON.stringify({text, event_id, agent, conversation});
  for (;;) {
    let wait_ms = 1000;
    try {
      const response = await fetch("/messages", {method: "POST", headers: {"content-type": "application/json"}, body});
      const said = await response.json();
      if (response.status === 202) return said;
      if (response.status === 200) return said;
      if (![429, 503].includes(response.status)) throw Object.assign(new Error(said.error), {final: true});
      wait_ms = Math.min(said.retry_after_ms, 5000);
    } catch (error) {
      if (error.final) throw error;      // otherwise the gateway is away: it is the same message when it comes back
    }
    set(event_id, "unsent");
    await new Promise(done => setTimeout(done, wait_ms));
  }
}
async function say(text, event_id = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`) {
  const isCommand = /^\/(status|compact|stop|help)\b/.test(text);
  if (!isCommand) { keep([...pending().filter(item => item.event_id !== event_id), {event_id, text}]); add(event_id, text, "sending"); }
  try {
    const said = await send(event_id, text);
    if (said.command === "/help") showHelp();
    else if (said.command) note(`${text}\n${said.text}`, "card"); else told(event_id, said);
    return said;
  } catch (error) {
    note(error.message, "bad");
    set(event_id, "dead");
  }
}

const handle = {
  hello(notice) { noDraft(); if (notice.written) write(0, notice.written); if (notice.thinking) setByNumber(notice.thinking, "thinking"); busy(notice.compacting); },
  accepted(notice) { if (!mine.has(notice.event_id)) add(notice.event_id, notice.text, "accepted"); told(notice.event_id, {...notice, state: "queued"}); refreshList(); },
  writing(notice) { write(notice.begins_at, notice.text); },
  thinking(notice) { noDraft(); setByNumber(notice.inbox_no, "thinking", notice.resumed ? " (resumed after a restart)" : notice.attempt > 1 ? ` (attempt ${notice.attempt})` : ""); },
  stopped(notice) { noDraft(); setByNumber(notice.inbox_no, "stopped"); },
  failed(notice) { noDraft(); setByNumber(notice.inbox_no, "retrying", `: ${notice.reason}`); },
  compacting() { busy(true); },
  compacted(notice) { busy(false); compacted_at = Date.now(); if (notice.trigger !== "threshold" || notice.outcome === "committed") note(notice.text, notice.outcome === "failed" ? "bad" : "", notice.at_ms); refresh(); },
  reset() { note("a new conversation begins here"); refresh(); },
  notice(notice) {
    if (shown.has(notice.event_no)) return;
    shown.add(notice.event_no);
    // How a compaction of this gateway ended is told by `compacted`, with figures; of another one's, by its event.
    if (notice.event.startsWith("compaction_") && (compacting || Date.now() - compacted_at < 5000)) return;
    const state = {message_delayed: "delayed", ...ended}[notice.event];
    if (state === "delayed") setByNumber(notice.inbox_no, state);
    else if (state === "dead") { setByNumber(notice.inbox_no, state); note(notice.text, "bad", notice.at_ms); }
    else if (notice.event === "message_superseded") { setByNumber(notice.inbox_no, "together"); note(notice.text, "", notice.at_ms); }
    else { if (state) for (const [event_id, one] of mine) if (one.state === "thinking") set(event_id, state); note(notice.text, bad.has(notice.event) ? "bad" : "", notice.at_ms); }
    if (state && state !== "delayed") noDraft();
  },
  reply(notice) { answer(notice); refresh(); refreshList(); },
};
function busy(yes) { compacting = yes; line(); }
function line() {
  at("status").dataset.online = online ? "yes" : "no";
  at("line").textContent = online ? facts : "the gateway is away; messages are kept here and sent when it is back";
  at("compacting").textContent = online && compacting ? " · earlier messages are being summarised in the background" : "";
}
async function refresh() {
  try {
    const said = await (await fetch(`/conversations/${encodeURIComponent(conversation)}?limit=1&${where}`)).json();
    // What the model is shown. Beyond the threshold earlier messages are summarised, so that it is less again.
    facts = `with ${agent} · memory ${Math.round(100 * said.context_tokens / said.threshold_tokens)} % full`;
    at("line").title = `The model is shown ${said.context_tokens.toLocaleString("en")} tokens. Above ${said.threshold_tokens.toLocaleString("en")} earlier messages are summarised.`;
    line();
  } catch { /* the socket says when the gateway is back */ }
}
async function load() {
  const said = await (await fetch(`/conversations/${encodeURIComponent(conversation)}?${where}`)).json();
  at("agent").replaceChildren(...said.agents.map(name => new Option(name, name, false, name === agent)));
  help = said.help;
  at("said").replaceChildren(); mine.clear(); shown.clear(); draft = null;
  const unfinished = new Map(said.open.map(message => [message.event_id, message]));
  const missed = said.notices.filter(notice => notice.event !== "message_delayed");
  for (const notice of said.notices) shown.add(notice.event_no);
  let open = null;           // the last message without an answer: what the next notice is about
  const tell = until_ms => {
    while (missed.length && missed[0].at_ms <= until_ms) {
      const notice = missed.shift();
      if (open && ended[notice.event] && !unfinished.has(open)) set(open, ended[notice.event]);
      if (notice.event === "message_superseded") together(notice.inbox_no);
      note(notice.text, bad.has(notice.event) ? "bad" : "", notice.at_ms);
    }
  };
  const answers = new Set(said.said.map(item => item.answers));
  if (said.before !== null && said.said.length) while (missed.length && missed[0].at_ms < said.said[0].at_ms) missed.shift();
  for (const item of said.said) {
    tell(item.at_ms);
    if (item.what === "user" && item.event_id) open = answers.has(item.event_id) ? null : item.event_id;
    const state = answers.has(item.event_id) || /^\/(new|reset)\b/.test(item.text) ? "answered" : waits[unfinished.get(item.event_id)?.state] || "accepted";
    if (item.what === "user" && item.event_id) add(item.event_id, item.text, state, item.at_ms);
    else if (item.what === "user") bubble("user", item.text, item.at_ms);
    else if (item.what === "assistant") bubble("assistant", item.text, item.at_ms).dataset.answers = item.answers || "";
    else note(item.what === "reset" ? "a new conversation begins here" : "earlier messages were summarised", "", item.at_ms);
  }
  tell(Infinity);
  for (const [event_id, message] of unfinished) add(event_id, message.text, waits[message.state], message.at_ms).inbox_no = message.inbox_no;
  if (!said.said.length && !unfinished.size && !pending().length) showHelp();
  for (const item of pending()) say(item.text, item.event_id);
  at("said").scrollTop = at("said").scrollHeight;
  refresh(); refreshList();
}
async function refreshList() {
  try {
    const all = await (await fetch("/conversations")).json();
    at("list").replaceChildren(...all.map(one => {
      const link = make("a", "", make("span", "", one.name || one.conversation), make("small", "", `${one.agent}${one.working ? ", answering" : ""}`, " ", clock(one.changed_at_ms)));
      link.href = `/?${new URLSearchParams({agent: one.agent, conversation: one.conversation})}`;
      if (one.agent === agent && one.conversation === conversation) link.setAttribute("aria-current", "page");
      return make("li", "", link);
    }));
  } catch { /* the socket says when the gateway is back */ }
}
function connect() {
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/ws/${encodeURIComponent(conversation)}?${where}`);
  const take = notice => handle[notice.type]?.(notice);
  socket.onopen = async () => {
    online = true; retry_ms = 250; waiting = []; early.clear(); line();
    try { await load(); } catch { socket.close(); }
    waiting.forEach(take);
    waiting = null;
  };
  socket.onmessage = event => { const notice = JSON.parse(event.data); if (waiting) waiting.push(notice); else take(notice); };
  socket.onclose = () => {
    online = false; noDraft(); line();
    for (const [event_id, one] of mine) if (one.state === "thinking") set(event_id, "accepted", "; it goes on when the gateway is back");
    setTimeout(connect, retry_ms); retry_ms = Math.min(retry_ms * 2, 4000);
  };
}

at("form").onsubmit = event => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text) return;
  at("text").value = ""; at("text").style.height = ""; at("text").focus();
  say(text);
};
at("text").onkeydown = event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("form").requestSubmit(); } };
at("text").oninput = () => { at("text").style.height = ""; at("text").style.height = `${at("text").scrollHeight + 2}px`; };
at("open").onsubmit = event => {
  event.preventDefault();
  location.search = new URLSearchParams({agent: at("agent").value, conversation: at("conversation").value.trim().toLowerCase() || "lobby"});
};
at("help").onclick = showHelp;
at("menu").onclick = () => at("menu").setAttribute("aria-expanded", String(document.body.classList.toggle("menu")));
setInterval(() => { if (online && !document.hidden) refreshList(); }, LIST_MS);
at("title").textContent = document.title = conversation;
connect();
