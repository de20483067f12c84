/* The page of a room.
 *
 * A message is known by its id, and whatever tells of it (the acknowledgement of one's own, an event, a
 * page of history) brings it whole, with the number of its revision.  So all of them come in by one door,
 * merge(), in any order and any number of times, and the later revision stays.
 *
 * Everything that comes from others is put on the page as text, never as HTML.
 */

const here = document.body.dataset;
// By address and not by name: in production the names of these files hold a hash.
const { connect } = await import(here.client);
const { markdown } = await import(here.markdown);

const KEPT = 500; // messages; older ones leave the page, and come back when asked for
const MOST = 5000; // messages that a reader may scroll back through
const NEAR_BOTTOM = 60; // px: who reads further up is not scrolled away
const TOGETHER = 5 * 60_000; // ms between two messages that share one head
const TYPING = { every: 3000, shown: 5000 }; // ms between two notes, and for which one is shown
const READ_EVERY = 1000; // ms between two reports of how far was read
const NEWEST = Number.MAX_SAFE_INTEGER; // before which id the newest page is

const [
  scroller, messages, older, newer, composer, box, send, left, problem, editingBar, cancel, typing, statusBar, state, wait,
  now, people, count, users, rooms,
] = [
  "scroller", "messages", "older", "newer", "composer", "message", "send", "left", "problem", "editing", "cancel", "typing",
  "status", "state", "wait", "now", "people", "count", "users", "rooms",
].map((id) => document.getElementById(id));

const channel = { room: `room:${here.slug}`, typing: `typing:${here.slug}`, rooms: "rooms" };
const lines = new Map(); // id -> the line of a message
const pending = new Map(); // key -> the line of one that is not acknowledged
const title = document.title;
const csrfToken = document.querySelector("[name=csrfmiddlewaretoken]").value;

