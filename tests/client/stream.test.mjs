/* Without a WebSocket: an event stream and POSTs, and the way back. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Ground, confirmation, event, recorder, settle } from "./fakes.mjs";

test("two WebSockets that never opened, then a stream", async () => {
  const ground = await Ground.streaming();
  assert.equal(ground.sockets.length, 2);
  assert.equal(ground.server.stream.headers.Accept, "text/event-stream");
  const { url } = ground.server.stream;
  assert.equal(url.origin + url.pathname, "https://site.example/rooms/lobby/socket");
  assert.equal(url.searchParams.get("a"), "1", "its own parameters stay");
  assert.equal(ground.last.transport, "stream");
  assert.equal(ground.last.state, "open");
});

for (const code of [1012, 1013]) {
  test(`a server that closes with ${code} before its welcome is no blocked WebSocket`, async () => {
    const ground = new Ground();
    await settle();
    for (let turn = 0; turn < 4; turn++) {
      await ground.socket.end(code);
      await ground.retry();
    }
    assert.equal(ground.server.streams.length, 0);
  });
}

test("a WebSocket that opens again and again is no reason for a stream", async () => {
  const ground = await Ground.open();
  for (let turn = 0; turn < 4; turn++) {
    await ground.socket.end(1006);
    await ground.retry();
    await ground.socket.welcome();
  }
  assert.equal(ground.server.streams.length, 0);
});

test("without fetch there is no stream, without WebSocket nothing else", async () => {
  const sockets = new Ground({ fetch: null });
  await settle();
  for (let turn = 0; turn < 4; turn++) {
    await sockets.socket.end(1006);
    await sockets.retry();
  }
  assert.equal(sockets.sockets.length, 5);
  const streams = new Ground({ WebSocket: null });
  await settle();
  await streams.server.stream.welcome();
  assert.equal(streams.last.transport, "stream");
  await streams.server.stream.end();
  await streams.retry();
  await streams.server.stream.welcome();
  assert.equal(streams.last.state, "open");
  await streams.window.pass(20);
});

test("has its channels in the URL and gets events, confirmations and notes", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => {
    pulse.subscribe("a", { ...all, presence: true });
    pulse.subscribe("b", { since: "e-3" });
  });
  const { stream } = ground.server;
  assert.deepEqual(stream.channels, { a: null, b: "e-3" });
  assert.deepEqual(stream.presence, ["a"]);
  await stream.say({ ...confirmation(0, "a"), members: { ann: 1 } });
  await stream.write(`id: a e-1\ndata: ${JSON.stringify(event("a", "e-1", "hé"))}\n\n:\n\n`);
  await stream.say({ type: "leave", channel: "a", member: "ann" });
  assert.deepEqual(
    calls.map(([name]) => name),
    ["onSubscribed", "onMembers", "onEvent", "onLeave", "onMembers"],
  );
  assert.equal(calls[2][1], "hé");
});

test("pieces may be cut anywhere, and data may have several lines", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => pulse.subscribe("a", all));
  const { stream } = ground.server;
  await stream.say(confirmation(0, "a"));
  const pretty = JSON.stringify(event("a", null, { a: [1, 2] }), null, 1);
  const text = pretty.split("\n").map((line) => `data: ${line}\n`).join("") + "\n";
  for (const character of text) await stream.write(character);
  assert.deepEqual(calls.at(-1)[1], { a: [1, 2] });
});

test("changed subscriptions make one new stream, from the last positions", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => pulse.subscribe("a", all));
  const first = ground.server.stream;
  await first.say(confirmation(0, "a"), event("a", "e-1", 1));
  const told = ground.states.length;
  ground.pulse.subscribe("b");
  const third = ground.pulse.subscribe("c");
  await ground.window.pass(0);
  assert.equal(ground.server.streams.length, 2);
  assert.ok(first.gone);
  await ground.server.stream.welcome();
  await ground.server.stream.say({ ...confirmation(0, "a"), position: "e-1", recovered: true });
  await ground.server.stream.say(event("a", "e-1", 1), event("a", "e-2", 2));
  third.close();
  await ground.window.pass(0);
  assert.deepEqual(ground.server.stream.channels, { a: "e-2", b: null });
  assert.deepEqual(calls.filter(([name]) => name === "onEvent").map(([, data]) => data), [1, 2]);
  assert.equal(ground.states.length, told, "the page does not see it blink");
});

test("a new stream that does not come is a lost connection", async () => {
  const ground = await Ground.streaming();
  ground.server.refusal = new TypeError("network error");
  ground.pulse.subscribe("a");
  await ground.window.pass(0);
  assert.equal(ground.last.state, "waiting");
});

test("requests go by POST, one after the other, with the CSRF token of the moment", async () => {
  let token = "one";
  const ground = await Ground.streaming({ csrfToken: () => token });
  const { posts } = ground.server;
  const answers = [ground.pulse.send("a"), ground.pulse.presence("room")];
  await settle();
  assert.equal(posts.length, 1);
  assert.equal(posts[0].url, ground.server.stream.url.href);
  assert.equal(posts[0].headers["X-CSRFToken"], "one");
  assert.equal(posts[0].headers["Content-Type"], "application/json");
  assert.equal(posts[0].frame.data, "a");
  token = "two";
  await posts[0].answer(200, { type: "ok", id: posts[0].frame.id, data: 1 });
  assert.equal(posts[1].headers["X-CSRFToken"], "two");
  await posts[1].answer(200, { type: "ok", id: posts[1].frame.id, data: { ann: 1 } });
  assert.deepEqual(await Promise.all(answers), [1, { ann: 1 }]);
});

test("without a token there is no header", async () => {
  const ground = await Ground.streaming();
  ground.pulse.send("a").catch(() => {});
  await settle();
  assert.ok(!("X-CSRFToken" in ground.server.posts[0].headers));
});

test("a POST that is refused rejects with its status", async () => {
  const ground = await Ground.streaming();
  const answers = [403, 503].map((code) => assert.rejects(ground.pulse.send(code), { code }));
  await settle();
  await ground.server.posts[0].answer(403);
  await ground.server.posts[1].answer(503, null, { "Retry-After": "7" });
  await Promise.all(answers);
  assert.equal(ground.last.state, "open");
});

for (const how of ["breaks", "gets 502", "gets 504"]) {
  test(`a POST that ${how} goes out again with its key after a reconnect`, async () => {
    const ground = await Ground.streaming();
    const answer = ground.pulse.send("a");
    await settle();
    const [post] = ground.server.posts;
    if (how === "breaks") post.fail(new TypeError("network error"));
    else await post.answer(+how.slice(5));
    await settle();
    assert.equal(ground.last.state, "waiting");
    await ground.retry();
    await ground.server.stream.welcome();
    assert.deepEqual(ground.server.posts[1].frame, post.frame);
    await ground.server.posts[1].answer(200, { type: "ok", id: post.frame.id, data: "once" });
    assert.equal(await answer, "once");
  });
}

const FINAL = { 400: 4400, 401: 4401, 403: 4403, 404: 4404, 405: 4405, 501: 4501 };
for (const [status, code] of Object.entries(FINAL)) {
  test(`a stream refused with ${status} is the end for good`, async () => {
    const ground = new Ground({ WebSocket: null });
    ground.server.refusal = +status;
    await settle();
    assert.deepEqual([ground.last.state, ground.last.code], ["closed", code]);
    await ground.window.pass(600);
    assert.equal(ground.window.timers.size, 0);
  });
}

for (const status of [408, 429, 500, 502, 503]) {
  test(`a stream refused with ${status} is tried again, not before Retry-After`, async () => {
    const ground = new Ground({ WebSocket: null });
    ground.server.refusal = { status, headers: status === 503 ? { "Retry-After": "20" } : {} };
    await settle();
    assert.equal(ground.last.state, "waiting");
    assert.equal(ground.last.retryIn, status === 503 ? 21 : 4);
    ground.server.refusal = null;
    await ground.retry();
    assert.equal(ground.server.streams.length, 1);
  });
}

test("a stream that is one too many for its user waits until there is room", async () => {
  const ground = new Ground({ WebSocket: null });
  ground.server.refusal = { status: 429, headers: { "Retry-After": "10" } };
  await settle();
  for (let turn = 0; turn < 3; turn++) {
    assert.deepEqual([ground.last.state, ground.last.code], ["waiting", 4429]);
    assert.ok(ground.last.retryIn >= 10);
    await ground.window.show("visible");
    await ground.retry();
  }
  ground.server.refusal = null;
  await ground.retry();
  await ground.server.stream.welcome();
  assert.equal(ground.last.state, "open");
});

test("the page of somebody else, as in a hotel, is no stream and no refusal", async () => {
  const ground = new Ground({ WebSocket: null });
  ground.server.refusal = { status: 200, headers: { "Content-Type": "text/html" }, body: "pay" };
  await settle();
  assert.deepEqual([ground.last.state, ground.last.code], ["waiting", 1014]);
});

test("the close code of a stream is in its last comment", async () => {
  for (const [text, state, code] of [
    [": closed 4401 logged out\n\n", "closed", 4401],
    [": closed 1012 \n\n", "waiting", 1012],
  ]) {
    const ground = await Ground.streaming();
    await ground.server.stream.write(text);
    assert.deepEqual([ground.last.state, ground.last.code], [state, code]);
    assert.ok(ground.server.stream.gone);
  }
});

test("comments keep a quiet stream alive, silence ends it", async () => {
  const quiet = new Ground({ WebSocket: null });
  await settle();
  await quiet.server.stream.welcome();
  for (let turn = 0; turn < 8; turn++) {
    await quiet.window.pass(15);
    await quiet.server.stream.write(":\n\n");
  }
  assert.equal(quiet.last.state, "open");
  await quiet.window.show("visible");
  await quiet.window.pass(24);
  assert.equal(quiet.last.state, "open");
  await quiet.window.pass(11);
  assert.equal(quiet.last.state, "waiting");
  assert.ok(quiet.server.stream.gone);
});

test("a WebSocket takes over when the network lets one through", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => pulse.subscribe("a", all));
  const { stream } = ground.server;
  await stream.say(confirmation(0, "a"), event("a", "e-1", 1));
  const told = ground.states.length;
  await ground.window.pass(16);
  assert.equal(ground.sockets.length, 3, "beside the stream");
  assert.ok(!stream.gone);
  await stream.say(event("a", "e-2", 2));
  await ground.socket.welcome();
  assert.ok(stream.gone);
  assert.equal(ground.socket.asked("subscribe").since, "e-2");
  await ground.confirm("a", { position: "e-3", recovered: true, missed: 1 });
  await ground.socket.say(event("a", "e-3", 3));
  assert.deepEqual(calls.filter(([name]) => name === "onEvent").map(([, data]) => data), [1, 2, 3]);
  assert.equal(ground.states.length, told);
  await ground.socket.end(1006);
  await ground.retry();
  assert.equal(ground.sockets.length, 4, "and stays the first choice");
});

test("a POST under way is sent again by the WebSocket that takes over", async () => {
  const ground = await Ground.streaming();
  const answer = ground.pulse.send("a");
  await ground.window.pass(16);
  const [{ frame }] = ground.server.posts;
  await ground.socket.welcome();
  assert.deepEqual(ground.socket.asked("send"), frame);
  await ground.socket.say({ type: "ok", id: frame.id, data: 1 });
  assert.equal(await answer, 1);
});

test("a WebSocket that is still blocked is tried less and less often", async () => {
  const ground = await Ground.streaming();
  const tries = [];
  let made = ground.sockets.length;
  for (let second = 0; second < 1600; second++) {
    if (second % 15 === 0) await ground.server.stream.write(":\n\n");
    await ground.window.pass(1);
    if (ground.sockets.length === made) continue;
    made = ground.sockets.length;
    tries.push(second);
    if (tries.length % 2) await ground.socket.end(1006); // the others just hang
  }
  assert.equal(ground.last.state, "open");
  const waits = tries.map((at, index) => at - (tries[index - 1] ?? 0));
  assert.deepEqual(waits.map((each) => Math.round(each / 5) * 5), [15, 60, 235, 225, 235, 225, 235, 225]);
});

test("a server that was away is tried both ways in turn", async () => {
  const ground = new Ground();
  ground.server.refusal = new TypeError("network error");
  await settle();
  const kinds = [];
  for (let turn = 0; turn < 6; turn++) {
    const made = ground.sockets.length;
    if (ground.last.state === "connecting") await ground.socket.end();
    await ground.window.pass(ground.last.retryIn);
    kinds.push(ground.sockets.length > made ? "websocket" : "stream");
  }
  assert.deepEqual(kinds, ["websocket", "stream", "websocket", "stream", "websocket", "stream"]);
});

test("offline tries do not count as blocked", async () => {
  const ground = new Ground();
  ground.window.navigator.onLine = false;
  await settle();
  for (let turn = 0; turn < 4; turn++) {
    await ground.window.pass(30);
    await ground.socket.end(1006); // and the network stays away
  }
  assert.equal(ground.sockets.length, 4);
  assert.equal(ground.server.streams.length, 0);
});

test("the end for good ends the stream and what is under way", async () => {
  const ground = await Ground.streaming();
  const answer = assert.rejects(ground.pulse.send("a"), { code: "closed" });
  await settle();
  ground.pulse.close();
  await answer;
  assert.ok(ground.server.stream.gone);
  assert.equal(ground.window.timers.size, 0);
});

test("a WebSocket that is being tried is left when the stream ends", async () => {
  const ground = await Ground.streaming();
  await ground.window.pass(16);
  assert.equal(ground.sockets.length, 3);
  await ground.server.stream.end();
  assert.equal(ground.socket.closed, 1000);
  await ground.socket.welcome();
  assert.equal(ground.last.state, "waiting", "it is not heard any more");
});

test("a channel that is no longer open to us when a new stream is made", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => pulse.subscribe("a", all));
  await ground.server.stream.say(confirmation(0, "a"));
  ground.pulse.subscribe("b");
  await ground.window.pass(0);
  const { stream } = ground.server;
  await stream.welcome();
  await stream.say({ type: "error", id: 0, channel: "a", code: 403, reason: "not any more" });
  assert.equal(calls.at(-1)[1].message, "not any more");
});

test("a channel that the server refuses within a stream is told alone", async () => {
  const { calls, all } = recorder();
  const ground = await Ground.streaming({}, (pulse) => pulse.subscribe("a", all));
  await ground.server.stream.say({
    type: "error",
    id: 0,
    channel: "a",
    code: 403,
    reason: "not open to you",
  });
  assert.deepEqual(calls.map(([name, error]) => [name, error.code]), [["onError", 403]]);
  assert.equal(ground.last.state, "open");
});

test("where a user has one connection, the WebSocket that is tried replaces the stream", async () => {
  const ground = await Ground.streaming();
  const told = ground.states.length;
  await ground.window.pass(16);
  await ground.server.stream.write(": closed 4409 replaced\n\n");
  assert.equal(ground.socket.closed, null);
  await ground.socket.welcome();
  assert.equal(ground.pulse.state, "open");
  assert.equal(ground.states.length, told);
  await ground.socket.end(4409, "replaced");
  assert.equal(ground.last.state, "closed", "by another page");
});

test("and a WebSocket that replaced the stream has a time limit, too", async () => {
  const ground = await Ground.streaming();
  await ground.window.pass(16);
  await ground.server.stream.write(": closed 4409 replaced\n\n");
  await ground.window.pass(11);
  assert.equal(ground.last.state, "waiting");
});
