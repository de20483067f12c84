/* Channels: recovery, order, presence, gaps. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Ground, confirmation, event, recorder, settle } from "./fakes.mjs";

const named = (calls, name) => calls.filter(([each]) => each === name).map(([, first]) => first);

test("subscribes once connected, with the position that the page knows", async () => {
  const ground = new Ground();
  ground.pulse.subscribe("room:a", { since: "e-3", presence: true });
  ground.pulse.subscribe("room:b");
  await settle();
  await ground.socket.welcome();
  assert.deepEqual(ground.socket.sent, [
    { type: "subscribe", id: 1, channel: "room:a", since: "e-3", presence: true },
    { type: "subscribe", id: 2, channel: "room:b" },
  ]);
});

test("tells what the server confirmed, then events with their positions", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe("a", {}, { position: "e-7" });
  assert.equal(subscription.position, "e-7");
  await ground.socket.say(event("a", "e-8", { text: "x" }), event("b", "e-9", "not ours"));
  assert.deepEqual(calls, [
    [
      "onSubscribed",
      { position: "e-7", recovered: null, missed: 0, members: undefined, again: false },
    ],
    ["onEvent", { text: "x" }, { position: "e-8", channel: "a" }],
  ]);
  assert.equal(subscription.position, "e-8");
});

test("after a reconnect asks for what came after the last event, and gets it once", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe("a");
  await ground.socket.say(event("a", "e-1", 1), event("a", "e-2", 2));
  await ground.socket.end(1006);
  await ground.window.pass(2);
  await ground.socket.welcome();
  assert.equal(ground.socket.asked("subscribe").since, "e-2");
  await ground.confirm("a", { position: "e-4", recovered: true, missed: 2 });
  assert.equal(subscription.position, "e-2", "the missed ones are yet to come");
  await ground.socket.say(event("a", "e-3", 3));
  await ground.socket.end(1006);
  await ground.window.pass(4);
  await ground.socket.welcome();
  assert.equal(ground.socket.asked("subscribe").since, "e-3", "lost in the middle of a recovery");
  await ground.confirm("a", { position: "e-4", recovered: true, missed: 1 });
  await ground.socket.say(event("a", "e-4", 4), event("a", "e-4", 4), event("a", "e-3", 3));
  await ground.socket.say(event("a", "e-5", 5));
  assert.deepEqual(named(calls, "onEvent"), [1, 2, 3, 4, 5]);
  assert.deepEqual(named(calls, "onGap"), []);
  assert.deepEqual(
    named(calls, "onSubscribed").map(({ again, missed }) => [again, missed]),
    [[false, 0], [true, 2], [true, 1]],
  );
});

test("offsets are numbers, and a new epoch begins anew", async () => {
  const ground = await Ground.open();
  const { calls } = await ground.subscribe("a", {}, { position: "e-9" });
  await ground.socket.say(event("a", "e-10", "ten"), event("a", "f-1", "new"), event("a", "f-1", "?"));
  assert.deepEqual(named(calls, "onEvent"), ["ten", "new"]);
});

test("a channel without history: every event comes, and a reconnect is a gap", async () => {
  const ground = await Ground.open();
  const { calls } = await ground.subscribe("a", {}, { position: null });
  await ground.socket.say(event("a", null, 1), event("a", null, 1));
  assert.deepEqual(named(calls, "onEvent"), [1, 1]);
  assert.deepEqual(named(calls, "onGap"), []);
  await ground.socket.end(1012);
  await ground.window.pass(2);
  await ground.socket.welcome();
  assert.equal(ground.socket.asked("subscribe").since, undefined);
  await ground.confirm("a", { position: null });
  assert.deepEqual(named(calls, "onGap"), [{ position: null }]);
});

test("a history that reaches back no longer is a gap, at the first time, too", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe(
    "a",
    { since: "old-3" },
    { position: "e-50", recovered: false },
  );
  assert.deepEqual(calls.map(([name]) => name), ["onSubscribed", "onGap"]);
  await ground.socket.say(event("a", "e-51", "next"));
  assert.equal(subscription.position, "e-51");
});

test("the server's gap, and one that only the offsets show", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe("a", {}, { position: "e-1" });
  await ground.socket.say({ type: "gap", channel: "a", position: "e-5" });
  assert.equal(subscription.position, "e-5");
  await ground.socket.say({ type: "gap", channel: "a", position: null });
  assert.equal(subscription.position, "e-5");
  await ground.socket.say(event("a", "e-6", 6), event("a", "e-9", 9));
  assert.deepEqual(
    calls.slice(1).map(([name, first]) => [name, first.position ?? first]),
    [
      ["onGap", "e-5"],
      ["onGap", { position: null }],
      ["onEvent", 6],
      ["onGap", "e-9"],
      ["onEvent", 9],
    ],
  );
});

test("binary messages are bytes", async () => {
  const ground = await Ground.open();
  const { calls } = await ground.subscribe("a");
  await ground.socket.say({ type: "event", channel: "a", position: null, base64: "AP8=" });
  assert.deepEqual(calls.at(-1)[1], Uint8Array.of(0, 255));
  await ground.socket.say({ type: "event", channel: "a", position: null, base64: "" });
  assert.deepEqual(calls.at(-1)[1], new Uint8Array());
});

test("presence: a roster, who comes, who goes, each once", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe(
    "a",
    { presence: true },
    { members: { ann: 2, bob: 1 } },
  );
  assert.deepEqual(subscription.members, ["ann", "bob"]);
  const note = (type, member) => ({ type, channel: "a", member });
  await ground.socket.say(note("join", "bob"), note("join", "eve"), note("leave", "ann"));
  await ground.socket.say(note("leave", "nobody"));
  assert.deepEqual(calls, [
    ["onSubscribed", { ...named(calls, "onSubscribed")[0], members: ["ann", "bob"] }],
    ["onMembers", ["ann", "bob"]],
    ["onJoin", "eve"],
    ["onMembers", ["ann", "bob", "eve"]],
    ["onLeave", "ann"],
    ["onMembers", ["bob", "eve"]],
  ]);
});

test("names of members are only names", async () => {
  const ground = await Ground.open();
  const members = JSON.parse('{"__proto__": 1, "constructor": 1}');
  const { subscription } = await ground.subscribe("a", { presence: true }, { members });
  assert.deepEqual(subscription.members, ["__proto__", "constructor"]);
});

test("after a gap the roster is asked for anew", async () => {
  const ground = await Ground.open();
  const { subscription } = await ground.subscribe("a", { presence: true }, { members: { ann: 1 } });
  await ground.socket.say({ type: "gap", channel: "a", position: null });
  const { id, channel } = ground.socket.asked("presence");
  assert.equal(channel, "a");
  await ground.socket.say({ type: "ok", id, data: { bob: 1 } });
  assert.deepEqual(subscription.members, ["bob"]);
});

test("a refusal ends one subscription and says why", async () => {
  const ground = await Ground.open();
  const { calls, all } = recorder();
  ground.pulse.subscribe("secret", all);
  const { id } = ground.socket.asked("subscribe");
  await ground.socket.say({ type: "error", id, code: 403, reason: "not open to you" });
  const [[name, error]] = calls;
  assert.deepEqual([name, error.code, error.message], ["onError", 403, "not open to you"]);
  assert.equal(ground.last.state, "open");
  ground.pulse.subscribe("secret", all).close(); // no longer taken
  const asked = ground.socket.sent.length;
  await ground.window.pass(100);
  assert.deepEqual(ground.socket.sent.slice(asked).filter(({ type }) => type !== "ping"), []);
});

test("a passing failure is tried again after the time that the server names", async () => {
  const ground = await Ground.open();
  const { calls, all } = recorder();
  ground.pulse.subscribe("a", all);
  ground.chance = 0;
  const refuse = async (more) => {
    const { id } = ground.socket.asked("subscribe");
    await ground.socket.say({ type: "error", id, reason: "no store", ...more });
  };
  await refuse({ code: 503, retry_after: 5 });
  await ground.window.pass(4.9);
  assert.equal(ground.socket.sent.length, 1);
  await ground.window.pass(0.2);
  assert.equal(ground.socket.sent.length, 2);
  ground.chance = 0.5;
  await refuse({ code: 500 });
  await ground.window.pass(1.9);
  assert.equal(ground.socket.sent.length, 2, "the wait grows");
  await ground.window.pass(0.2);
  await ground.confirm("a");
  assert.deepEqual(calls.map(([name]) => name), ["onSubscribed"]);
});

test("a subscription that is never confirmed is asked for again", async () => {
  const ground = await Ground.open();
  ground.pulse.subscribe("a");
  const first = ground.socket.asked("subscribe").id;
  await ground.window.pass(14);
  await ground.socket.say({ type: "pong" });
  await ground.window.pass(2);
  assert.equal(ground.socket.asked("subscribe").id, first + 1);
  await ground.confirm("a");
  await ground.window.pass(16);
  assert.equal(ground.socket.asked("subscribe").id, first + 1);
});

test("a closed subscription hears nothing, and may be made anew at once", async () => {
  const ground = await Ground.open();
  const { subscription, calls } = await ground.subscribe("a");
  calls.length = 0;
  subscription.close();
  subscription.close();
  assert.equal(ground.socket.sent.filter(({ type }) => type === "unsubscribe").length, 1);
  const again = recorder();
  ground.pulse.subscribe("a", again.all);
  await ground.socket.say(event("a", "e-1", "for the first one"));
  assert.deepEqual([calls, again.calls], [[], []]);
  await ground.socket.say(confirmation(1, "a"));
  assert.deepEqual(again.calls, [], "that was the answer to the first");
  await ground.confirm("a");
  await ground.socket.say(event("a", "e-2", "two"));
  assert.deepEqual(named(again.calls, "onEvent"), ["two"]);
});

test("two subscriptions of one channel are a mistake", async () => {
  const ground = await Ground.open();
  ground.pulse.subscribe("a");
  assert.throws(() => ground.pulse.subscribe("a"), /a is subscribed to already/);
});

test("a handler that throws loses no event of its own or another channel", async () => {
  const ground = await Ground.open();
  const seen = [];
  const { subscription } = await ground.subscribe("a", {
    onEvent(data) {
      seen.push(data);
      throw new Error("mine");
    },
  });
  await ground.socket.say(event("a", "e-1", 1), event("a", "e-2", 2));
  assert.deepEqual(seen, [1, 2]);
  assert.equal(subscription.position, "e-2");
  assert.equal(ground.window.reported.length, 2);
  assert.equal(ground.last.state, "open");
});

test("without reportError() the error is thrown where nothing depends on it", async (t) => {
  const ground = await Ground.open();
  ground.window.reportError = undefined;
  const { mock } = t.mock.method(globalThis, "queueMicrotask", () => {});
  await ground.subscribe("a", {
    onEvent() {
      throw new Error("mine");
    },
  });
  await ground.socket.say(event("a", "e-1", 1));
  assert.throws(mock.calls[0].arguments[0], /mine/);
  assert.equal(ground.last.state, "open");
});

test("a handler may close its subscription or the client", async () => {
  const ground = await Ground.open();
  const seen = [];
  const { subscription } = await ground.subscribe("a", {
    onEvent(data) {
      seen.push(data);
      if (data === 1) subscription.close();
    },
  });
  await ground.subscribe("b", { onEvent: () => ground.pulse.close() });
  await ground.socket.say(event("a", "e-1", 1), event("a", "e-2", 2), event("b", "e-1", 1));
  await ground.socket.say(event("b", "e-2", 2));
  assert.deepEqual(seen, [1]);
  assert.equal(ground.pulse.state, "closed");
});

test("a subscription or client that is closed by a handler hears no more of the same frame", async () => {
  for (const what of ["subscription", "client"]) {
    const ground = await Ground.open();
    const { calls, all } = recorder({
      onSubscribed() {
        calls.push(["onSubscribed"]);
        if (what === "client") ground.pulse.close();
        else subscription.close();
      },
    });
    const subscription = ground.pulse.subscribe("a", { ...all, since: "e-1", presence: true });
    await ground.confirm("a", { position: "e-9", recovered: false, members: { ann: 1 } });
    assert.deepEqual(calls, [["onSubscribed"]]);
  }
});