/* --- elements --------------------------------------------------------------------------------- */

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(text, action, label = text) {
  const made = element("button", "quiet", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}

function nameOf({ user, authenticated }) {
  const name = element("b", "name", user);
  if (authenticated) {
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

const memberOf = ({ user, authenticated }) => `${authenticated ? "user" : "guest"}:${user}`;

function visitorOf(member) {
  const at = member.indexOf(":");
  return { user: member.slice(at + 1), authenticated: member.slice(0, at) === "user" };
}

/* --- messages --------------------------------------------------------------------------------- */

/* Take in a message; "new", "changed" or "" for what is known or is above the part of the history that
 * the page shows.  `above`: it belongs there all the same. */
function merge(frame, above = false) {
  const known = lines.get(frame.id);
  if (known) {
    if (frame.revision <= known.frame.revision) return "";
    fill(known, frame);
    return "changed";
  }
  const mine = memberOf(frame) === here.member;
  if (!above && !older.hidden && frame.id < oldestId()) return "";
  const line = (mine && pending.get(frame.key)) || element("article");
  pending.delete(frame.key);
  lines.set(frame.id, line);
  fill(line, frame);
  place(line);
  if (!mine) forget(memberOf(frame)); // has said it, and types no more
  return "new";
}

const shown = () => [...lines.keys()];
const oldestId = () => (lines.size ? Math.min(...shown()) : 0);
const newestId = () => (lines.size ? Math.max(...shown()) : 0);

/* Put what `frame` says into its line. */
function fill(line, frame) {
  const mine = memberOf(frame) === here.member;
  const said = new Date(frame.time ?? Date.now());
  const time = element("time", "", said.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = said.toISOString();
  time.title = said.toLocaleString();
  const head = element("p", "head");
  head.append(nameOf(frame), " ", time);
  const text = element("div", "text");
  const deleted = frame.channel === "deleted";
  if (deleted) text.append("Message deleted");
  else text.append(markdown(frame.message));
  if (frame.channel === "edited") text.lastElementChild?.append(" ", element("span", "edited", "(edited)"));
  const focused = line.contains(document.activeElement);
  line.frame = frame;
  line.said = said;
  line.classList.add("line");
  for (const [name, is] of Object.entries({ mine, deleted, pending: !frame.id })) line.classList.toggle(name, is);
  line.replaceChildren(element("p", "day", dayOf(said)), avatar(frame.user), head, text);
  if (mine && frame.id && !deleted) line.append(toolsOf(line));
  if (deleted && line === edited?.line) stopEditing();
  if (focused) box.focus();
}

function dayOf(date) {
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

function toolsOf(line) {
  const tools = element("div", "tools");
  const remove = button("Delete", () => {
    if (remove.textContent === "Delete") remove.textContent = "Really?";
    else ask(line, { do: "delete", id: line.frame.id });
  }, "Delete this message");
  remove.addEventListener("blur", () => (remove.textContent = "Delete"));
  tools.append(button("Edit", () => startEditing(line), "Edit this message"), remove);
  return tools;
}

/* Put a line where its id belongs: before the first of a later id, or that has none yet. */
function place(line) {
  let before = null;
  // From the end, for nearly always that is the place.
  for (let each = messages.lastElementChild; each; each = each.previousElementSibling) {
    if (each === line || !each.frame) continue; // a note stays where it was made
    if (each.frame.id < line.frame.id || !line.frame.id) break;
    before = each;
  }
  if (before || !line.isConnected) {
    const left = line.nextElementSibling;
    messages.insertBefore(line, before);
    group(left);
  }
  group(line);
  group(line.nextElementSibling);
}

/* Whether a line goes on from the one above it, and whether a day begins with it. */
function group(line) {
  if (!line?.frame) return;
  const above = line.previousElementSibling;
  let last = above; // the message before, whatever notes are between
  while (last && !last.frame) last = last.previousElementSibling;
  const sameDay = last?.said.toDateString() === line.said.toDateString();
  const together = above && last === above && sameDay && line.said - above.said < TOGETHER;
  line.classList.toggle("new-day", !sameDay);
  line.classList.toggle("follows", Boolean(together && memberOf(above.frame) === memberOf(line.frame)));
}

function addNote(text) {
  keepingPlace(() => messages.append(element("p", "note", text)));
}

/* Change what is shown, and keep the reader's place: the end, for whoever is there. */
function keepingPlace(change) {
  const stays = atEnd();
  const result = change();
  for (let line = messages.firstElementChild; stays && messages.childElementCount > KEPT; line = messages.firstElementChild) {
    if (line.frame) older.hidden = false;
    lines.delete(line.frame?.id);
    line.remove();
  }
  if (stays) scroller.scrollTop = scroller.scrollHeight;
  return result;
}

function atEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_BOTTOM;
}

/* --- history ---------------------------------------------------------------------------------- */

async function fetchPage(order, id) {
  const answer = await fetch(`${here.room}messages/${order}/${id}`);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

let refreshing = null;
let again = false;

/* Make what is shown what the database has: at first, and after a gap that nobody else could fill. */
function refresh() {
  if (refreshing) again = true;
  else refreshing = refreshUntilDone().finally(() => (refreshing = null));
  return refreshing;
}

async function refreshUntilDone() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 15_000)) {
    again = false;
    try {
      await refreshOnce();
      if (!again) return;
    } catch {
      await new Promise((done) => setTimeout(done, pause * (0.5 + Math.random() / 2)));
    }
  }
}

async function refreshOnce() {
  const first = lines.size === 0;
  const page = await fetchPage("before", NEWEST);
  const from = page.messages[0]?.id ?? 0;
  const pages = [page];
  if (!first && page.more && from > newestId()) {
    // So much was said that the two parts do not touch: what is between can be asked for by scrolling up.
    for (const [id, line] of lines) (line.remove(), lines.delete(id));
    messages.querySelectorAll(".note").forEach((note) => note.remove());
  } else if (!first) {
    // The older lines may have been edited meanwhile.
    for (let id = oldestId() - 1, more = true; more && id < from - 1; ) {
      const next = await fetchPage("after", id);
      pages.unshift(next);
      more = next.more;
      id = next.messages.at(-1)?.id ?? from;
    }
  }
  const fresh = quietly(() => keepingPlace(() => {
    const results = pages.flatMap((each) => each.messages.map((frame) => [frame, merge(frame, each === page)]));
    return results.filter(([, result]) => result === "new");
  }));
  if (first) {
    older.hidden = !page.more;
    markFirstUnread(fresh.map(([frame]) => frame));
    scroller.scrollTop = scroller.scrollHeight;
    reading();
  } else {
    older.hidden &&= !(page.more && from <= oldestId());
    noticed(fresh.map(([frame]) => frame));
    if (fresh.length) caughtUp(fresh.length);
  }
}

/* History is not news: a screen reader is not to read it all. */
function quietly(change) {
  messages.setAttribute("aria-busy", "true");
  try {
    return change();
  } finally {
    requestAnimationFrame(() => messages.removeAttribute("aria-busy"));
  }
}

let loading = false;

async function loadOlder() {
  if (loading || older.hidden || !lines.size || lines.size >= MOST) return;
  loading = true;
  try {
    const page = await fetchPage("before", oldestId());
    const height = scroller.scrollHeight;
    quietly(() => page.messages.forEach((frame) => merge(frame, true)));
    scroller.scrollTop += scroller.scrollHeight - height;
    older.hidden = !page.more;
  } catch {
    // The button stays, and so does the reader.
  } finally {
    loading = false;
  }
}

older.addEventListener("click", async () => {
  await loadOlder();
  if (older.hidden) messages.focus();
});
scroller.addEventListener("scroll", () => {
  if (scroller.scrollTop < 200) loadOlder();
  if (atEnd()) reading();
});
new ResizeObserver(() => wasAtEnd && (scroller.scrollTop = scroller.scrollHeight)).observe(scroller);
let wasAtEnd = true;
scroller.addEventListener("scroll", () => (wasAtEnd = atEnd()));

/* --- read and unread -------------------------------------------------------------------------- */

let read = Number(here.read);
let unseen = 0;
let reporting = 0;

/* Where the reader left off last time. */
function markFirstUnread(frames) {
  if (!read) return; // everything is new to a newcomer
  const first = frames.find((frame) => frame.id > read && memberOf(frame) !== here.member);
  lines.get(first?.id)?.classList.add("first-unread");
}

/* Messages of others have come. */
function noticed(frames) {
  unseen += frames.filter((frame) => memberOf(frame) !== here.member).length;
  if (atEnd() && !document.hidden) reading();
  else showUnseen();
}

/* The end of the messages is in sight. */
function reading() {
  if (document.hidden || !atEnd()) return;
  unseen = 0;
  showUnseen();
  if (!reporting && newestId() > read) reporting = setTimeout(report, READ_EVERY);
}

async function report() {
  reporting = 0;
  read = newestId();
  const request = { method: "POST", keepalive: true, headers: { "X-CSRFToken": csrfToken } };
  await fetch(`${here.room}read/${read}`, request).catch(() => (read = 0)); // the next one will tell
}

function showUnseen() {
  document.title = unseen ? `(${unseen}) ${title}` : title;
  newer.hidden = unseen === 0 || atEnd();
  newer.textContent = `${unseen} new ${unseen === 1 ? "message" : "messages"} ↓`;
}

newer.addEventListener("click", () => {
  scroller.scrollTop = scroller.scrollHeight;
  box.focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (reporting) (clearTimeout(reporting), report());
  } else {
    reading();
    countUnread();
  }
});

/* --- rooms ------------------------------------------------------------------------------------ */

rooms.querySelector("[aria-current]").scrollIntoView({ block: "nearest" });

function roomLink(slug, name) {
  const known = [...rooms.querySelectorAll("a")].find((link) => link.dataset.slug === slug);
  if (known) return known;
  const [item, link] = [element("li"), element("a")];
  link.href = `${here.rooms}${encodeURIComponent(slug)}/`;
  link.dataset.slug = slug;
  const badge = element("span", "unread");
  badge.append(element("span", "many", "0"), " ", element("span", "spoken", "unread"));
  link.append(element("span", "title", name), " ", badge);
  item.append(link);
  const after = [...rooms.children].find((each) => each.textContent.localeCompare(name) > 0);
  rooms.insertBefore(item, after ?? null);
  showUnread(link, 0);
  return link;
}

function showUnread(link, number) {
  link.unread = number;
  link.querySelector(".unread").hidden = number === 0 || link.dataset.slug === here.slug;
  link.querySelector(".many").textContent = number > 99 ? "99+" : number;
}

function heardOfRoom({ slug, title: name, member }) {
  const link = roomLink(slug, name);
  const known = link.unread ?? Number.parseInt(link.querySelector(".many").textContent);
  if (member && member !== here.member && slug !== here.slug) showUnread(link, known + 1);
}

async function countUnread() {
  try {
    const answer = await fetch(`${here.rooms}?json`);
    for (const room of (await answer.json()).rooms) showUnread(roomLink(room.slug, room.title), room.unread);
  } catch {
    // The next time will do.
  }
}

/* --- people ----------------------------------------------------------------------------------- */

/* Who is here, each a member of presence. */
function setPeople(members) {
  const rows = new Map([...users.children].map((row) => [row.dataset.member, row]));
  users.replaceChildren(...members.toSorted().map((member) => rows.get(member) ?? personOf(member)));
  count.textContent = members.length;
}

function personOf(member) {
  const visitor = visitorOf(member);
  const row = element("li");
  row.dataset.member = member;
  row.append(avatar(visitor.user), nameOf(visitor));
  if (member === here.member) row.append(element("span", "you", "you"));
  return row;
}

people.addEventListener("click", () => {
  const open = document.body.classList.toggle("people-open");
  people.setAttribute("aria-expanded", open);
});

/* --- who is typing ---------------------------------------------------------------------------- */

const typers = new Map(); // member -> the timer that ends it
let typed = 0;

function heardTyping({ member }) {
  if (member === here.member) return;
  clearTimeout(typers.get(member));
  typers.set(member, setTimeout(forget, TYPING.shown, member));
  showTyping();
}

function forget(member) {
  clearTimeout(typers.get(member));
  if (typers.delete(member)) showTyping();
}

function showTyping() {
  const names = [...typers.keys()].map((member) => visitorOf(member).user);
  const who = names.length > 2 ? "Several people are" : names.length === 2 ? `${names.join(" and ")} are` : `${names[0]} is`;
  typing.textContent = names.length ? `${who} typing…` : "";
}

function tellTyping() {
  if (pulse.state !== "open" || Date.now() - typed < TYPING.every || !box.value.trim()) return;
  typed = Date.now();
  pulse.send({ do: "typing" }).catch(() => {}); // nobody will miss it
}

/* --- saying ----------------------------------------------------------------------------------- */

let quietUntil = 0; // ms: the server wants a pause
let edited = null; // {line, draft}: the message in the box is to replace an older one

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = box.value.trim();
  box.focus();
  if (!text || Date.now() < quietUntil) return; // the text stays
  if (edited) {
    ask(edited.line, { do: "edit", id: edited.line.frame.id, text });
  } else {
    setBox("");
    say(text);
  }
});

