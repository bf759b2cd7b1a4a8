// Reads transcripts with the programs that write them, and prints each context as one line of JSON.
//
//   node readers.mjs NODE_MODULES... <jobs      each line of jobs: {"path": ..., "by": ...}
//
// The first line printed names the readers that were found, with their versions. Then comes a line
// for each job: {"messages", "thinkingLevel", "model"}, or {"error"} if the reader refused the file.
// pi and OpenClaw repair the files that they open, so the caller gives copies.
import { existsSync, readFileSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// undici 8, which OpenClaw loads and reading a file never calls, asks node 20 for this function.
const threads = createRequire(import.meta.url)("node:worker_threads");
threads.markAsUncloneable ??= () => {};
syncBuiltinESMExports();

// What a reader prints for people is not an answer.
console.log = console.info = console.warn = console.error;

const folders = process.argv.slice(2);

/** Return the folder of a package, of a version that its reader was written for. */
function find(name, version) {
  for (const folder of folders) {
    const manifest = join(folder, name, "package.json");
    if (!existsSync(manifest)) continue;
    if (version.test(JSON.parse(readFileSync(manifest, "utf8")).version)) return join(folder, name);
  }
}

const load = (folder, file) => import(pathToFileURL(join(folder, file)).href);

const kinds = {
  pi: {
    package: "@earendil-works/pi-coding-agent",
    version: /^1\./,
    async reader(folder) {
      const { SessionManager } = await load(folder, "dist/core/session-manager.js");
      return (path) => SessionManager.open(path, dirname(path)).buildSessionContext();
    },
  },
  openclaw: {
    package: "openclaw",
    version: /^2026\.[5-7]\./,
    async reader(folder) {
      const { SessionManager } = await load(folder, "dist/plugin-sdk/agent-sessions.js");
      return (path) => SessionManager.open(path, dirname(path)).buildSessionContext();
    },
  },
  sdk: {
    package: "@earendil-works/pi-agent-core",
    version: /^0\.8/,
    async reader(folder) {
      const core = await load(folder, "dist/node.js");
      return async (path) => {
        const fs = new core.NodeExecutionEnv({ cwd: dirname(path) });
        const repo = new core.JsonlSessionRepo({ fs, sessionsRoot: dirname(path) });
        const { id } = JSON.parse(readFileSync(path, "utf8").split("\n", 1)[0]);
        const lane = (await repo.open({ id, path })).view("main");
        return core.buildSessionContext(await lane.findEntriesOnBranch({ order: "oldestFirst" }));
      };
    },
  },
};

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const readers = {};
const found = {};
for (const [by, kind] of Object.entries(kinds)) {
  const folder = find(kind.package, kind.version);
  if (folder === undefined) continue;
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  try {
    readers[by] = await kind.reader(folder);
    found[by] = `${kind.package} ${version}`;
  } catch (error) {
    console.error(`${kind.package} ${version} cannot be loaded: ${error}`);
  }
}
print(found);

for await (const line of createInterface({ input: process.stdin })) {
  const { path, by } = JSON.parse(line);
  try {
    const { messages, thinkingLevel, model } = await readers[by](path);
    print({ messages, thinkingLevel, model });
  } catch (error) {
    print({ error: String(error) });
  }
}
