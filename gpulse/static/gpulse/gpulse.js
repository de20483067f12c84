/* The browser's end of gpulse's channels: one connection that comes back, and misses nothing.
 *
 *     import { connect } from "./gpulse.js";
 *     const pulse = connect("/rooms/lobby/socket", { csrfToken });
 *     pulse.subscribe("room:lobby", { onEvent: (data, { position }) => show(data) });
 *     await pulse.send({ text: "hello" });
 *
 * It speaks the WebSocket subprotocol "gpulse.v1" and, where a network lets no WebSocket through, the
 * same objects as an event stream and POSTs.  docs/topics/client.rst has the protocol and the states,
 * gpulse.d.ts the types.
 *
 * Order: what was sent first is sent first again after a reconnect; a channel's events come in the
 * order of their positions, each once.  The page's functions are called one at a time, never from
 * within connect(), subscribe() or send(); what they throw is reported and harms nothing here.
 *
 * It refuses: cookies, storage, globals, eval, dependencies.  Times are seconds, but for the now() and
 * setTimeout() that are the platform's.
 */

const PROTOCOL = "gpulse.v1";

const CONNECT_TIMEOUT = 10; // from the first byte to the welcome
const REPLY_TIMEOUT = 15; // a subscription that is not confirmed is asked for again
const PONG_TIMEOUT = 10; // a silent connection that does not answer a ping is dead
const POST_TIMEOUT = 30;
const FIRST_WAIT = 2; // the first wait is at random below this, and twice as long after each failure
const LONGEST_WAIT = 30;
const LATER = 3; // the least wait where the server says "later"
const STABLE = 10; // a connection that lived shorter than this was no success
const BLOCKED = 2; // WebSockets in a row that never opened: the stream has its turn
const SOCKET_AGAIN = { first: 20, longest: 300 }; // while a stream serves, a WebSocket is tried beside it

/* gpulse/websocket/closecodes.py is where this table comes from; a test compares the two. */
const COMES_BACK = {
  1000: "no", 1001: "now", 1002: "no", 1003: "no", 1005: "later", 1006: "now", 1007: "no",
  1008: "no", 1009: "no", 1010: "no", 1011: "later", 1012: "now", 1013: "later", 1014: "later",
  1015: "later", 4400: "no", 4401: "no", 4403: "no", 4408: "later", 4409: "no", 4429: "later",
};

/* "no", "now" or "later": whether a client comes back after a close code.  An application's own codes
 * are decisions; those that nobody knows yet are passing failures. */
export function comesBack(code) {
  return COMES_BACK[code] ?? (code >= 3000 && code < 5000 ? "no" : "later");
}

/* Why a request, or a subscription, came to nothing.  code is the server's (400, 403, 429, 503, ...) or
 * "timeout", "full", "closed"; retryAfter are seconds or undefined; key is the request's. */
export class PulseError extends Error {
  name = "PulseError";

  constructor(reason, code, retryAfter, key) {
    super(reason);
    Object.assign(this, { code, retryAfter, key });
  }
}

/* Returns a client that begins to connect when the running code ends. */
export function connect(url, options = {}) {
  return new Pulse(url, options);
}

/* --- transports --------------------------------------------------------------------------------
 *
 * {stream, ready, send(text), close()}.  heard(text) is called for each object that comes and heard("")
 * for a mere sign of life; ended(code, reason, retryAfter) at the end.  The client does not listen to a
 * transport that it has left.
 */

function openSocket(WebSocket, url, heard, ended) {
  let socket;
  try {
    socket = new WebSocket(url, PROTOCOL);
  } catch (error) {
    queueMicrotask(() => ended(1006, String(error))); // the browser forbids it: ws: on an https: page
    return { close() {} };
  }
  socket.onmessage = ({ data }) => heard(data);
  socket.onerror = () => {}; // onclose follows and says more
  socket.onclose = ({ code, reason }) => ended(code, reason);
  return { send: (text) => socket.send(text), close: () => socket.close(1000) };
}

/* fetch() rather than EventSource: it shows the status of a refusal, and the comments, without which a
 * dead stream looks like a quiet one. */
