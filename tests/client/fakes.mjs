/* What the client runs on, written for its tests: time, a page, sockets and HTTP that do as told. */

import { connect } from "../../gpulse/static/gpulse/gpulse.js";

/* Lets promises that can go on go on. */
export async function settle() {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  await new Promise((resolve) => setImmediate(resolve));
}

/* A window: its time stands still but for pass(). */
export class FakeWindow extends EventTarget {
  time = 1_000_000;
  timers = new Map();
  count = 0;
  reported = [];
  navigator = { onLine: true };
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  location = { href: "https://site.example/rooms/" };
  crypto = globalThis.crypto;

  now = () => this.time;
  reportError = (error) => this.reported.push(error);

  setTimeout(act, ms) {
    this.timers.set(++this.count, { at: this.time + ms, act });
    return this.count;
  }

  clearTimeout(id) {
    this.timers.delete(id);
  }

  /* Run what is due within so many seconds, in order. */
  async pass(seconds) {
    await settle();
    const end = this.time + seconds * 1000;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at);
      if (!due.length) break;
      const [id, { at, act }] = due[0];
      this.timers.delete(id);
      this.time = Math.max(this.time, at);
      act();
      await settle();
    }
    this.time = end;
  }

  async network(online) {
    this.navigator.onLine = online;
    this.dispatchEvent(new Event(online ? "online" : "offline"));
    await settle();
  }

  listening = 0;

  addEventListener(name, listener, options) {
    this.listening++;
    options.signal.addEventListener("abort", () => this.listening--);
    super.addEventListener(name, listener, options);
  }

  async turn(name, persisted) {
    this.dispatchEvent(Object.assign(new Event(name), { persisted }));
    await settle();
  }

  async show(visibilityState) {
    this.document.visibilityState = visibilityState;
    this.document.dispatchEvent(new Event("visibilitychange"));
    await settle();
  }
}

/* A WebSocket whose other end is the test. */
export class FakeSocket {
  sent = [];
  closed = null;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closed = code;
  }

  /* From the server. */

  async say(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
    await settle();
  }

  async welcome() {
    await this.say({ type: "welcome", ping: 25 });
  }

  async end(code = 1006, reason = "") {
    this.onclose({ code, reason });
    await settle();
  }

  /* The last request of a type. */
  asked(type) {
    return this.sent.findLast((frame) => frame.type === type);
  }
}

/* fetch(): its answers are the test's.  A GET is a stream that stays open, a POST waits in `posts`. */
export class FakeServer {
  streams = [];
  posts = [];
  refusal = null; // of the next streams: a status, an Error, or {status, headers, body}

  fetch = async (url, { method = "GET", headers, body, signal }) => {
    if (method === "POST") {
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        const answer = (status, reply, more = {}) => {
          resolve(new Response(reply && JSON.stringify(reply), { status, headers: more }));
          return settle();
        };
        this.posts.push({ url, headers, frame: JSON.parse(body), answer, fail: reject });
      });
    }
    if (this.refusal instanceof Error) throw this.refusal;
    const { status, headers: more, body: text } = this.refusal?.status ? this.refusal : { status: this.refusal };
    if (status) return new Response(text ?? "", { status, headers: more });
    return this.open(new URL(url), headers, signal);
  };

  open(url, headers, signal) {
    let queue;
    const body = new ReadableStream({ start: (controller) => (queue = controller) });
    const stream = {
      url,
      headers,
      gone: false,
      channels: JSON.parse(url.searchParams.get("channels")),
      presence: JSON.parse(url.searchParams.get("presence")),
      async write(text) {
        queue.enqueue(new TextEncoder().encode(text));
        await settle();
      },
      say: (...frames) => stream.write(frames.map((each) => `data: ${JSON.stringify(each)}\n\n`).join("")),
      welcome: () => stream.say({ type: "welcome", ping: 25 }),
      async end() {
        queue.close();
        await settle();
      },
    };
    signal.addEventListener("abort", () => {
      stream.gone = true;
      try {
        queue.error(signal.reason);
      } catch {} // it has ended already
    });
    this.streams.push(stream);
    return new Response(body, { headers: { "Content-Type": "text/event-stream; charset=utf-8" } });
  }

  get stream() {
    return this.streams.at(-1);
  }
}

/* A client on fakes, and what it told. */
export class Ground {
  sockets = [];
  states = [];
  window = new FakeWindow();
  server = new FakeServer();
  chance = 0.5;

  constructor(options = {}) {
    const { sockets } = this;
    class WebSocket extends FakeSocket {
      constructor(...rest) {
        super(...rest);
        sockets.push(this);
      }
    }
    this.pulse = connect("lobby/socket?a=1", {
      window: this.window,
      WebSocket,
      fetch: this.server.fetch,
      now: this.window.now,
      random: () => this.chance,
      ...options,
    });
    this.pulse.on("state", (change) => this.states.push(change));
  }

  static async open(options) {
    const ground = new Ground(options);
    await settle();
    await ground.socket.welcome();
    return ground;
  }

  /* Connected by a stream, since two WebSockets never opened. */
  static async streaming(options, prepare = () => {}) {
    const ground = new Ground(options);
    prepare(ground.pulse);
    await settle();
    for (let turn = 0; turn < 2; turn++) {
      await ground.socket.end();
      await ground.retry();
    }
    await ground.server.stream.welcome();
    return ground;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get last() {
    return this.states.at(-1);
  }

  /* Until the next try. */
  retry() {
    return this.window.pass(this.last.retryIn);
  }

  /* Subscribe and have it confirmed; `calls` gathers [handler, ...arguments]. */
  async subscribe(channel, handlers = {}, confirmed = {}) {
    const { calls, all } = recorder(handlers);
    const subscription = this.pulse.subscribe(channel, all);
    await this.confirm(channel, confirmed);
    return { subscription, calls };
  }

  async confirm(channel, more = {}) {
    const { id } = this.socket.asked("subscribe");
    await this.socket.say({ ...confirmation(id, channel), ...more });
  }
}

export function confirmation(id, channel) {
  return { type: "subscribed", id, channel, position: "e-0", recovered: null, missed: 0 };
}

export function recorder(handlers = {}) {
  const calls = [];
  const names = ["onEvent", "onSubscribed", "onJoin", "onLeave", "onMembers", "onGap", "onError"];
  const all = Object.fromEntries(names.map((name) => [name, (...values) => calls.push([name, ...values])]));
  return { calls, all: { ...all, ...handlers } };
}

export function event(channel, position, data) {
  return { type: "event", channel, position, data };
}
