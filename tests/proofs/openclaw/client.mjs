// Calls a gateway by OpenClaw's own client: a line of JSON for each call, and one for its answer.
//
//   node client.mjs PACKAGE URL TOKEN <calls      {"id", "method", "params"} -> {"id", "ok" | "error"}
//
// A call of the agent is answered when its turn has ended, or with "accepts" when it was accepted.
// Calls run at once. The first line printed says that the client is connected.
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, url, token] = process.argv.slice(2);
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.log = console.info = console.warn = console.error;

const sdk = pathToFileURL(join(folder, "dist/plugin-sdk/gateway-runtime.js")).href;
const { GatewayClient } = await import(sdk);
const client = await new Promise((resolve, reject) => {
  const made = new GatewayClient({
    url,
    token,
    clientName: "cli",
    mode: "cli",
    role: "operator",
    scopes: ["operator.admin", "operator.read", "operator.write"],
    onHelloOk: () => resolve(made),
    onConnectError: reject,
  });
  made.start();
});
print({ connected: true });

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params, accepts } = JSON.parse(line);
  client
    .request(method, params, { timeoutMs: 300_000, expectFinal: method === "agent" && !accepts })
    .then((ok) => print({ id, ok }))
    .catch((error) => print({ id, error: String(error) }));
}
process.exit(0);
