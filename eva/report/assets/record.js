// A record as the run wrote it (docs/records.md) -> what a sample shows. A record may come from anybody: a part of
// another kind than it should be is as one that is missing.

const asList = (value) => (Array.isArray(value) ? value : []);
const asObject = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const asNumber = (value) => (Number.isFinite(value) ? value : null);

function asText(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

// The completed rounds; null where the record does not say them, as the reference's do not.
function roundsOf(record) {
  if (!Array.isArray(record.trajectory)) return null;
  const rounds = record.trajectory.map(asObject).map((round) => ({
    reply: asText(round.reply), usage: asObject(round.usage), seconds: asNumber(round.seconds),
    finish: asText(round.finish_reason), calls: asList(round.calls).map(readCall),
  }));
  // The frames that an agent opens with are shown with the reply to them.
  if (rounds.length) rounds[0].calls.unshift(...asList(record.opening).map(readCall));
  return rounds;
}

// The turns of a conversation in ChatML as [role, text]; what is not ChatML is one turn without a role.
function turnsOf(record) {
  const text = typeof record.messages === "string" ? record.messages : "";
  const [before, ...parts] = text.split("<|im_start|>");
  if (!parts.length) return text.trim() ? [["", before.trim()]] : [];
  return parts.map((part) => {
    const [role, ...lines] = part.split("\n");
    return [role.trim(), lines.join("\n").split("<|im_end|>", 1)[0].trim()];
  });
}

function repliesOf(record) {
  if (Array.isArray(record.trajectory)) return record.trajectory.map((round) => asText(asObject(round).reply));
  return turnsOf(record).filter(([role]) => role !== "user" && role !== "system").map(([, text]) => text);
}

// A call: what was asked in numbers (null where it does not read as such), what the budget left of it, what was shown.
function readCall(value) {
  const call = asObject(value);
  const [asked, budgeted, executed] = [call.asked, call.budgeted, call.executed].map(asObject);
  const paths = asList(call.frames);
  const eachOf = (values) => paths.map((_, at) => (asList(values).length === paths.length ? asNumber(values[at]) : null));
  const [times, labels] = [eachOf(executed.times_s), eachOf(call.labels_s)];
  return {
    asked: asText(call.asked),
    asked_s: windowOf(secondsIn(asked.start_time), secondsIn(asked.end_time)),
    asked_nframes: secondsIn(asked.nframes),
    asked_resize: asked.resize === undefined || asked.resize === null ? 1 : secondsIn(asked.resize),
    nframes: asNumber(budgeted.nframes),
    resize: asNumber(budgeted.resize),
    tokens: asNumber(call.tokens),
    executed_s: windowOf(asNumber(executed.start_s), asNumber(executed.end_s)),
    size: asNumber(executed.width) && asNumber(executed.height) && `${executed.width}×${executed.height}`,
    decoder: asText(executed.decoder),
    seconds: asNumber(executed.seconds),
    error: asText(call.error),
    reason: asText(call.reason),
    frames: paths.map((path, at) => ({ path: asText(path), time_s: times[at], label_s: labels[at] })),
  };
}

function windowOf(start, end) {
  return start === null || end === null ? null : [start, end];
}

// A number, also one that is written as a text, or as hours, minutes and seconds.
function secondsIn(value) {
  if (typeof value !== "string") return asNumber(value);
  if (!value.trim()) return null;
  return asNumber(value.split(":").reduce((sum, part) => 60 * sum + (part.trim() ? Number(part) : NaN), 0));
}

// The annotated time, such as 08:17-09:02, in seconds.
function referenceIn(record) {
  const found = /^(\d{1,4}):(\d\d)-(\d{1,4}):(\d\d)$/.exec(asText(record.time_reference));
  if (!found) return null;
  const [start, end] = [1, 3].map((part) => 60 * found[part] + Number(found[part + 1]));
  return start <= end ? [start, end] : null;
}

// What the annotation has beside the record's own keys.
function extraOf(record) {
  return Object.entries(record).filter(([name]) => !settings.known.includes(name) && name !== "time_reference");
}

// The question proper, its options as [letter, text], and what the prompt says after them. The options are the lines
// that begin with A, B, C, ... in this order, at least two of them. Some datasets' line ends are a backslash and an n.
function questionIn(text) {
  const OPTION = /^\s*(?:\(([A-Z])\)|([A-Z])[.:)])\s*([^]*)$/;
  const lines = text.split(/\n|\\n/);
  const starts = [];
  lines.forEach((line, number) => {
    const found = OPTION.exec(line);
    if (found && (found[1] || found[2]) === String.fromCharCode(65 + starts.length)) starts.push(number);
  });
  if (starts.length < 2) return { stem: lines.join("\n").trim(), options: [], after: "" };
  // An option may go on over further lines, the last one not: what follows it speaks to the model.
  const ends = [...starts.slice(1), starts[starts.length - 1] + 1];
  const options = starts.map((start, at) => {
    const [, bracketed, plain, said] = OPTION.exec(lines.slice(start, ends[at]).join("\n"));
    return [bracketed || plain, said.trim()];
  });
  const [stem, after] = [lines.slice(0, starts[0]), lines.slice(ends[ends.length - 1])].map((part) => part.join("\n").trim());
  return { stem, options, after };
}