/* Show a message at once, and send it until the server has it. */
function say(text) {
  const key = newKey();
  const line = element("article");
  typed = 0; // what comes next is told anew
  pending.set(key, line);
  keepingPlace(() => {
    fill(line, { ...visitorOf(here.member), message: text, key, channel: "webchat" });
    place(line);
  });
  scroller.scrollTop = scroller.scrollHeight;
  deliver(line, { do: "say", text }, key);
}

async function deliver(line, request, key) {
  line.querySelector(".state")?.remove();
  line.classList.remove("failed");
  try {
    const frame = await pulse.send(request, { key });
    keepingPlace(() => merge(frame));
  } catch (error) {
    const again = () => deliver(line, request, key);
    if (error.code === 429) {
      drop(line, key);
      giveBack(request.text);
      pause(Math.max(1, error.retryAfter ?? 1));
    } else if (error.code === "timeout" || error.code >= 500) {
      // Perhaps it is stored: under the same key it will not be stored twice.
      setTimeout(again, 1000 * (error.retryAfter ?? 1));
    } else {
      const why = element("p", "state", `Not sent: ${error.message} `);
      why.append(button("Try again", again), " ", button("Discard", () => drop(line, key)));
      line.classList.add("failed");
      keepingPlace(() => line.append(why));
    }
  }
}

