/* The page's end of the WebSocket.
 *
 * It receives frames (see visitors.py) and sends plain text.  Everything that comes from others is
 * put on the page as text, never as HTML.
 */
"use strict";

const OPEN_WAITS = { first: 500, longest: 15000 }; // ms between attempts to connect
const KEPT_LINES = 500; // older ones leave the page
const NEAR_BOTTOM = 40; // px: who reads further up is not scrolled away

const { socket: address, name: me } = document.body.dataset;
const [status, users, count, messages, composer, box, send, left] = [
  "status", "users", "count", "messages", "composer", "message", "send", "left",
].map((id) => document.getElementById(id));

let socket = null;
let attempts = 0; // since the last frame: a socket that opens and fails again is not a success
let listing = true; // the server tells who is here; our own name ends the list
let retry = 0;

/* --- connection ------------------------------------------------------------------------------- */

function connect() {
  clearTimeout(retry);
  const url = new URL(address, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  listing = true;
  socket = new WebSocket(url);
  socket.onopen = () => show("Connected", true);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = (event) => {
    users.replaceChildren(); // who is still here will be told anew
    count.textContent = "0";
    show(event.reason ? `Disconnected: ${event.reason}` : "Reconnecting…", false);
    retry = setTimeout(connect, wait());
  };
}

/* Twice as long after every failure, and at random within that: when a server comes back, its
 * clients must not all come back in the same instant. */
function wait() {
  const limit = Math.min(OPEN_WAITS.longest, OPEN_WAITS.first * 2 ** attempts++);
  return limit * (0.5 + Math.random() / 2);
}

function show(text, connected) {
  status.textContent = text;
  status.classList.toggle("connected", connected);
  send.disabled = !connected;
}

/* The network is back: no need to wait for the timer. */
addEventListener("online", () => socket.readyState === WebSocket.CLOSED && connect());

/* --- frames ----------------------------------------------------------------------------------- */

function receive(frame) {
  attempts = 0;
  if (frame.channel === "webchat") {
    addLine(messageLine(frame));
  } else if (frame.channel === "chatuser") {
    if (frame.message === "joined") addUser(frame);
    if (frame.message === "gone") userRow(frame)?.remove();
    count.textContent = users.childElementCount;
    if (!listing) addLine(element("p", "note", `${frame.user} ${frame.message}`));
    if (frame.user === me) listing = false;
  }
}

function userKey(frame) {
  return `${frame.authenticated}:${frame.user}`;
}

function userRow(frame) {
  return [...users.children].find((row) => row.dataset.key === userKey(frame));
}

function addUser(frame) {
  if (userRow(frame)) return;
  const row = element("li");
  row.dataset.key = userKey(frame);
  row.append(avatar(frame.user), nameOf(frame));
  const after = [...users.children].find((other) => other.dataset.key > row.dataset.key);
  users.insertBefore(row, after ?? null);
}

function messageLine(frame) {
  const line = element("article", frame.user === me ? "line mine" : "line");
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = now.toISOString();
  const head = element("p", "head");
  head.append(nameOf(frame), " ", time);
  line.append(avatar(frame.user), head, element("p", "text", frame.message));
  return line;
}

function addLine(line) {
  const below = messages.scrollHeight - messages.scrollTop - messages.clientHeight;
  messages.append(line);
  while (messages.childElementCount > KEPT_LINES) messages.firstElementChild.remove();
  if (below < NEAR_BOTTOM) messages.scrollTop = messages.scrollHeight;
}

/* --- elements --------------------------------------------------------------------------------- */

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function nameOf(frame) {
  const name = element("b", "name", frame.user);
  if (frame.authenticated) {
    const mark = element("span", "mark", "✓");
    mark.title = "logged in";
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", "logged in");
    name.append(" ", mark);
  }
  return name;
}

/* A coloured initial, the same wherever the name appears. */
function avatar(name) {
  const letters = [...name.replace(/^an_/, "")];
  const made = element("span", "avatar", (letters[0] ?? "?").toUpperCase());
  const hue = letters.reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  made.style.setProperty("--hue", hue);
  made.setAttribute("aria-hidden", "true");
  return made;
}

/* --- the message box -------------------------------------------------------------------------- */

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN || !box.value.trim()) return; // the text stays
  socket.send(box.value);
  box.value = "";
  countDown();
  box.focus();
});

box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit(send.disabled ? null : send);
});

box.addEventListener("input", countDown);

function countDown() {
  const room = box.maxLength - box.value.length;
  left.textContent = `${room} characters left`;
  left.classList.toggle("short", room < 100);
}

connect();