function openStream(fetch, url, csrfToken, heard, ended) {
  const abort = new AbortController();
  const { signal } = abort;
  let posted = Promise.resolve();

  function end(code, reason, retryAfter) {
    abort.abort();
    ended(code, reason, retryAfter);
  }

  async function read() {
    const headers = { Accept: "text/event-stream" };
    const answer = await fetch(url, { headers, signal, cache: "no-store" });
    if (!answer.ok) return end(closeCode(answer.status), answer.statusText, retryAfter(answer));
    if (!/^text\/event-stream/.test(answer.headers.get("Content-Type"))) {
      return end(1014, "something else than gpulse answered"); // the login page of a public network
    }
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    let data = [];
    while (!signal.aborted) {
      const { done, value } = await reader.read();
      if (done) return end(1006, "the stream ended");
      heard("");
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const closed = /^: closed (\d+) ?(.*)/.exec(line);
        if (closed) return end(+closed[1], closed[2]);
        if (line.startsWith("data:")) data.push(line.slice(5));
        if (!line && data.length) {
          heard(data.join("\n"));
          data = [];
        }
      }
    }
  }

  async function post(text) {
    if (signal.aborted) return;
    const token = typeof csrfToken === "function" ? csrfToken() : csrfToken;
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(token && { "X-CSRFToken": token }) },
      body: text,
      signal: AbortSignal.any([signal, AbortSignal.timeout(POST_TIMEOUT * 1000)]),
    });
    const { ok, status } = answer;
    if (ok) return heard(await answer.text());
    if (status === 502 || status === 504) return end(1014, "the server did not answer a request");
    const { id } = JSON.parse(text);
    const reason = answer.statusText || `status ${status}`;
    const retry_after = retryAfter(answer);
    heard(JSON.stringify({ type: "error", id, code: status, reason, retry_after }));
  }

  const failed = (error) => end(1006, String(error));
  read().catch(failed);
  return {
    stream: true,
    send: (text) => (posted = posted.then(() => post(text)).catch(failed)),
    close: () => abort.abort(),
  };
}

/* A status tells what a close code tells: 4401 is 401.  501: there is no gpulse behind this URL. */
function closeCode(status) {
  return (status >= 400 && status < 500) || status === 501 ? 4000 + status : 1014;
}

function retryAfter(answer) {
  return parseFloat(answer.headers.get("Retry-After")) || undefined;
}

/* --- subscriptions ----------------------------------------------------------------------------- */

class Subscription {
  live = false; // confirmed on the connection of now
  again = false; // was confirmed before
  tries = 0;
  id = 0; // of the request that is to be confirmed
  members = new Set();

  constructor(channel, handlers, call) {
    this.channel = channel;
    this.handlers = handlers;
    this.position = handlers.since ?? null;
    this.call = (name, ...values) => call(this.handlers[name], ...values);
  }

  /* Nothing is heard any more, not even of the frame at hand. */
  end() {
    this.handlers = {};
  }

  subscribed({ position, recovered, missed, members }) {
    const { again } = this;
    this.live = this.again = true;
    this.tries = 0;
    if (!missed) this.position = position; // else the missed events move it
    if (members) this.members = new Set(Object.keys(members));
    const names = members && [...this.members];
    this.call("onSubscribed", { position, recovered, missed, members: names, again });
    if (members) this.changed();
    if (recovered === false || (again && !recovered)) this.call("onGap", { position });
  }

  event({ position, data, base64 }) {
    if (position) {
      const [jumped, known] = compare(this.position, position);
      if (known) return;
      this.position = position;
      if (jumped) this.call("onGap", { position });
    }
    if (base64 !== undefined) data = Uint8Array.from(atob(base64), (byte) => byte.charCodeAt());
    this.call("onEvent", data, { position, channel: this.channel });
  }

  gap({ position }) {
    this.position = position ?? this.position;
    this.call("onGap", { position });
  }

  join({ member }) {
    if (this.members.has(member)) return; // the roster had it already
    this.members.add(member);
    this.call("onJoin", member);
    this.changed();
  }

  leave({ member }) {
    if (!this.members.delete(member)) return;
    this.call("onLeave", member);
    this.changed();
  }

  changed() {
    this.call("onMembers", [...this.members]);
  }
}

/* [some are missing between, next is no news].  A position is EPOCH-OFFSET; a new epoch begins anew. */
function compare(last, next) {
  const [epoch, offset] = (last ?? "").split("-");
  const [newEpoch, newOffset] = next.split("-");
  return epoch === newEpoch ? [newOffset - offset > 1, newOffset - offset < 1] : [false, false];
}

/* --- the client -------------------------------------------------------------------------------- */

class Pulse {
  #subscriptions = new Map(); // by channel
  #requests = new Map(); // by id, in the order in which they were made
  #listeners = { state: new Set(), push: new Set() };
  #timers = new Map(); // by name: one of each
  #page = new AbortController(); // ends what listens to the page
  #transport = null;
  #candidate = null; // a WebSocket that may take over from a stream

