/* Connecting, coming back and staying away. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../gpulse/static/gpulse/gpulse.js";
import { Ground, recorder, settle } from "./fakes.mjs";

test("connects with the subprotocol, and is open when the server says welcome", async () => {
  const ground = new Ground();
  assert.equal(ground.sockets.length, 0, "nothing happens within connect()");
  await settle();
  assert.equal(ground.socket.url, "wss://site.example/rooms/lobby/socket?a=1");
  assert.equal(ground.socket.protocol, "gpulse.v1");
  assert.deepEqual(ground.states, [{ state: "connecting", attempt: 0, transport: null }]);
  await ground.socket.welcome();
  assert.deepEqual(ground.last, { state: "open", attempt: 0, transport: "websocket" });
  assert.equal(ground.pulse.state, "open");
});

test("takes ws: and http: URLs", async () => {
  const seen = [];
  for (const url of ["ws://a/x", "http://a/x", "wss://a/x#y", "https://a/x"]) {
    const pulse = connect(url, {
      WebSocket: class {
        constructor(address) {
          seen.push(address);
        }
        close() {}
      },
    });
    await settle();
    pulse.close();
  }
  assert.deepEqual(seen, ["ws://a/x", "ws://a/x", "wss://a/x", "wss://a/x"]);
});

test("says at once that it cannot work without a WebSocket or fetch", () => {
  assert.throws(() => connect("ws://a/x", { WebSocket: null, fetch: null }), /needs a WebSocket/);
});

test("waits at random, twice as long after each failure, up to a bound", async () => {
  const ground = new Ground({ fetch: null });
  ground.chance = 0.999;
  await settle();
  const waits = [];
  for (let failure = 1; failure < 8; failure++) {
    await ground.socket.end();
    assert.equal(ground.last.state, "waiting");
    assert.equal(ground.last.attempt, failure);
    waits.push(Math.round(ground.last.retryIn));
    const made = ground.sockets.length;
    await ground.window.pass(ground.last.retryIn - 0.01);
    assert.equal(ground.sockets.length, made, "not sooner");
    await ground.window.pass(0.02);
    assert.equal(ground.sockets.length, made + 1);
  }
  assert.deepEqual(waits, [2, 4, 8, 16, 30, 30, 30]);
  ground.chance = 0;
  await ground.socket.end();
  assert.equal(ground.last.retryIn, 0);
});

test("a connection that lives on ends the row of failures, one that fails again does not", async () => {
  const ground = await Ground.open();
  for (const expected of [1, 2, 3]) {
    await ground.socket.end(1012);
    assert.equal(ground.last.attempt, expected);
    await ground.retry();
    await ground.socket.welcome();
    await ground.window.pass(9);
  }
  await ground.window.pass(2);
  await ground.socket.end(1012);
  assert.equal(ground.last.attempt, 1);
});

for (const code of [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403, 4409, 4000, 3999]) {
  test(`does not come back after ${code}`, async () => {
    const ground = await Ground.open();
    await ground.socket.end(code, "because");
    assert.deepEqual(ground.last, {
      state: "closed",
      attempt: 0,
      transport: null,
      code,
      reason: "because",
    });
    await ground.window.pass(600);
    await ground.window.network(false);
    await ground.window.network(true);
    await ground.window.show("visible");
    ground.pulse.reconnect();
    assert.equal(ground.sockets.length, 1);
    assert.equal(ground.window.timers.size, 0);
  });
}

for (const code of [1001, 1006, 1012]) {
  test(`comes back at once, within two seconds, after ${code}`, async () => {
    const ground = await Ground.open();
    await ground.socket.end(code);
    assert.equal(ground.last.retryIn, 1);
    await ground.window.pass(1);
    assert.equal(ground.sockets.length, 2);
  });
}

for (const code of [1005, 1011, 1013, 1014, 4408, 4429, 1099]) {
  test(`comes back later, after three seconds at least, after ${code}`, async () => {
    const ground = await Ground.open();
    ground.chance = 0;
    await ground.socket.end(code);
    assert.equal(ground.last.retryIn, 3);
    await ground.window.show("visible");
    await ground.window.pass(2.9);
    assert.equal(ground.sockets.length, 1, "nothing hurries what the server put off");
    await ground.window.pass(0.2);
    assert.equal(ground.sockets.length, 2);
  });
}

test("gives a server ten seconds to say welcome", async () => {
  const ground = new Ground();
  await settle();
  await ground.window.pass(9.9);
  assert.equal(ground.last.state, "connecting");
  await ground.window.pass(0.2);
  assert.equal(ground.last.state, "waiting");
  assert.equal(ground.socket.closed, 1000);
});

test("asks a silent connection for a sign of life, and leaves a dead one", async () => {
  const ground = await Ground.open();
  await ground.window.pass(24);
  assert.deepEqual(ground.socket.sent, []);
  await ground.window.pass(2);
  assert.deepEqual(ground.socket.sent, [{ type: "ping" }]);
  await ground.socket.say({ type: "pong" });
  await ground.window.pass(30);
  assert.equal(ground.last.state, "open");
  assert.equal(ground.socket.sent.length, 2);
  await ground.window.pass(5);
  assert.deepEqual([ground.last.state, ground.last.code], ["waiting", 1006]);
  const [dead] = ground.sockets;
  await ground.retry();
  await ground.socket.welcome();
  await dead.say({ type: "push", data: "a ghost" });
  await dead.end(4401, "late");
  assert.equal(ground.last.state, "open", "what the dead one still says is not heard");
});

test("a connection on which something comes is not asked", async () => {
  const ground = await Ground.open();
  for (let turn = 0; turn < 6; turn++) {
    await ground.window.pass(20);
    await ground.socket.say({ type: "push", data: turn });
  }
  assert.deepEqual(ground.socket.sent, []);
});

test("an answer that is not JSON ends the connection, not the client", async () => {
  const ground = await Ground.open();
  ground.socket.onmessage({ data: "<html>" });
  assert.equal(ground.last.state, "waiting");
  assert.equal(ground.socket.closed, 1000);
});

test("frames that nobody knows or expects are passed over", async () => {
  const ground = await Ground.open();
  await ground.socket.say(
    { type: "tomorrow" },
    { type: "ok", id: 99 },
    { type: "error", id: 99, code: 400, reason: "?" },
    { type: "event", channel: "no", position: null, data: 1 },
    { type: "subscribed", id: 99, channel: "no" },
    { type: "constructor", channel: "no" },
  );
  assert.equal(ground.last.state, "open");
  assert.deepEqual(ground.window.reported, []);
});

test("offline: leaves at once, comes back at once", async () => {
  const ground = await Ground.open();
  await ground.window.network(false);
  assert.equal(ground.last.state, "offline");
  assert.equal(ground.socket.closed, 1000);
  await ground.window.show("visible");
  assert.equal(ground.sockets.length, 1);
  await ground.window.network(true);
  assert.equal(ground.sockets.length, 2);
  assert.equal(ground.last.state, "connecting");
});

test("a network that is back makes the failures before it forgotten", async () => {
  const ground = new Ground({ fetch: null });
  await settle();
  for (let turn = 0; turn < 5; turn++) {
    await ground.socket.end(1006);
    await ground.retry();
  }
  await ground.window.network(false);
  await ground.window.network(true);
  await ground.socket.end(1006);
  assert.equal(ground.last.attempt, 1);
});

test("begins offline, and tries now and then: browsers are mistaken about that", async () => {
  const ground = new Ground();
  ground.window.navigator.onLine = false;
  await settle();
  assert.equal(ground.last.state, "offline");
  await ground.window.pass(31);
  assert.equal(ground.sockets.length, 1);
  await ground.socket.end();
  assert.equal(ground.last.state, "offline");
  await ground.window.pass(31);
  await ground.socket.welcome();
  assert.equal(ground.last.state, "open");
});

test("a wait ends when the network is back, when the page is looked at, and on demand", async () => {
  const ground = await Ground.open();
  const hurry = [
    () => ground.window.network(true),
    () => ground.window.show("visible"),
    () => ground.pulse.reconnect(),
  ];
  for (const [turn, act] of hurry.entries()) {
    await ground.socket.end(1006);
    assert.equal(ground.last.state, "waiting");
    await ground.window.show("hidden");
    assert.equal(ground.last.state, "waiting");
    await act();
    assert.equal(ground.last.state, "connecting");
    await ground.socket.welcome();
    assert.equal(ground.sockets.length, turn + 2);
  }
  ground.pulse.reconnect();
  assert.equal(ground.sockets.length, 4, "an open one is left alone");
});

test("a page that is looked at again asks at once whether the connection lives", async () => {
  const ground = await Ground.open();
  await ground.window.show("hidden");
  await ground.window.show("visible");
  assert.deepEqual(ground.socket.sent, [{ type: "ping" }]);
  await ground.window.pass(10);
  assert.equal(ground.last.state, "waiting");
});

test("a page kept for going back holds no connection, and gets it back", async () => {
  const ground = await Ground.open();
  await ground.window.turn("pagehide", false);
  assert.equal(ground.socket.closed, null, "a page that is left closes it by itself");
  await ground.window.turn("pagehide", true);
  assert.equal(ground.socket.closed, 1000);
  await ground.window.pass(3600);
  assert.equal(ground.sockets.length, 1);
  await ground.window.turn("pageshow", true);
  await ground.socket.welcome();
  assert.equal(ground.last.state, "open");
});

test("close() is for good and leaves nothing behind", async () => {
  const ground = await Ground.open();
  const waiting = assert.rejects(ground.pulse.send(1), { code: "closed" });
  ground.pulse.close();
  ground.pulse.close();
  await waiting;
  assert.equal(ground.socket.closed, 1000);
  assert.equal(ground.window.timers.size, 0);
  assert.equal(ground.window.listening, 0);
  assert.equal(ground.states.filter(({ state }) => state === "closed").length, 1);
  await assert.rejects(ground.pulse.send(1), { code: "closed" });
  const { calls, all } = recorder();
  ground.pulse.subscribe("late", all);
  assert.deepEqual(calls, [], "not from within subscribe()");
  await settle();
  assert.deepEqual([calls[0][0], calls[0][1].code], ["onError", "closed"]);
});

test("close() before it began", async () => {
  const ground = new Ground();
  ground.pulse.close();
  await settle();
  assert.equal(ground.sockets.length, 0);
  assert.equal(ground.last.state, "closed");
});

test("a listener may close the client whenever it is called", async () => {
  for (const when of ["connecting", "open", "waiting"]) {
    const ground = new Ground();
    ground.pulse.on("state", ({ state }) => state === when && ground.pulse.close());
    await settle();
    if (when !== "connecting") await ground.socket.welcome();
    if (when === "waiting") await ground.socket.end();
    assert.equal(ground.pulse.state, "closed");
    assert.equal(ground.socket.closed, 1000);
    assert.equal(ground.window.timers.size, 0);
  }
});

test("a listener that throws is reported and harms nobody", async () => {
  const ground = new Ground();
  const heard = [];
  const off = ground.pulse.on("push", () => {
    throw new Error("mine");
  });
  ground.pulse.on("push", (data) => heard.push(data));
  await settle();
  await ground.socket.welcome();
  await ground.socket.say({ type: "push", data: { a: 1 } });
  assert.deepEqual(heard, [{ a: 1 }]);
  assert.deepEqual(ground.window.reported.map(String), ["Error: mine"]);
  off();
  await ground.socket.say({ type: "push", data: 2 });
  assert.equal(ground.window.reported.length, 1);
});

test("a WebSocket that the browser does not let us make is one that never opened", async () => {
  class WebSocket {
    constructor() {
      throw new Error("insecure");
    }
  }
  const ground = new Ground({ WebSocket });
  await settle();
  assert.deepEqual(
    [ground.last.state, ground.last.code, ground.last.reason],
    ["waiting", 1006, "Error: insecure"],
  );
  await ground.retry();
  await ground.retry();
  await ground.server.stream.welcome();
  assert.equal(ground.last.transport, "stream");
});

test("a welcome that names no time for the ping", async () => {
  const ground = new Ground();
  await settle();
  await ground.socket.say({ type: "welcome" });
  await ground.window.pass(26);
  assert.deepEqual(ground.socket.sent, [{ type: "ping" }]);
});
