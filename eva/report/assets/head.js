// The head: one row per run with its accuracy and the published one, and what the run was made with.

function drawHead() {
  const runs = store.runs.slice();
  // Of a folder with many runs the newest is what somebody looks for.
  if (settings.live) runs.sort((a, b) => b.head.started.localeCompare(a.head.started));
  byId("runs").replaceChildren(runsTable(runs), ...caveatsOf(runs), ...runs.map(settingsOf).filter(Boolean));
}

const NUMBERS = ["Rounds", "Tokens", "Seconds"];

function runsTable(runs) {
  const names = ["Run", "Accuracy", "95 % interval by video, published", ...NUMBERS, "No answer by"];
  const header = names.map((name) => {
    return element("th", { scope: "col", class: NUMBERS.includes(name) ? "number" : null }, name);
  });
  return element("table", { class: "runs" },
    element("thead", {}, element("tr", {}, ...header)),
    element("tbody", {}, ...runs.map(runRow)));
}

function runRow({ key, head, number }) {
  const progress = settings.live && settings.progress[number];
  return element("tr", {},
    element("th", { scope: "row" }, element("span", { class: "name" }, key), agentOf(head), element("small", {}, head.file),
      progress ? element("small", { class: "progress" }, progress) : null, differencesOf(head)),
    // A run that has not finished has no accuracy yet, and no interval: its first records are not a random sample.
    cell("Accuracy", ...(head.so_far ? [element("div", {}, head.so_far)] : accuracyOf(head))),
    cell("95 % interval by video, published", head.so_far ? boundsOf(head) : intervalOf(head),
      ...(head.published || []).map(publishedLine), ...head.evidence.map(small)),
    cell("Rounds", fixed(head.average_rounds, 2)),
    cell("Tokens", grouped(head.average_total_tokens), head.average_visual_tokens ? small(`${grouped(head.average_visual_tokens)} visual`) : null),
    cell("Seconds", fixed(head.average_seconds, 1)),
    cell("No answer by", failuresOf(head), small(stopsOf(head))));
}

// Where all runs are of EVA, nobody needs to read it.
function agentOf(head) {
  const named = store.runs.some((run) => run.head.agent !== "eva");
  return named ? element("div", { class: "agent" }, head.agent) : null;
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

function accuracyOf(head) {
  return [element("div", { class: "big" }, percent(head.accuracy)),
    small(`${grouped(head.correct)} of ${grouped(head.total)}`)];
}

function boundsOf(head) {
  if (!head.accuracy_bounds) return small("–");
  return small(`in the end from ${percent(head.accuracy_bounds[0])} (the rest wrong) to ${percent(head.accuracy_bounds[1])} (right)`);
}

function stopsOf(head) {
  return Object.entries(head.stop_reasons).map(([reason, count]) => `${reason || "(none)"} ${grouped(count)}`).join(" · ");
}

function failuresOf(head) {
  const counts = Object.entries(head.failures).filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${grouped(count)}`);
  return counts.join(", ") || "none";
}

function publishedLine(figure) {
  if (figure.difference === null) return small(`${percent(figure.accuracy)} published (${figure.source})`);
  const points = `${figure.difference >= 0 ? "+" : "−"}${Math.abs(100 * figure.difference).toFixed(2)} points`;
  const inside = figure.inside_interval;
  const where = inside === null ? "" : `, ${inside ? "inside" : "outside"} the interval`;
  return small(`${percent(figure.accuracy)} published (${figure.source}): ${points}${where}`);
}

function intervalOf(head) {
  const text = head.interval_95 ? head.interval_95.map((end) => percent(end)).join(" to ") : "no interval: few videos";
  return element("div", { class: "interval" }, text);
}

function caveatsOf(runs) {
  const lines = runs.flatMap((run) => run.head.caveats.map((line) => (runs.length > 1 ? `${run.key}: ${line}` : line)));
  return lines.length ? [caveatList(lines)] : [];
}

function caveatList(lines) {
  const items = lines.map((line) => element("li", {}, line));
  return element("ul", { class: "caveats", "aria-label": "What these figures are not" }, ...items);
}

function settingsOf({ key, head }) {
  const made = definitions("settings", [...head.settings, ...head.environment]);
  if (!made.childElementCount) return null;
  if (!head.time_use.length) return folded(`Settings of ${key}`, made);
  const lines = element("ul", { class: "time" }, ...head.time_use.map((line) => element("li", {}, line)));
  return folded(`Settings of ${key}, and where its time went`, element("div", {}, lines, made));
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