/* Into the box again, behind what is there. */
function giveBack(text) {
  const behind = (draft) => (draft ? `${draft}\n${text}` : text);
  if (edited) edited.draft = behind(edited.draft);
  else setBox(behind(box.value));
}

function drop(line, key) {
  pending.delete(key);
  const below = line.nextElementSibling;
  line.remove();
  group(below);
  box.focus();
}

/* An edit or a deletion; it is shown when it is done. */
async function ask(line, request) {
  problem.textContent = "";
  try {
    const frame = await pulse.send(request);
    if (edited?.line === line) stopEditing();
    keepingPlace(() => merge(frame));
    box.focus();
  } catch (error) {
    if (error.code === 429) pause(Math.max(1, error.retryAfter ?? 1));
    else problem.textContent = `Not done: ${error.message}`;
  }
}

/* Too fast: say until when, and keep the text. */
function pause(seconds) {
  quietUntil = Date.now() + seconds * 1000;
  const rest = Math.ceil(seconds);
  problem.textContent = `Too fast: you can send again in ${rest} second${rest === 1 ? "" : "s"}. Your text is kept.`;
  send.setAttribute("aria-disabled", "true");
  setTimeout(() => {
    if (Date.now() < quietUntil) return;
    problem.textContent = "";
    send.removeAttribute("aria-disabled");
  }, seconds * 1000);
}

