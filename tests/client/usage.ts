// Compiled, never run: what the types of the client allow and what they refuse.

import { connect, comesBack, PulseError, type Handlers, type Pulse } from "../../gpulse/static/gpulse/gpulse";

interface Line {
  text: string;
}

const pulse: Pulse = connect("/rooms/lobby/socket", { csrfToken: () => "token", queue: 10, timeout: 60 });
connect(new URL("https://site.example/socket"), { WebSocket, fetch, window, now: Date.now });
connect("socket", { WebSocket: null, fetch: null, csrfToken: "token" });

const stop: () => void = pulse.on("state", ({ state, attempt, transport, retryIn, code, reason }) => {
  const name: "connecting" | "open" | "waiting" | "offline" | "closed" = state;
  const numbers: (number | undefined)[] = [attempt, retryIn, code];
  const texts: (string | null | undefined)[] = [name, transport, reason];
  void [numbers, texts];
});
pulse.on("push", (data) => data.anything);
stop();

const handlers: Handlers<Line> = {
  since: "e-1",
  presence: true,
  onEvent: (line, { position, channel }) => void [line.text.length, position?.length, channel.length],
  onSubscribed: ({ recovered, missed, members, again }) => void [recovered, missed, members?.length, again],
  onJoin: (member) => void member.length,
  onLeave: (member) => void member.length,
  onMembers: (members) => members.sort(),
  onGap: ({ position }) => void position?.length,
  onError: ({ code, retryAfter, message }) => void [code, retryAfter, message],
};
const room = pulse.subscribe("room:lobby", handlers);
pulse.subscribe<Line>("other", { since: room.position, onEvent: ({ text }) => void text.length });
void [room.members.length, room.channel.length];
room.close();

async function say(): Promise<number> {
  try {
    return (await pulse.send<Line>({ text: "hello" }, { key: "k", timeout: 5 })).text.length;
  } catch (error) {
    if (error instanceof PulseError && error.code === "timeout") return error.retryAfter ?? 0;
    throw error;
  }
}
pulse.presence("room:lobby").then((members) => members["ann"] + 1, say);
pulse.reconnect();
pulse.close();
const verdict: "no" | "now" | "later" = comesBack(1012);
void verdict;

// @ts-expect-error there is no such event
pulse.on("error", () => {});
// @ts-expect-error nor such an option
connect("socket", { retries: 3 });
// @ts-expect-error nor such a handler
pulse.subscribe("a", { onMessage: () => {} });
// @ts-expect-error a state is told, not set
pulse.state = "open";
// @ts-expect-error a channel has a name
pulse.subscribe();
// @ts-expect-error every error has its cause
if (new PulseError("x", "closed").code === "never") stop();
