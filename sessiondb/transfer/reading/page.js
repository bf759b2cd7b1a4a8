
"use strict";
// Search in the page. It makes no request, and changes no text: it unfolds what has a match,
// and the browser paints the matches where it can.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("find"), words = document.getElementById("words");
  const said = document.getElementById("found"), most = 5000;
  const paints = typeof Highlight === "function" && CSS.highlights;
  let ranges = [], at = -1, timer = 0;

  const matches = (asked) => {
    const escaped = asked.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
    const wanted = new RegExp(escaped, "giu"), list = [];
    const nodes = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    for (let node; list.length < most && (node = nodes.nextNode());) {
      if (node.parentElement.closest("script, summary")) continue;
      for (const one of node.data.matchAll(wanted)) {
        const range = new Range();
        range.setStart(node, one.index);
        range.setEnd(node, one.index + one[0].length);
        list.push(range);
        if (list.length >= most) break;
      }
    }
    return list;
  };

  const go = (step) => {
    if (!ranges.length) return;
    at = (at + step + ranges.length) % ranges.length;
    const range = ranges[at], place = range.startContainer.parentElement;
    for (let fold = place.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
    place.scrollIntoView({ block: "nearest" });
    const box = range.getBoundingClientRect();
    if (box.top < 60 || box.bottom > innerHeight) scrollBy(0, box.top - innerHeight / 2);
    if (paints) CSS.highlights.set("here", new Highlight(range));
    said.value = `${at + 1} of ${ranges.length}${ranges.length === most ? "+" : ""}`;
  };

  const search = () => {
    clearTimeout(timer);
    timer = 0;
    at = -1;
    ranges = words.value.trim() ? matches(words.value.trim()) : [];
    if (paints) {
      CSS.highlights.delete("here");
      CSS.highlights.set("found", new Highlight(...ranges));
    }
    said.value = words.value.trim() ? "no match" : "";
    go(1);
  };

  words.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (timer) search(); else go(1);
  });
  document.getElementById("before").addEventListener("click", () => go(-1));
  form.hidden = false;
});
