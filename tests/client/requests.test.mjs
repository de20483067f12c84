/* What the page sends: acknowledged, queued, sent again. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { PulseError } from "../../gpulse/static/gpulse/gpulse.js";
import { Ground, settle } from "./fakes.mjs";

test("a message is acknowledged with what the server answers", async () => {
  const ground = await Ground.open();
  const answer = ground.pulse.send({ text: "hello" });
  const { id, key, ...rest } = ground.socket.asked("send");
  assert.deepEqual(rest, { type: "send", data: { text: "hello" } });
  assert.match(key, /^[0-9a-f]{32}$/);
  await ground.socket.say({ type: "ok", id, data: { number: 7 } });
  assert.deepEqual(await answer, { number: 7 });
  assert.equal(ground.window.timers.size, 1, "only the connection is watched");
});

test("a refusal rejects with code, reason, time and key", async () => {
  const ground = await Ground.open();
  const answer = ground.pulse.send("x", { key: "mine" });
  const { id } = ground.socket.asked("send");
  const refusal = { type: "error", id, code: 429, reason: "slow down", retry_after: 1.5 };
  await Promise.all([
    ground.socket.say(refusal),
    assert.rejects(answer, (error) => {
      assert.ok(error instanceof PulseError && error instanceof Error);
      const { name, message, code, retryAfter, key } = error;
      assert.deepEqual(
        [name, message, code, retryAfter, key],
        ["PulseError", "slow down", 429, 1.5, "mine"],
      );
      return true;
    }),
  ]);
  await ground.window.pass(20);
  assert.equal(ground.socket.sent.filter(({ type }) => type === "send").length, 1);
});

test("what is sent without a connection goes out when there is one, in order", async () => {
  const ground = new Ground();
  const first = ground.pulse.send(1);
  ground.pulse.send(2).catch(() => {});
  await settle();
  ground.pulse.send(3).catch(() => {});
  assert.deepEqual(ground.socket.sent, []);
  ground.pulse.subscribe("a");
  await ground.socket.welcome();
  assert.deepEqual(
    ground.socket.sent.map(({ type, data }) => data ?? type),
    ["subscribe", 1, 2, 3],
  );
  await ground.socket.say({ type: "ok", id: 1, data: null });
  assert.equal(await first, null);
});

test("what was not acknowledged goes out again with its key, the rest does not", async () => {
  const ground = await Ground.open();
  const answers = [1, 2, 3].map((data) => ground.pulse.send(data));
  const sent = ground.socket.sent.slice();
  await ground.socket.say({ type: "ok", id: sent[1].id, data: "two" });
  await ground.socket.end(1006);
  const late = ground.pulse.send(4);
  await ground.window.pass(2);
  await ground.socket.welcome();
  const again = ground.socket.sent;
  assert.deepEqual(again.slice(0, 2), [sent[0], sent[2]]);
  assert.equal(again[2].data, 4);
  for (const { id, data } of again) await ground.socket.say({ type: "ok", id, data: -data });
  assert.deepEqual(await Promise.all([...answers, late]), [-1, "two", -3, -4]);
});

test("data are taken as they are when they are sent", async () => {
  const ground = new Ground();
  const data = { text: "now" };
  ground.pulse.send(data).catch(() => {});
  data.text = "later";
  await settle();
  await ground.socket.welcome();
  assert.equal(ground.socket.asked("send").data.text, "now");
});

test("what JSON cannot say rejects and takes no place", async () => {
  const ground = await Ground.open({ queue: 1 });
  await assert.rejects(ground.pulse.send(1n), TypeError);
  ground.pulse.send(1).catch(() => {});
  assert.equal(ground.socket.asked("send").data, 1);
});

test("the queue is bounded, sent and unsent alike", async () => {
  const ground = await Ground.open({ queue: 2 });
  const first = ground.pulse.send(1);
  ground.pulse.send(2).catch(() => {});
  await assert.rejects(ground.pulse.send(3, { key: "k" }), { code: "full", key: "k" });
  await ground.socket.say({ type: "ok", id: ground.socket.sent[0].id });
  await first;
  ground.pulse.send(4).catch(() => {});
  assert.deepEqual(ground.socket.sent.map(({ data }) => data), [1, 2, 4]);
});

test("an answer has a deadline, with and without a connection", async () => {
  const ground = await Ground.open();
  const fails = (answer) => assert.rejects(answer, { code: "timeout" });
  const waiting = [fails(ground.pulse.send(1)), fails(ground.pulse.send(2, { timeout: 5 }))];
  await ground.window.pass(5);
  await waiting[1];
  await ground.socket.end(1006);
  await ground.window.pass(116);
  await waiting[0];
  const made = ground.sockets.length;
  await ground.window.pass(60);
  ground.pulse.reconnect();
  await ground.socket.welcome();
  assert.ok(ground.sockets.length > made);
  assert.equal(ground.socket.asked("send"), undefined, "it is not sent after its time");
});

test("an answer that comes too late is passed over", async () => {
  const ground = await Ground.open();
  const answer = assert.rejects(ground.pulse.send(1, { timeout: 1 }), { code: "timeout" });
  await ground.window.pass(1);
  await answer;
  await ground.socket.say({ type: "ok", id: 1, data: 1 }, { type: "error", id: 1, code: 500 });
  assert.equal(ground.last.state, "open");
});

test("presence() is the roster with its connections", async () => {
  const ground = await Ground.open();
  const roster = ground.pulse.presence("a");
  assert.deepEqual(ground.socket.sent, [{ type: "presence", channel: "a", id: 1 }]);
  await ground.socket.say({ type: "ok", id: 1, data: { ann: 2 } });
  assert.deepEqual(await roster, { ann: 2 });
});

test("the end for good rejects what waits, and a sender that tries again is told at once", async () => {
  const ground = await Ground.open();
  const codes = [];
  const persist = (left) =>
    ground.pulse.send(1).catch(({ code, message }) => {
      codes.push(code, message);
      return left && persist(left - 1);
    });
  const waiting = persist(2);
  await ground.socket.end(4401, "logged out");
  await waiting;
  assert.deepEqual(codes.filter((each) => each === "closed").length, 3);
  assert.equal(codes[1], "closed: logged out");
});
