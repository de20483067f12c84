/* Shows all that the client tells; the tests look at the page and call window.pulse. */

import { connect } from "../gpulse/gpulse.js";

const { socket, csrfToken } = document.body.dataset;
const [state, pid, members, states, events, notes] = [
  "state", "pid", "members", "states", "events", "notes",
].map((id) => document.getElementById(id));

const pulse = (window.pulse = connect(socket, { csrfToken, random: () => 0.05 }));

pulse.on("state", (change) => {
  state.textContent = [change.state, change.transport ?? change.code].filter(Boolean).join(" ");
  add(states, state.textContent);
});
pulse.on("push", (data) => (pid.textContent = data.pid));

pulse.subscribe("room:a", {
  presence: true,
  onEvent: ({ text }) => add(events, text),
  onMembers: (all) => (members.textContent = all.sort().join(" ")),
  onSubscribed: ({ again, missed }) => add(notes, again ? `again, ${missed} missed` : "subscribed"),
  onGap: () => add(notes, "gap"),
});

function add(list, text) {
  const item = document.createElement("li");
  item.textContent = text;
  list.append(item);
}
