// The plugin: OpenClaw calls `register` once, and the factory before each turn.
import { AsyncResource } from "node:async_hooks";
import { SessionDB } from "../node/index.js";
import { Engine, Memory } from "./engine.js";

const ID = "sessiondb";
const QUICK_MS = 300; // a turn waits so long for the server, at most
const PATIENT_MS = 10 * 60_000; // what no turn waits for

export default {
  id: ID,
  name: "sessiondb",
  description: "Summaries are written beside the conversation, and no message waits for one",
  register(api) {
    const config = {
      compactAt: 0.7,
      keepRecentTokens: 20_000,
      summaryTokens: 4_000,
      ...api.pluginConfig,
    };
    const { socketPath } = config;
    // What a turn has begun ends with it: "Async work scope is closed". This scope is the plugin's.
    const scope = new AsyncResource("sessiondb");
    const memory = new Memory({
      config,
      log: api.logger,
      quick: new SessionDB({ socketPath, patience_ms: QUICK_MS }),
      patient: new SessionDB({ socketPath, patience_ms: PATIENT_MS }),
      detached: (work) => scope.runInAsyncScope(work),
      complete: (call) => api.runtime.llm.complete(call),
      // The host's own way, for a context that the model refuses while there is no server.
      delegate: async (call) =>
        (await import("openclaw/plugin-sdk/core")).delegateCompactionToRuntime(call),
      quick_ms: QUICK_MS,
    });
    api.registerContextEngine(ID, () => new Engine(memory));
  },
};