function startEditing(line) {
  if (edited) stopEditing();
  edited = { line, draft: box.value };
  line.classList.add("at-work");
  line.scrollIntoView({ block: "nearest" });
  editingBar.hidden = false;
  send.textContent = "Save";
  setBox(line.frame.message);
  box.focus();
}

function stopEditing() {
  edited.line.classList.remove("at-work");
  editingBar.hidden = true;
  send.textContent = "Send";
  setBox(edited.draft);
  edited = null;
  box.focus();
}

cancel.addEventListener("click", stopEditing);

box.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    composer.requestSubmit();
  } else if (event.key === "ArrowUp" && !box.value && !edited) {
    const mine = [...messages.querySelectorAll(".line.mine:not(.deleted, .pending)")];
    if (mine.length) {
      event.preventDefault();
      startEditing(mine.at(-1));
    }
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (edited) stopEditing();
  else if (people.getAttribute("aria-expanded") === "true") people.click();
});

box.addEventListener("input", () => {
  measure();
  tellTyping();
});

function setBox(text) {
  box.value = text;
  measure();
}

function measure() {
  const room = box.maxLength - box.value.length;
  box.rows = Math.min(6, box.value.split("\n").length); // where CSS has no field-sizing
  left.textContent = `${room} characters left`;
  left.hidden = room > 200;
  left.classList.toggle("short", room < 50);
}

/* crypto.randomUUID() is not there on pages that came over plain HTTP. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/* --- connection ------------------------------------------------------------------------------- */

let ticking = 0;
let newsUntil = 0;

function showState(name, text, more = "") {
  statusBar.dataset.state = name;
  if (state.textContent !== text) state.textContent = text; // what is announced
  wait.textContent = more; // what is not: it changes each second
  now.hidden = name !== "waiting";
}

/* "Caught up": for a moment in the place of "Connected". */
function caughtUp(number) {
  showState("connected", `Caught up ${number} ${number === 1 ? "message" : "messages"}`);
  state.classList.add("news");
  clearTimeout(newsUntil);
  newsUntil = setTimeout(() => {
    state.classList.remove("news");
    if (pulse.state === "open") showState("connected", "Connected");
  }, 4000);
}

function onState({ state: name, retryIn, code, reason }) {
  clearInterval(ticking);
  clearTimeout(newsUntil);
  state.classList.remove("news");
  if (name === "open") showState("connected", "Connected");
  else if (name === "offline") showState("waiting", "Offline", "what you write is sent when the network is back");
  else if (name === "closed") {
    showState("closed", code === 4401 ? "You were logged out: reload the page" : `Disconnected: ${reason || code}`);
  } else if (name === "waiting") {
    const until = Date.now() + (retryIn ?? 0) * 1000;
    const tick = () => showState("waiting", "Reconnecting", `in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s…`);
    ticking = setInterval(tick, 1000);
    tick();
  } else if (statusBar.dataset.state !== "connecting") {
    showState("waiting", "Reconnecting", "now…");
  }
}

const pulse = connect(`${here.room}socket`, { csrfToken });
pulse.on("state", onState);
now.addEventListener("click", () => pulse.reconnect());

pulse.subscribe(channel.room, {
  presence: true,
  onEvent(frame) {
    if (keepingPlace(() => merge(frame)) === "new") noticed([frame]);
  },
  onSubscribed({ again, missed }) {
    if (!again) refresh();
    else if (missed) caughtUp(missed);
  },
  onGap: refresh,
  onMembers: setPeople,
  onJoin: (member) => addNote(`${visitorOf(member).user} joined`),
  onLeave(member) {
    forget(member);
    addNote(`${visitorOf(member).user} gone`);
  },
  onError: (error) => showState("closed", `Not connected: ${error.message}`),
});
pulse.subscribe(channel.typing, { onEvent: heardTyping });
pulse.subscribe(channel.rooms, { onEvent: heardOfRoom, onGap: countUnread });
