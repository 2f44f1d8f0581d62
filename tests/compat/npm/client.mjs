// Drives a service with @langchain/langgraph-sdk. Its url is the one argument; prints what it saw as JSON.
import { Client } from "@langchain/langgraph-sdk";

const client = new Client({ apiUrl: process.argv[2] });
const saying = (text) => ({ messages: [{ role: "user", content: text }] });
const said = (state) => state.messages.map((message) => message.content);
const collected = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
};
const seen = {};

const [assistant] = await client.assistants.search({ graphId: "agent" });
seen.assistant = assistant.name;
seen.nodes = (await client.assistants.getGraph(assistant.assistant_id)).nodes.map((node) => node.id);
seen.schema = Object.keys((await client.assistants.getSchemas(assistant.assistant_id)).input_schema.properties);

const { thread_id: threadId } = await client.threads.create({ metadata: { team: "js" } });
let created;
const parts = await collected(
  client.runs.stream(threadId, "agent", {
    input: saying("weather"),
    streamMode: ["values", "messages-tuple", "updates", "custom"],
    streamResumable: true,
    onRunCreated: (run) => (created = run),
  }),
);
seen.created = created.thread_id === threadId && parts[0].data.run_id === created.run_id;
seen.nodesRun = parts.filter((part) => part.event === "updates").map((part) => Object.keys(part.data)[0]);
seen.answer = said(parts.filter((part) => part.event === "values").at(-1).data).at(-1);
seen.custom = parts.find((part) => part.event === "custom").data;
const again = await collected(client.runs.joinStream(threadId, created.run_id, { lastEventId: "0" }));
seen.joined = again.map((part) => part.event).join() === parts.map((part) => part.event).join();

seen.state = said((await client.threads.getState(threadId)).values).length;
seen.history = (await client.threads.getHistory(threadId, { limit: 3 })).length;
seen.found = (await client.threads.search({ metadata: { team: "js" } })).map((thread) => thread.thread_id === threadId);
seen.waited = said(await client.runs.wait(threadId, "agent", { input: saying("more") })).at(-1);
const run = await client.runs.create(threadId, "agent", { input: saying("forever") });
await client.runs.cancel(threadId, run.run_id, true);
seen.cancelled = (await client.runs.get(threadId, run.run_id)).status;
try {
  await client.runs.wait(threadId, "agent", { input: saying("boom") });
} catch (error) {
  seen.error = error.message;
}
await client.store.putItem(["js"], "key", { value: 1 });
seen.item = (await client.store.getItem(["js"], "key")).value;
const cron = await client.crons.create("agent", { schedule: "0 0 1 1 *", input: saying("hi") });
seen.cron = cron.schedule;
await client.crons.delete(cron.cron_id);
await client.threads.delete(threadId);

// Protocol v2
const thread = client.threads.stream({ assistantId: "agent" });
await thread.run.start({ input: saying("hi") });
const texts = [];
for await (const message of thread.messages) {
  let text = "";
  for await (const token of message.text) text += token;
  texts.push(text);
}
seen.streamed = texts;
seen.output = said(await thread.output).length;
await thread.close();

console.log(JSON.stringify(seen));
process.exit(0);
