// One sample: the question, where the agent looked, and every round with its reply.

const MOST_SHOWN = 20000; // characters of a text at once; a reply of a megabyte would halt the page

function sampleColumn(row, sample, marked) {
  const course = courseOf(sample, marked);
  return element("section", { class: "column", "aria-label": row.label },
    element("p", { class: "question" }, sample.stem || "The record holds no question."),
    optionsOf(sample),
    sample.after ? element("p", { class: "quiet" }, sample.after) : null,
    factsOf(row, sample),
    troubleOf(sample),
    ...timelineOf(sample, (round) => jump(course[round])),
    ...course,
    extraOf(sample),
    recordBlock(row));
}

function jump(round) {
  round.scrollIntoView({ block: "start" });
  round.focus({ preventScroll: true });
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
  return definitions("facts", shown);
}

function troubleOf(sample) {
  const lines = [sample.error, sample.error_detail].filter(Boolean);
  if (sample.failure && sample.failure !== "model") lines.unshift(`Not the agent's doing (${sample.failure}).`);
  if (!lines.length) return null;
  return element("div", { class: "trouble", role: "note" }, lines.join("\n").slice(0, MOST_SHOWN));
}

function extraOf(sample) {
  if (!sample.extra.length) return null;
  const rows = sample.extra.map(([name, value]) => [name, value.slice(0, MOST_SHOWN)]);
  return folded("More of the record", definitions("settings", rows));
}

// --- the rounds

function courseOf(sample, marked) {
  if (sample.trajectory) {
    const gallery = [];
    const rounds = sample.trajectory.map((round, number) => roundOf(round, number, number === marked, gallery));
    return marked === rounds.length ? [...rounds, endedHere()] : rounds;
  }
  if (!sample.turns.length) return [element("p", { class: "quiet" }, "The record holds no conversation.")];
  return sample.turns.map(turnOf);
}

// This run ended here, and the other one continued.
function endedHere() {
  return element("section", { class: "round differs" }, element("header", {}, badge()));
}

function turnOf([role, text]) {
  return element("section", { class: "turn" }, element("h4", {}, role || "conversation"), wordsOf(text));
}

function badge() {
  return element("span", { class: "badge" }, "first difference");
}

function roundOf(round, number, marked, gallery) {
  const name = `Round ${number + 1}`;
  const notes = notesOf(round).map((note) => element("span", {}, note));
  return element("section", { class: marked ? "round differs" : "round", "aria-label": name, tabindex: -1 },
    element("header", {}, element("h3", {}, name), ...notes, marked ? badge() : null),
    wordsOf(round.reply),
    ...round.calls.flatMap((call) => callOf(call, number, gallery)));
}

function notesOf(round) {
  const { prompt_tokens: read, completion_tokens: written, seconds, finish } = round;
  const notes = [];
  if (read !== null) notes.push(`${grouped(read)} tokens in, ${grouped(written)} out`);
  if (seconds !== null) notes.push(`${fixed(seconds, 1)} s`);
  if (finish && finish !== "stop") notes.push(`finish reason ${finish}`);
  return notes;
}

// What the agent wrote, with its calls and its answer marked. They are text nodes: a tag of the model stays a text.
function wordsOf(text) {
  const node = element("div", { class: "words" });
  node.append(...cutAt(text, piecesOf, node));
  return node;
}

// The beginning of a long text, with a button that puts all of it into `node`.
function cutAt(text, pieces, node) {
  if (text.length <= MOST_SHOWN) return pieces(text);
  const showAll = () => node.replaceChildren(...pieces(text));
  const more = button(`show all ${grouped(text.length)} characters`, showAll, { class: "more" });
  return [...pieces(text.slice(0, MOST_SHOWN)), "… ", more];
}

const TAGS = /(<\/?(?:tool_call|answer)>)/;
const KINDS = new Map([["<tool_call>", "call"], ["<answer>", "said"]]);

// In one pass, however many tags a text has. A block without an end is marked up to the end of the text.
function piecesOf(text) {
  if (!text) return [element("span", { class: "quiet" }, "(an empty reply)")];
  const pieces = [];
  let block = null;
  for (const part of text.split(TAGS)) {
    if (!block && KINDS.has(part)) {
      block = { node: element("span", { class: KINDS.get(part) }), end: part.replace("<", "</") };
      pieces.push(block.node);
    }
    if (block) block.node.append(part);
    else pieces.push(part);
    if (block && part === block.end) block = null;
  }
  return pieces;
}

// --- a call and its frames

function callOf(call, round, gallery) {
  return call.frames.length ? [callLine(call), framesOf(call, round, gallery)] : [callLine(call)];
}

function callLine(call) {
  const line = element("p", { class: "call-line" }, ...askedParts(call), ...executedParts(call));
  const reason = call.reason ? `: ${call.reason}` : "";
  if (call.error) line.append(element("b", { class: "wrong" }, ` ✗ ${call.error}${reason}`));
  return line;
}

function askedParts(call) {
  if (call.asked_nframes === null) return ["asked ", element("b", {}, call.asked.slice(0, 500))];
  const window = call.asked_s ? `${clock(call.asked_s[0])}–${clock(call.asked_s[1])}` : "no window";
  const asked = `${window}, ${plural(call.asked_nframes, "frame")} at ×${short(call.asked_resize)}`;
  const parts = ["asked ", element("b", {}, asked)];
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
  const [start, end] = call.executed_s.map(clock);
  const executed = `${start}–${end}, ${plural(call.frames.length, "frame")}${size}`;
  return [" → executed ", element("b", {}, executed), by ? ` (${by})` : ""];
}

// `gallery` collects the frames of the whole sample, which the viewer walks.
function framesOf(call, round, gallery) {
  const items = call.frames.map((frame, number) => {
    const shown = frame.time_s === null ? frame.label : clock(frame.time_s);
    const name = `${shown}${toldOtherwise(frame) ? `, told ${frame.label}` : ""}`;
    const at = gallery.push({ frame, name, call, round }) - 1;
    const opener = button([], () => openViewer(gallery, at));
    putPicture(opener, frame, `frame ${number + 1} at ${shown}`);
    return element("li", {}, opener, element("small", {}, name));
  });
  return element("ul", { class: "frames", "aria-label": "Frames" }, ...items);
}

// The label has whole seconds, of the window asked for. Where that window was clamped, the label is another time.
function toldOtherwise(frame) {
  if (!frame.label || frame.time_s === null) return false;
  const [minutes, seconds] = frame.label.split(":").map(Number);
  return Math.abs(60 * minutes + seconds - frame.time_s) > 1;
}

async function putPicture(opener, frame, name) {
  const gone = (why) => opener.replaceWith(element("span", { class: "gone" }, why));
  const place = await placed(frame);
  const address = await pictureOf(place);
  if (!address) {
    gone(place.no || "no picture");
    return;
  }
  const image = element("img", { alt: name, loading: "lazy", decoding: "async", src: address });
  image.addEventListener("error", () => gone("no longer there"));
  opener.append(image);
}
