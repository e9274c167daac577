// The head: one row per run with its accuracy and the published one, and what the run was made with.

const NUMBERS = ["Rounds", "Tokens", "Seconds"];

function drawHead() {
  const runs = store.runs.slice();
  // Of a folder with many runs the newest is what somebody looks for.
  if (settings.live) runs.sort((a, b) => b.head.started.localeCompare(a.head.started));
  const names = ["Run", "Accuracy", "95 % interval by video, published", ...NUMBERS, "No answer by"];
  const header = names.map((name) => (
    element("th", { scope: "col", class: NUMBERS.includes(name) ? "number" : null }, name)));
  const table = element("table", { class: "runs" }, element("thead", {}, element("tr", {}, ...header)),
    element("tbody", {}, ...runs.map(runRow)));
  const caveats = runs.flatMap(({ key, head }) => head.caveats.map((line) => (runs.length > 1 ? `${key}: ${line}` : line)));
  byId("runs").replaceChildren(table, caveatList(caveats), ...runs.map(settingsOf));
}

function runRow({ key, head, number }) {
  const counted = (counts) => Object.entries(counts).filter(([, count]) => count > 0)
    .map(([name, count]) => `${name || "(none)"} ${grouped(count)}`);
  // Where all runs are of EVA, nobody needs to read it.
  const named = store.runs.some((run) => run.head.agent !== "eva");
  // A run that has not finished has no accuracy yet, and no interval: its first records are not a random sample.
  const accuracy = head.so_far ? [element("div", {}, head.so_far)]
    : [element("div", { class: "big" }, percent(head.accuracy)), small(`${grouped(head.correct)} of ${grouped(head.total)}`)];
  return element("tr", {},
    element("th", { scope: "row" }, element("span", { class: "name" }, key),
      named ? element("div", { class: "agent" }, head.agent) : null, small(head.file),
      settings.live ? element("small", { class: "progress" }, settings.progress[number]) : null, differencesOf(head)),
    cell("Accuracy", ...accuracy),
    cell("95 % interval by video, published", intervalOf(head),
      ...(head.published || []).map(publishedLine), ...head.evidence.map(small)),
    cell("Rounds", fixed(head.average_rounds, 2)),
    cell("Tokens", grouped(head.average_total_tokens),
      head.average_visual_tokens ? small(`${grouped(head.average_visual_tokens)} visual`) : null),
    cell("Seconds", fixed(head.average_seconds, 1)),
    cell("No answer by", counted(head.failures).join(", ") || "none", small(counted(head.stop_reasons).join(" · "))));
}

// The settings in which the runs of the page differ, beside what stands there as the agent.
function differencesOf(head) {
  const all = store.runs.map((run) => new Map(run.head.settings));
  const differing = head.settings.filter(([name, value]) => all.some((one) => one.size && one.get(name) !== value));
  const others = differing.filter(([name]) => name !== "agent" && name !== "nframes");
  const text = others.map(([name, value]) => `${name} ${value.slice(0, 80)}`).join(" · ");
  return text ? element("small", { class: "differing" }, text) : null;
}

// A phone shows the name of the column before each cell.
function cell(name, ...content) {
  const attributes = { class: NUMBERS.includes(name) ? "number" : null, "data-name": name };
  return element("td", attributes, element("div", {}, ...content));
}

function small(text) {
  return element("small", {}, text);
}

function intervalOf(head) {
  const [low, high] = (head.interval_95 || head.accuracy_bounds || []).map((end) => percent(end));
  if (head.interval_95) return element("div", { class: "interval" }, `${low} to ${high}`);
  if (!head.so_far) return element("div", { class: "interval" }, "no interval: few videos");
  return small(low ? `in the end from ${low} (the rest wrong) to ${high} (right)` : "–");
}

function publishedLine(figure) {
  const published = `${percent(figure.accuracy)} published (${figure.source})`;
  if (figure.difference === null) return small(published);
  const points = `${figure.difference >= 0 ? "+" : "−"}${Math.abs(100 * figure.difference).toFixed(2)} points`;
  const where = { true: ", inside the interval", false: ", outside the interval" }[figure.inside_interval] || "";
  return small(`${published}: ${points}${where}`);
}

function caveatList(lines) {
  const items = lines.map((line) => element("li", {}, line));
  return element("ul", { class: "caveats", "aria-label": "What these figures are not", hidden: !lines.length }, ...items);
}

function settingsOf({ key, head }) {
  const made = definitions("settings", [...head.settings, ...head.environment]);
  const lines = element("ul", { class: "time" }, ...head.time_use.map((line) => element("li", {}, line)));
  const more = head.time_use.length ? ", and where its time went" : "";
  return made.childElementCount ? folded(`Settings of ${key}${more}`, element("div", {}, lines, made)) : "";
}

function drawPaired() {
  const paired = readBlock("paired");
  if (!paired) return;
  const [before, now] = store.runs.map((run) => run.key);
  byId("paired").replaceChildren(
    element("h2", {}, `From ${before} to ${now}`),
    definitions("paired", paired.figures),
    caveatList(paired.notes));
}
