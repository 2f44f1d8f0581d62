// A chat of a few lines with @langchain/react, as its makers show it. `?service=` is the service's address.
import { useState } from "react";
import { createRoot } from "react-dom/client";
import { useStream } from "@langchain/react";

const apiUrl = new URLSearchParams(location.search).get("service");

function Chat() {
  const stream = useStream({ assistantId: "agent", apiUrl });
  const [text, setText] = useState("");
  const send = () => void stream.submit({ messages: [{ type: "human", content: text }] });
  return (
    <main data-loading={String(stream.isLoading)}>
      <ol>
        {stream.messages.map((message, number) => (
          <li key={message.id ?? number} className={message.type}>
            {message.text}
          </li>
        ))}
      </ol>
      <input value={text} onChange={(event) => setText(event.target.value)} />
      <button id="send" onClick={send}>Send</button>
      {stream.interrupt && (
        <button id="approve" onClick={() => void stream.respond("yes")}>{JSON.stringify(stream.interrupt.value)}</button>
      )}
      {stream.error != null && <p id="error">{String(stream.error)}</p>}
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
