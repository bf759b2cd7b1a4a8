// What a host's messages are, and what of them a summary stands for. Pure functions.
//
// The host's messages are the truth. A summary says which of them it covers: how many, and a digest
// of their names. It is used only where the host's history begins with exactly these. After a
// reset, a rewind or an edit it does not, and nobody is told what was said before.
import { createHash } from "node:crypto";

const BEGINS = "The conversation before this point was summarised:\n\n<summary>\n";

const digest = (text) => createHash("sha256").update(text).digest("hex");

/** Return a name for each message: the same one each time, also when the host has cut its text.
 *
 * The host trims the results of tools, so a name says nothing of the content. */
export function namesOf(messages) {
  return messages.map(({ role, timestamp, idempotencyKey, responseId, toolCallId }) =>
    digest(JSON.stringify([role, timestamp, idempotencyKey, responseId, toolCallId])).slice(0, 40),
  );
}

/** Return a key for each message. Those that nothing else tells apart have their order in it. */
export function keysOf(names) {
  const seen = new Map();
  return names.map((name) => {
    const count = seen.get(name) ?? 0;
    seen.set(name, count + 1);
    return count === 0 ? name : `${name}.${count}`;
  });
}

/** Return the digest of all names so far, from that of those before. */
export function chained(prefix, names) {
  return names.reduce((before, name) => digest(before + name), prefix);
}

/** Whether a summary covers the beginning of a history. */
export function covers({ covered, prefix }, names) {
  return covered <= names.length && prefix === chained("", names.slice(0, covered));
}

/** Return a history with its covered part replaced by the summary. */
export function applied({ covered, summary }, messages) {
  const first = {
    role: "user",
    content: [{ type: "text", text: `${BEGINS}${summary}\n</summary>` }],
    timestamp: messages[covered - 1]?.timestamp ?? 0,
  };
  return [first, ...messages.slice(covered)];
}

/** Whether messages begin with a summary of ours: the host gives them back before its next call. */
export function isApplied([first]) {
  return first?.role === "user" && Boolean(first.content?.[0]?.text?.startsWith?.(BEGINS));
}

/** Estimate the tokens of messages: four characters are one, and an image is 1,200. */
export function tokensOf(messages) {
  let images = 0;
  const withoutImages = (_, value) => (value?.type === "image" ? ((images += 1), null) : value);
  const characters = messages.reduce(
    (sum, { content }) => sum + (JSON.stringify(content, withoutImages)?.length ?? 0),
    0,
  );
  return Math.ceil(characters / 4) + images * 1_200;
}
