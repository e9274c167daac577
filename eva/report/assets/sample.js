// One sample: the question, where the agent looked, and every round with its reply.

const MOST_SHOWN = 20000; // characters of a text at once; a reply of a megabyte would halt the page

function sampleColumn(row, record, marked) {
  const question = questionIn(row.question);
  const rounds = roundsOf(record);
  const course = courseOf(rounds, record, marked);
  const extra = extraOf(record).map(([name, value]) => [name, asText(value).slice(0, MOST_SHOWN)]);
  return element("section", { class: "column", "aria-label": row.label },
    element("p", { class: "question" }, question.stem || "The record holds no question."),
    optionsOf(question.options, row),
    question.after ? element("p", { class: "quiet" }, question.after) : null,
    factsOf(row, record),
    troubleOf(record),
    ...timelineOf(rounds || [], record, (round) => jump(course[round])),
    ...course,
    extra.length ? folded("More of the record", definitions("settings", extra)) : null,
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

function optionsOf(options, row) {
  if (!options.length) return null;
  const lines = options.map(([letter, text]) => {
    const truth = same(letter, row.truth);
    const answer = names(letter, row.answer);
    const said = [truth ? "truth" : "", answer ? "answered" : ""].filter(Boolean).join(", ");
    return element("li", { class: `${truth ? "truth" : ""} ${answer ? "answer" : ""}` },
      element("b", {}, letter), element("span", {}, text), said ? element("i", {}, said) : null);
  });
  return element("ul", { class: "options", "aria-label": "Options" }, ...lines);
}

function factsOf(row, record) {
  const duration = asNumber(record.video_duration_s);
  const facts = [
    ["Result", element("span", { class: row.status }, `${MARKS[row.status]} ${row.status}`)],
    ["Answer", `${row.answer.trim() || "none"}, truth ${row.truth}`],
    ["Ended by", row.stop],
    ["Rounds", grouped(row.rounds)],
    ["Tokens", grouped(row.tokens)],
    ["Visual tokens", grouped(asNumber(record.estimated_visual_tokens))],
    ["Seconds", fixed(row.seconds, 1)],
    ["Video", `${row.video}${duration ? `, ${clock(duration)}` : ""}`],
    ["File", asText(record.video_file)],
    ["Category", row.categories.join(", ")],
    ["Annotated", asText(record.time_reference)],
  ];
  return definitions("facts", facts.filter(([, value]) => value !== "" && value !== "–"));
}

function troubleOf(record) {
  const lines = [record.error, record.error_detail].map(asText).filter(Boolean);
  const failure = asText(record.failure);
  if (failure && failure !== "model") lines.unshift(`Not the agent's doing (${failure}).`);
  if (!lines.length) return null;
  return element("div", { class: "trouble", role: "note" }, lines.join("\n").slice(0, MOST_SHOWN));
}

// The record, read when it is opened.
function recordBlock(row) {
  const text = element("pre", { class: "record", tabindex: 0 });
  const name = `${row.run.key}-${row.index}.json`.replace(/[^\w.-]+/g, "_");
  const save = async () => saved(name, `${await recordLine(row)}\n`, "application/json");
  const block = folded("Raw record", element("div", {}, element("div", { class: "buttons" }, button("Save", save)), text));
  block.addEventListener("toggle", async () => {
    if (!block.open || text.textContent) return;
    text.append(...cutAt(JSON.stringify(JSON.parse(await recordLine(row)), null, 1), (whole) => [whole], text));
  });
  return block;
}

// --- the rounds

function courseOf(rounds, record, marked) {
  if (rounds) {
    const gallery = [];
    const nodes = rounds.map((round, number) => roundNode(round, number, number === marked, gallery));
    // Where this run ended and the other one continued.
    return marked === rounds.length ? [...nodes, element("section", { class: "round differs" }, element("header", {}, badge()))]
      : nodes;
  }
  const turns = turnsOf(record);
  if (!turns.length) return [element("p", { class: "quiet" }, "The record holds no conversation.")];
  return turns.map(([role, text]) => (
    element("section", { class: "turn" }, element("h4", {}, role || "conversation"), wordsOf(text))));
}

function badge() {
  return element("span", { class: "badge" }, "first difference");
}

function roundNode(round, number, marked, gallery) {
  const name = `Round ${number + 1}`;
  const notes = notesOf(round).map((note) => element("span", {}, note));
  return element("section", { class: marked ? "round differs" : "round", "aria-label": name, tabindex: -1 },
    element("header", {}, element("h3", {}, name), ...notes, marked ? badge() : null),
    wordsOf(round.reply),
    ...round.calls.flatMap((call) => callNodes(call, number, gallery)));
}

function notesOf(round) {
  const { usage, seconds, finish } = round;
  const [read, written] = [usage.prompt_tokens, usage.completion_tokens].map(asNumber);
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

function callNodes(call, round, gallery) {
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
  const size = call.size ? ` of ${call.size}` : "";
  const by = [call.decoder, call.seconds === null ? "" : `${fixed(call.seconds, 1)} s`].filter(Boolean).join(", ");
  const [start, end] = call.executed_s.map(clock);
  const executed = `${start}–${end}, ${plural(call.frames.length, "frame")}${size}`;
  return [" → executed ", element("b", {}, executed), by ? ` (${by})` : ""];
}

// `gallery` collects the frames of the whole sample, which the viewer walks.
function framesOf(call, round, gallery) {
  const items = call.frames.map((frame, number) => {
    const shown = clock(frame.time_s === null ? frame.label_s : frame.time_s);
    const name = `${shown}${toldOtherwise(frame) ? `, told ${clock(frame.label_s)}` : ""}`;
    const at = gallery.push({ frame, name, call, round }) - 1;
    const opener = button([], () => openViewer(gallery, at));
    putPicture(opener, frame, `frame ${number + 1} at ${shown}`);
    return element("li", {}, opener, element("small", {}, name));
  });
  return element("ul", { class: "frames", "aria-label": "Frames" }, ...items);
}

// The label has whole seconds, of the window asked for. Where that window was clamped, the label is another time.
function toldOtherwise({ time_s: time, label_s: label }) {
  return time !== null && label !== null && Math.abs(label - time) > 1;
}

async function putPicture(opener, frame, name) {
  const gone = (why) => opener.replaceWith(element("span", { class: "gone" }, why));
  const { small, no } = await placeOf(frame.path);
  if (no) return gone(no);
  const image = element("img", { alt: name, loading: "lazy", decoding: "async", src: small });
  image.addEventListener("error", () => gone("no longer there"));
  opener.append(image);
}