  #url;
  #options;
  #window;

  #state = "connecting";
  #patient = false; // the server said "later": nothing hurries us
  #ids = 0;
  #attempt = 0; // failures in a row
  #blocked = 0; // WebSockets in a row that never opened
  #openedAt = 0;
  #heardAt = 0;
  #asked = false; // for a sign of life; none came since
  #ping;
  #again = SOCKET_AGAIN.first;

  constructor(url, options) {
    const window = (this.#window = options.window ?? globalThis);
    const { WebSocket, fetch } = { WebSocket: window.WebSocket, fetch: window.fetch, ...options };
    if (!WebSocket && !fetch) throw new TypeError("connect() needs a WebSocket: give it as an option");
    const defaults = { queue: 100, timeout: 120, now: Date.now, random: Math.random };
    this.#options = { ...defaults, ...options, WebSocket, fetch: fetch?.bind(window) };
    this.#url = new URL(url, window.location?.href);
    queueMicrotask(() => this.#start());
  }

  /* -- for the page */

  get state() {
    return this.#state;
  }

  /* Calls listener for each "state" or "push"; returns a function that ends it. */
  on(name, listener) {
    this.#listeners[name].add(listener);
    return () => this.#listeners[name].delete(listener);
  }

  subscribe(channel, handlers = {}) {
    if (this.#subscriptions.has(channel)) throw new Error(`${channel} is subscribed to already`);
    const one = new Subscription(channel, handlers, (...call) => this.#call(...call));
    if (this.#state === "closed") {
      queueMicrotask(() => one.call("onError", new PulseError("the client is closed", "closed")));
    } else {
      this.#subscriptions.set(channel, one);
      this.#ask(one);
    }
    return {
      channel,
      get position() {
        return one.position;
      },
      get members() {
        return [...one.members];
      },
      close: () => this.#unsubscribe(one),
    };
  }

  /* Resolves to what the server answers; see the head of this file and PulseError. */
  send(data, { key = randomKey(this.#window), timeout } = {}) {
    return this.#request({ type: "send", data, key }, timeout);
  }

  /* Resolves to {member: number of connections}. */
  presence(channel) {
    return this.#request({ type: "presence", channel });
  }

  /* Waits no longer. */
  reconnect() {
    if (this.#state === "waiting" || this.#state === "offline") this.#open();
  }

  close() {
    if (this.#state !== "closed") this.#finish(1000, "closed by the page");
  }

  /* -- connecting */

  #start() {
    if (this.#state === "closed") return;
    const { signal } = this.#page;
    const on = (target, name, act) => target?.addEventListener?.(name, act, { signal });
    const { document } = this.#window;
    on(this.#window, "offline", () => this.#suspend("offline", LONGEST_WAIT));
    on(this.#window, "online", () => {
      this.#attempt = 0;
      this.reconnect();
    });
    // A page that the browser keeps for "back" may hold no connection.
    on(this.#window, "pagehide", (event) => event.persisted && this.#suspend("waiting"));
    on(this.#window, "pageshow", () => this.reconnect());
    on(document, "visibilitychange", () => document.visibilityState === "visible" && this.#wake());
    if (this.#isOffline) this.#suspend("offline", LONGEST_WAIT);
    else this.#open();
  }

  get #isOffline() {
    return this.#window.navigator?.onLine === false;
  }

  #open() {
    const { WebSocket, fetch } = this.#options;
    this.#detach();
    this.#transport = this.#make(!WebSocket || (fetch && this.#blocked >= BLOCKED));
    this.#limit();
    this.#tell("connecting");
  }

  #make(stream) {
    const { WebSocket, fetch, csrfToken } = this.#options;
    const url = new URL(this.#url);
    url.protocol = url.protocol.replace(stream ? /^ws/ : /^http/, stream ? "http" : "ws");
    url.hash = "";
    const heard = (text) => this.#heard(transport, text);
    const ended = (...why) => this.#ended(transport, ...why);
    if (stream) {
      const all = [...this.#subscriptions.values()];
      const since = Object.fromEntries(all.map((one) => [one.channel, one.position]));
      const present = all.filter((one) => one.handlers.presence).map((one) => one.channel);
      url.searchParams.set("channels", JSON.stringify(since));
      url.searchParams.set("presence", JSON.stringify(present));
    }
    const transport = stream
      ? openStream(fetch, url.href, csrfToken, heard, ended)
      : openSocket(WebSocket, url.href, heard, ended);
    return transport;
  }

  #limit() {
    this.#after("alive", CONNECT_TIMEOUT, () => this.#lost(1006, "no answer in time"));
  }

  #welcome({ ping = 25 }) {
    const transport = this.#transport;
    const { WebSocket } = this.#options;
    transport.ready = true;
    this.#ping = ping;
    if (!transport.stream) {
      this.#blocked = 0;
      this.#again = SOCKET_AGAIN.first;
      for (const one of this.#subscriptions.values()) this.#ask(one);
    } else if (WebSocket && !this.#timers.has("candidate")) this.#later();
    for (const { text } of this.#requests.values()) transport.send(text);
    this.#watch();
    if (this.#state === "open") return; // the stream was made anew, or a WebSocket took over
    this.#openedAt = this.#options.now();
    this.#tell("open");
  }

  #ended(transport, ...why) {
    if (transport === this.#transport && this.#candidate && why[0] === 4409) {
      this.#takeOver(); // one connection per user: the candidate is what replaced this one
      this.#limit();
    } else if (transport === this.#transport) this.#lost(...why);
    else if (transport === this.#candidate) this.#giveUp();
  }

  #lost(code, reason, retryAfter = 0) {
    const { now, random } = this.#options;
    const { ready, stream } = this.#transport;
    const verdict = comesBack(code);
    if (verdict === "no") return this.#finish(code, reason);
    if (ready && now() - this.#openedAt >= STABLE * 1000) this.#attempt = 0;
    if (!ready && stream) this.#blocked = BLOCKED - 1; // it may be the server: turn and turn about
    else if (!ready && code === 1006 && !this.#isOffline) this.#blocked++;
    const spread = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempt++);
    this.#patient = verdict === "later";
    const retryIn = Math.max(retryAfter, this.#patient ? LATER : 0) + random() * spread;
    if (this.#isOffline) this.#suspend("offline", LONGEST_WAIT);
    else this.#suspend("waiting", retryIn, { code, reason, retryIn });
  }

  #suspend(state, seconds, details) {
    if (this.#state === "closed") return;
    this.#detach();
    if (seconds) this.#after("retry", seconds, () => this.#open());
    this.#tell(state, details);
  }

  #finish(code, reason) {
    this.#detach();
    this.#page.abort();
    for (const { fail } of [...this.#requests.values()]) fail(`closed: ${reason || code}`, "closed");
    for (const one of this.#subscriptions.values()) one.end();
    this.#subscriptions.clear();
    this.#tell("closed", { code, reason });
  }

  #detach() {
    this.#transport?.close();
    this.#candidate?.close();
    this.#transport = this.#candidate = null;
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
    for (const one of this.#subscriptions.values()) one.live = false;
  }

  /* -- staying connected */

  /* Asks for a sign of life after each silence. */
  #watch() {
    const silence = (this.#options.now() - this.#heardAt) / 1000;
    if (silence >= this.#ping) this.#probe();
    else this.#after("alive", this.#ping - silence, () => this.#watch());
  }

  #probe() {
    if (!this.#transport.stream) this.#transport.send('{"type":"ping"}');
    this.#asked = true;
    this.#after("alive", PONG_TIMEOUT, () => {
      if (this.#asked) this.#lost(1006, "the connection is dead");
      else this.#watch();
    });
  }

  /* The page is looked at again: was the machine asleep? */
  #wake() {
    if (this.#transport?.ready && !this.#transport.stream) this.#probe();
    else if (this.#state !== "offline" && !this.#patient) this.#state === "waiting" && this.#open();
  }

  /* Beside a stream, now and then, a WebSocket: the network may have changed, or it was the server. */
  #later() {
    this.#after("candidate", this.#again * (0.5 + this.#options.random() / 2), () => {
      this.#candidate = this.#make(false);
      this.#after("candidate", CONNECT_TIMEOUT, () => this.#giveUp());
    });
  }

  #giveUp() {
    this.#candidate?.close();
    this.#candidate = null;
    this.#again = Math.min(SOCKET_AGAIN.longest, this.#again * 4);
    this.#later();
  }

  #takeOver() {
    const candidate = this.#candidate;
    this.#candidate = null;
    this.#detach();
    this.#transport = candidate;
  }

  /* -- what comes */

  #heard(transport, text) {
    if (transport === this.#candidate) this.#takeOver();
    if (transport !== this.#transport) return;
    this.#heardAt = this.#options.now();
    this.#asked = false;
    if (!text) return;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#lost(1014, "something else than gpulse answered");
    }
    this.#take(frame);
  }

  #take(frame) {
    const { type, id } = frame;
    const one = this.#subscriptions.get(frame.channel);
    if (type === "welcome") this.#welcome(frame);
    else if (type === "push") this.#emit("push", frame.data);
    else if (type === "ok") this.#requests.get(id)?.done(frame.data);
    else if (type === "error") this.#refused(frame);
    else if (type === "subscribed" && one && (!id || id === one.id)) {
      this.#cancel("of " + one.channel);
      one.subscribed(frame);
    } else if (one?.live && ["event", "join", "leave", "gap"].includes(type)) {
      one[type](frame);
      if (type === "gap" && one.handlers.presence) this.#callRoll(one);
    }
  }

  #refused({ id, channel, code, reason, retry_after }) {
    const request = this.#requests.get(id);
    if (request) return request.fail(reason, code, retry_after);
    const all = [...this.#subscriptions.values()];
    const one = all.find((each) => !each.live && (id ? each.id === id : each.channel === channel));
    if (!one) return;
    this.#cancel("of " + one.channel);
    if (code === 429 || code >= 500) {
      const spread = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** one.tries++);
      const wait = (retry_after ?? 0) + spread * this.#options.random();
      this.#after("of " + one.channel, wait, () => this.#ask(one));
    } else {
      this.#subscriptions.delete(one.channel);
      one.call("onError", new PulseError(reason, code, retry_after));
    }
  }

  /* Who joined or left during a gap is not told. */
  #callRoll(one) {
    this.presence(one.channel).then(
      (members) => {
        one.members = new Set(Object.keys(members));
        one.changed();
      },
      () => {},
    );
  }

  /* -- what goes */

  #ask(one) {
    const { channel, position, handlers } = one;
    if (this.#transport?.stream) return this.#remake();
    if (!this.#transport?.ready) return; // the welcome asks for all
    const id = (one.id = ++this.#ids);
    const since = position ?? undefined;
    const presence = handlers.presence || undefined;
    this.#transport.send(JSON.stringify({ type: "subscribe", id, channel, since, presence }));
    this.#after("of " + channel, REPLY_TIMEOUT, () => this.#ask(one));
  }

  #unsubscribe(one) {
    const { channel } = one;
    if (this.#subscriptions.get(channel) !== one) return;
    this.#subscriptions.delete(channel);
    one.end();
    this.#cancel("of " + channel);
    if (this.#transport?.stream) this.#remake();
    else if (this.#transport?.ready) {
      this.#transport.send(JSON.stringify({ type: "unsubscribe", id: ++this.#ids, channel }));
    }
  }

  /* A stream has its channels in its URL; those that change together make one new stream. */
  #remake() {
    this.#after("remake", 0, () => {
      this.#transport.close();
      for (const one of this.#subscriptions.values()) one.live = false;
      this.#transport = this.#make(true);
      this.#limit();
    });
  }

  #request(frame, timeout = this.#options.timeout) {
    const id = ++this.#ids;
    return new Promise((resolve, reject) => {
      const settle = (act, value) => {
        this.#window.clearTimeout(timer);
        this.#requests.delete(id);
        act(value);
      };
      const fail = (reason, code, retryAfter) =>
        settle(reject, new PulseError(reason, code, retryAfter, frame.key));
      let timer;
      if (this.#state === "closed") return fail("the client is closed", "closed");
      if (this.#requests.size >= this.#options.queue) return fail("too much waits already", "full");
      const text = JSON.stringify({ ...frame, id });
      timer = this.#window.setTimeout(() => fail("no answer in time", "timeout"), timeout * 1000);
      this.#requests.set(id, { text, fail, done: (data) => settle(resolve, data) });
      if (this.#transport?.ready) this.#transport.send(text);
    });
  }

  /* -- tools */

  #tell(state, details) {
    this.#state = state;
    const transport = state === "open" ? (this.#transport.stream ? "stream" : "websocket") : null;
    this.#emit("state", { state, attempt: this.#attempt, transport, ...details });
  }

  #emit(name, value) {
    for (const listener of [...this.#listeners[name]]) this.#call(listener, value);
  }

  #call(callback, ...values) {
    try {
      callback?.(...values);
    } catch (error) {
      if (this.#window.reportError) this.#window.reportError(error);
      else queueMicrotask(() => { throw error; });
    }
  }

  #after(name, seconds, act) {
    this.#cancel(name);
    const run = () => {
      this.#timers.delete(name);
      act();
    };
    this.#timers.set(name, this.#window.setTimeout(run, seconds * 1000));
  }

  #cancel(name) {
    this.#window.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/* crypto.randomUUID() is not there on pages that came over plain HTTP. */
function randomKey({ crypto }) {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
