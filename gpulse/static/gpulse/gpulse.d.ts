/** Types of gpulse.js, the browser's end of gpulse's channels.  Times are seconds. */

export type State =
  /** a connection is being made */
  | "connecting"
  /** the server has said welcome */
  | "open"
  /** until the next try */
  | "waiting"
  /** the browser says that there is no network; a try is made now and then all the same */
  | "offline"
  /** for good: nothing comes or goes any more, connect() makes a new client */
  | "closed";

export interface StateChange {
  readonly state: State;
  /** Failures in a row. */
  readonly attempt: number;
  /** How the client is connected while it is "open", null otherwise. */
  readonly transport: "websocket" | "stream" | null;
  /** "waiting": seconds until the next try. */
  readonly retryIn?: number;
  /** "waiting" and "closed": the close code that led here; see docs/topics/client.rst. */
  readonly code?: number;
  readonly reason?: string;
}

export interface Options {
  /** Sent as X-CSRFToken where requests go by POST; a function is asked each time. */
  csrfToken?: string | (() => string);
  /** Most requests that wait for their answer, sent or not; 100. */
  queue?: number;
  /** Seconds from send() to its answer, the time without a connection included; 120.  The server knows
   *  an idempotency key for 300, so it should stay below that. */
  timeout?: number;

  /** What makes sockets; null: events come by stream and requests go by POST.  Node 20 needs it. */
  WebSocket?: (new (url: string, protocol: string) => SocketLike) | null;
  /** null: there is no fallback. */
  fetch?: typeof fetch | null;
  /** Where timers, crypto, events of the page and its location come from; globalThis. */
  window?: object;
  /** Milliseconds; Date.now. */
  now?: () => number;
  /** At least 0, less than 1; Math.random. */
  random?: () => number;
}

/** What the client uses of a WebSocket. */
export interface SocketLike {
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** Where a message stands in the history of its channel: "EPOCH-OFFSET"; null: it has no history. */
export type Position = string | null;

export interface Subscribed {
  /** The newest of the channel. */
  readonly position: Position;
  /** true: what was missed follows as events.  false: messages are lost.  null: nothing to recover, or no
   *  history. */
  readonly recovered: boolean | null;
  /** How many missed events follow. */
  readonly missed: number;
  /** Who is there; undefined without `presence`. */
  readonly members?: string[];
  /** The client was subscribed before: this is a reconnect. */
  readonly again: boolean;
}

export interface Handlers<Data = any> {
  /** The last position that the page knows: what came after it comes first. */
  since?: Position;
  /** Be a member of the channel, and learn who else is. */
  presence?: boolean;
  /** A binary message is a Uint8Array. */
  onEvent?(data: Data, about: { position: Position; channel: string }): void;
  /** The server confirmed; called again after each reconnect, before the missed events. */
  onSubscribed?(details: Subscribed): void;
  /** The first connection of a member came. */
  onJoin?(member: string): void;
  /** Its last one went. */
  onLeave?(member: string): void;
  /** Who is there, after each change. */
  onMembers?(members: string[]): void;
  /** Messages are lost: fetch anew what they were about. */
  onGap?(about: { position: Position }): void;
  /** The server refuses this subscription; it is over. */
  onError?(error: PulseError): void;
}

export interface Subscription {
  readonly channel: string;
  /** Of the last event, or of the newest when it was subscribed: `since` of another subscription. */
  readonly position: Position;
  readonly members: string[];
  close(): void;
}

export interface Pulse {
  readonly state: State;
  /** Returns a function that ends it. */
  on(name: "state", listener: (change: StateChange) => void): () => void;
  /** What a consumer says with send(), apart from all channels. */
  on(name: "push", listener: (data: any) => void): () => void;
  /** @throws Error the channel is subscribed to already. */
  subscribe<Data = any>(channel: string, handlers?: Handlers<Data>): Subscription;
  /** Resolves to what the server's on_request() returned.  It is sent again after a reconnect, with the same
   *  key, until it is answered.
   *  @throws PulseError (the promise rejects) refused, too late, too many, or closed. */
  send<Answer = any>(data: unknown, options?: { key?: string; timeout?: number }): Promise<Answer>;
  /** Who is there now, each with the number of connections. */
  presence(channel: string): Promise<Record<string, number>>;
  /** While waiting or offline: try at once. */
  reconnect(): void;
  /** For good; what waits for an answer is rejected. */
  close(): void;
}

export class PulseError extends Error {
  constructor(reason: string, code: PulseError["code"], retryAfter?: number, key?: string);
  /** Of the server, like an HTTP status: 400, 403, 404, 429, 500, 503.  Of the client: "timeout" (it may have
   *  been done all the same), "full" (`queue`), "closed". */
  readonly code: number | "timeout" | "full" | "closed";
  /** Seconds after which the same may succeed. */
  readonly retryAfter?: number;
  /** The idempotency key: send(data, {key}) repeats without doing it twice. */
  readonly key?: string;
}

/** A client of the consumer at `url`, which may be relative; it begins to connect when the running code ends. */
export function connect(url: string | URL, options?: Options): Pulse;

/** Whether a client comes back by itself after a close code. */
export function comesBack(code: number): "no" | "now" | "later";
