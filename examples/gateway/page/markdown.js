// Markdown as elements. What a model writes is not trusted: this makes elements of a few kinds
// and puts text into them, and never HTML out of text. A link leads to the web, and nowhere else.
// Pictures are links, because nothing is loaded from elsewhere.

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|!?\[([^\]]*)\]\(([^\s()]+)\)|(https?:\/\/[^\s<>()]+)/g;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;

function make(tag, ...parts) {
  const element = document.createElement(tag);
  element.append(...parts);
  return element;
}

function link(text, address) {
  let url;
  try { url = new URL(address); } catch { return text; }
  if (!["http:", "https:"].includes(url.protocol)) return text;
  const anchor = make("a", text);
  anchor.href = url.href; anchor.rel = "noopener noreferrer nofollow"; anchor.target = "_blank";
  return anchor;
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    const [all, code, strong, slanted, label, address, bare] = found;
    parts.push(text.slice(end, found.index));
    end = found.index + all.length;
    if (code !== undefined) parts.push(make("code", code));
    else if (strong !== undefined) parts.push(make("strong", strong));
    else if (slanted !== undefined) parts.push(make("em", slanted));
    else if (address !== undefined) parts.push(link(label || address, address));
    else parts.push(link(bare, bare));
  }
  parts.push(text.slice(end));
  return parts;
}

const lined = lines => lines.flatMap((line, number) => number ? [make("br"), ...inline(line)] : inline(line));

function list(items) {
  const element = make(items[0][2] ? "ol" : "ul", ...items.map(item => make("li", ...inline(item[3]))));
  if (items[0][2]) element.start = Number(items[0][2]);
  return element;
}

export function markdown(text) {
  const lines = text.split("\n"), blocks = document.createDocumentFragment();
  const isPlain = line => line.trim() && !/^(```|#{1,6}\s|>)/.test(line) && !ITEM.test(line);
  for (let at = 0; at < lines.length;) {
    const line = lines[at], take = accepts => {
      const from = at;
      do at += 1; while (at < lines.length && accepts(lines[at]));
      return lines.slice(from, at);
    };
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) at += 1;
    else if (line.startsWith("```")) {
      const code = take(next => !next.startsWith("```")).slice(1);
      at += 1;               // the closing fence. One that is not there yet is still being written
      blocks.append(make("pre", make("code", code.join("\n"))));
    } else if (heading) { at += 1; blocks.append(make(`h${Math.min(heading[1].length + 2, 6)}`, ...inline(heading[2]))); }
    else if (line.startsWith(">")) blocks.append(make("blockquote", ...lined(take(next => next.startsWith(">")).map(one => one.replace(/^>\s?/, "")))));
    else if (ITEM.test(line)) {
      const ordered = Boolean(ITEM.exec(line)[2]);
      blocks.append(list(take(next => ITEM.test(next) && Boolean(ITEM.exec(next)[2]) === ordered).map(one => ITEM.exec(one))));
    } else blocks.append(make("p", ...lined(take(isPlain))));
  }
  return blocks;
}
