// One sample: the question, where the agent looked, and every round in its own words.

const MOST_SHOWN = 20000; // characters of a text at once; a reply of a megabyte would halt the page

function sampleSide(row, sample, marked) {
  return element("section", { class: "side", "aria-label": row.label },
    element("p", { class: "question" }, sample.stem || "The record holds no question."),
    optionsOf(sample),
    sample.after ? element("p", { class: "quiet" }, sample.after) : null,
    factsOf(row, sample),
    troubleOf(sample),
    timeline(sample),
    timeline(sample) ? timelineKey(sample) : null,
    ...courseOf(sample, marked),
    extraOf(sample));
}

function same(a, b) {
  return a.trim().toUpperCase() === b.trim().toUpperCase();
}

// An answer such as "B. two" is not what is counted as right, but shows which option was meant.
function names(letter, answer) {
  const text = answer.trim().toUpperCase();
  return text.startsWith(letter) && !/^\w/.test(text.slice(letter.length));
}

function optionsOf(sample) {
  if (!sample.options.length) return null;
  const lines = sample.options.map(([letter, text]) => {
    const truth = same(letter, sample.truth);
    const answer = names(letter, sample.answer);
    const said = [truth ? "truth" : "", answer ? "answered" : ""].filter(Boolean).join(", ");
    return element("li", { class: `${truth ? "truth" : ""} ${answer ? "answer" : ""}` },
      element("b", {}, letter), element("span", {}, text), said ? element("i", {}, said) : null);
  });
  return element("ul", { class: "options", "aria-label": "Options" }, ...lines);
}

function factsOf(row, sample) {
  const facts = [
    ["Result", element("span", { class: sample.status }, `${MARKS[sample.status]} ${sample.status}`)],
    ["Answer", `${sample.answer.trim() || "none"}, truth ${sample.truth}`],
    ["Ended by", sample.stop],
    ["Rounds", grouped(sample.rounds)],
    ["Tokens", grouped(sample.tokens)],
    ["Visual tokens", grouped(sample.visual_tokens)],
    ["Seconds", fixed(sample.seconds, 1)],
    ["Video", `${sample.video}${sample.duration_s ? `, ${clock(sample.duration_s)}` : ""}`],
    ["File", sample.video_file],
    ["Category", sample.categories.join(", ")],
    ["Annotated", sample.reference],
  ];
  const shown = facts.filter(([, value]) => value !== "" && value !== "–");
  return element("dl", { class: "facts" }, ...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function troubleOf(sample) {
  const lines = [sample.error, sample.error_detail].filter(Boolean);
  if (sample.failure && sample.failure !== "model") lines.unshift(`Not the agent's doing (${sample.failure}).`);
  return lines.length ? element("div", { class: "trouble", role: "note" }, lines.join("\n").slice(0, MOST_SHOWN)) : null;
}

function extraOf(sample) {
  if (!sample.extra.length) return null;
  const rows = sample.extra.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value.slice(0, MOST_SHOWN))));
  return element("details", {}, element("summary", {}, "More of the record"), element("dl", { class: "settings" }, ...rows));
}

// --- the rounds

function courseOf(sample, marked) {
  if (sample.trajectory) {
    const missing = marked === sample.trajectory.length ? [element("section", { class: "round differs" }, element("header", {}, badge()))] : [];
    return [...sample.trajectory.map((round, number) => roundOf(round, number, number === marked)), ...missing];
  }
  if (!sample.turns.length) return [element("p", { class: "quiet" }, "The record holds no conversation.")];
  return sample.turns.map(([role, text]) => element("section", { class: "turn" }, element("h4", {}, role || "conversation"), wordsOf(text)));
}

function badge() {
  return element("span", { class: "badge" }, "first difference");
}

function roundOf(round, number, marked) {
  const notes = [];
  if (round.prompt_tokens !== null) notes.push(`${grouped(round.prompt_tokens)} tokens in, ${grouped(round.completion_tokens)} out`);
  if (round.seconds !== null) notes.push(`${fixed(round.seconds, 1)} s`);
  if (round.finish && round.finish !== "stop") notes.push(`finish reason ${round.finish}`);
  return element("section", { class: marked ? "round differs" : "round", "aria-label": `Round ${number + 1}` },
    element("header", {}, element("h3", {}, `Round ${number + 1}`), ...notes.map((note) => element("span", {}, note)), marked ? badge() : null),
    wordsOf(round.reply),
    ...round.calls.flatMap((call) => callOf(call)));
}

