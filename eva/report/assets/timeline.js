// Where in the video the agent looked: one line per call, with the window asked for, the window executed, and a tick per frame.

const LEFT = 44;
const RIGHT = 14;
const LINE_HEIGHT = 22;
const NARROWEST = 6; // of what marks a look, in pixels

// The timeline and its key. `jump` goes to a round by its number. It is drawn for the width that it has, so that a text
// and a look have their size in pixels on every screen.
function timelineOf(rounds, record, jump) {
  const calls = rounds.flatMap((round, number) => round.calls.map((call) => ({ ...call, round: number })));
  const reference = referenceIn(record);
  if (!calls.length && !reference) return [];
  // Without the video's length, the last time that was looked at is the end.
  const ends = calls.flatMap((call) => [...(call.executed_s || []), ...call.frames.map((frame) => frame.time_s || 0)]);
  const length = asNumber(record.video_duration_s) || Math.max(1, ...ends, ...(reference || []));
  const holder = element("div", { class: "timeline" });
  let drawnWidth = 0;
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.round(contentRect.width);
    if (!width || width === drawnWidth) return;
    drawnWidth = width;
    holder.replaceChildren(timeline(calls, reference, length, width, jump));
  }).observe(holder);
  return [holder, timelineKey(reference)];
}

function timeline(calls, reference, length, width, jump) {
  const right = width - RIGHT;
  const place = (seconds) => LEFT + (right - LEFT) * Math.min(1, Math.max(0, seconds / length));
  const height = Math.max(1, calls.length) * LINE_HEIGHT + 34;
  const lines = calls.map((call, at) => lineOf(call, 10 + at * LINE_HEIGHT, place, right, jump));
  const label = `${plural(calls.length, "call")} on a video of ${clock(length)}`;
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label },
    referenceOf(reference, place, height), ...axisOf(length, place, right, height - 18), ...lines);
}

function referenceOf(reference, place, height) {
  if (!reference) return null;
  const [start, end] = reference.map(place);
  return drawn("rect", { class: "reference", x: start, y: 4, width: Math.max(2, end - start), height: height - 24 },
    drawn("title", {}, `annotated: ${reference.map(clock).join(" to ")}`));
}

function axisOf(length, place, right, y) {
  const step = stepOf(length, Math.max(2, Math.floor((right - LEFT) / 64)));
  const written = (at, anchor) => drawn("text", { x: place(at), y: y + 14, "text-anchor": anchor }, clock(at));
  const marks = [drawn("line", { class: "axis", x1: LEFT, x2: right, y1: y, y2: y }), written(length, "end")];
  for (let at = 0; at <= length; at += step) {
    marks.push(drawn("line", { class: "axis", x1: place(at), x2: place(at), y1: y, y2: y + 4 }));
    if (place(at) < right - 56) marks.push(written(at, "middle"));
  }
  return marks;
}

// At most `most` labels, at round times.
function stepOf(length, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  return steps.find((step) => length / step <= most) || Math.ceil(length / (3600 * most)) * 3600;
}

// One call. A click on it, or Enter, goes to its round.
function lineOf(call, y, place, right, jump) {
  const baseline = y + LINE_HEIGHT / 2 + 2;
  const timed = call.frames.filter((frame) => frame.time_s !== null);
  const said = saidOf(call);
  const line = drawn("g", { class: "look", role: "button", tabindex: 0, "aria-label": said }, drawn("title", {}, said),
    drawn("rect", { class: "hit", x: 0, y, width: right, height: LINE_HEIGHT }),
    drawn("text", { x: LEFT - 8, y: baseline, "text-anchor": "end" }, `R${call.round + 1}`),
    lookOf(call.asked_s, "asked", y, LINE_HEIGHT - 4, place),
    lookOf(call.executed_s, "executed", y + 2, LINE_HEIGHT - 8, place),
    ...timed.map((frame) => tickOf(frame, y + 2, place)),
    call.error ? drawn("text", { class: "failure", x: LEFT + 6, y: baseline }, `✗ ${call.error}`) : null);
  line.addEventListener("click", () => jump(call.round));
  line.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    jump(call.round);
  });
  return line;
}

function saidOf(call) {
  const between = (window) => window.map(clock).join(" to ");
  return [`Round ${call.round + 1}`, call.asked_s && `asked for ${between(call.asked_s)}`,
    call.executed_s && `executed ${between(call.executed_s)}`, plural(call.frames.length, "frame"), call.error]
    .filter(Boolean).join(", ");
}

function tickOf(frame, y, place) {
  const x = place(frame.time_s);
  const attributes = { class: "frame", x1: x, x2: x, y1: y, y2: y + LINE_HEIGHT - 8 };
  return drawn("line", attributes, drawn("title", {}, clock(frame.time_s)));
}

function lookOf(window, kind, y, height, place) {
  if (!window) return null;
  const [start, end] = [Math.min(...window), Math.max(...window)].map(place);
  const width = Math.max(NARROWEST, end - start);
  return drawn("rect", { class: kind, x: (start + end - width) / 2, y, width, height, rx: 2 });
}

function timelineKey(reference) {
  const box = { x: 1, y: 1, width: 18, height: 8, rx: 2 };
  return element("p", { class: "key" },
    keyed("asked for", drawn("rect", { class: "asked", ...box })),
    keyed("executed", drawn("rect", { class: "executed", ...box })),
    keyed("frame", drawn("line", { class: "frame", x1: 10, x2: 10, y1: 0, y2: 10 })),
    reference ? keyed("annotated", drawn("rect", { class: "reference", ...box })) : null);
}

function keyed(name, shape) {
  const picture = drawn("svg", { class: "timeline", viewBox: "0 0 20 10", "aria-hidden": "true" }, shape);
  return element("span", {}, picture, name);
}