// What the agent wrote, with its calls and its answer set off. Texts only: a tag of the model's stays a text.
function wordsOf(text) {
  const node = element("div", { class: "words" });
  node.append(...piecesOf(text.slice(0, MOST_SHOWN)));
  if (text.length > MOST_SHOWN) {
    const all = button(`show all ${grouped(text.length)} characters`, () => node.replaceChildren(...piecesOf(text)), { class: "more" });
    node.append("… ", all);
  }
  return node;
}

function piecesOf(text) {
  if (!text) return [element("span", { class: "quiet" }, "(an empty reply)")];
  const kinds = [["<tool_call>", "</tool_call>", "call"], ["<answer>", "</answer>", "said"]];
  const pieces = [];
  let from = 0;
  while (from < text.length) {
    const found = kinds.map((kind) => [text.indexOf(kind[0], from), kind]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0];
    if (!found) break;
    const [start, [, close, name]] = found;
    const end = text.indexOf(close, start);
    if (end < 0) break;
    pieces.push(text.slice(from, start), element("span", { class: name }, text.slice(start, end + close.length)));
    from = end + close.length;
  }
  pieces.push(text.slice(from));
  return pieces;
}

// --- a call and its frames

function callOf(call) {
  const line = element("p", { class: "call-line" }, ...askedParts(call), ...executedParts(call));
  if (call.error) line.append(element("b", { class: "wrong" }, ` ✗ ${call.error}${call.reason ? `: ${call.reason}` : ""}`));
  return call.frames.length ? [line, framesOf(call)] : [line];
}

function askedParts(call) {
  if (call.asked_nframes === null) return ["asked ", element("b", {}, call.asked.slice(0, 500))];
  const window = call.asked_s ? `${clock(call.asked_s[0])}–${clock(call.asked_s[1])}` : "no window";
  const parts = ["asked ", element("b", {}, `${window}, ${plural(call.asked_nframes, "frame")} at ×${short(call.asked_resize)}`)];
  const cut = [];
  if (call.nframes !== null && call.nframes !== call.asked_nframes) cut.push(plural(call.nframes, "frame"));
  if (call.resize !== null && call.resize !== call.asked_resize) cut.push(`×${short(call.resize)}`);
  if (cut.length) parts.push(", cut to the budget ", element("b", {}, cut.join(" at ")));
  if (call.tokens) parts.push(`, ${plural(call.tokens, "visual token")}`);
  return parts;
}

function executedParts(call) {
  if (!call.executed_s) return call.frames.length ? [` → ${plural(call.frames.length, "frame")}`] : [];
  const size = call.width ? ` of ${call.width}×${call.height}` : "";
  const by = [call.decoder, call.seconds === null ? "" : `${fixed(call.seconds, 1)} s`].filter(Boolean).join(", ");
  return [" → executed ", element("b", {}, `${clock(call.executed_s[0])}–${clock(call.executed_s[1])}, ${plural(call.frames.length, "frame")}${size}`), by ? ` (${by})` : ""];
}

function framesOf(call) {
  const items = call.frames.map((frame, number) => {
    const shown = frame.time_s === null ? frame.label : clock(frame.time_s);
    const told = toldOtherwise(frame) ? `, told ${frame.label}` : "";
    const item = element("li", {}, element("small", {}, `${shown}${told}`));
    putPicture(item, frame, `frame ${number + 1} at ${shown}`);
    return item;
  });
  return element("ul", { class: "frames", "aria-label": "Frames" }, ...items);
}

// The label is in whole seconds, of the window asked for; where that was clamped, it is another time altogether.
function toldOtherwise(frame) {
  if (!frame.label || frame.time_s === null) return false;
  const [minutes, seconds] = frame.label.split(":").map(Number);
  return Math.abs(60 * minutes + seconds - frame.time_s) > 1;
}

async function putPicture(item, frame, name) {
  const address = frame.no ? null : await pictureOf(frame);
  if (!address) {
    item.prepend(element("span", { class: "gone" }, frame.no || "no picture"));
    return;
  }
  const image = element("img", { alt: name, loading: "lazy", decoding: "async", src: address });
  image.addEventListener("error", () => image.replaceWith(element("span", { class: "gone" }, "no longer there")));
  item.prepend(image);
}
