// The head: a row a run, with its accuracy drawn beside the published one, and what the run was made with.

function drawHead() {
  const runs = store.runs.filter((run) => run.head);
  const open = [...document.querySelectorAll("#runs details[open] summary")].map((node) => node.textContent);
  byId("runs").replaceChildren(runsTable(runs), ...caveatsOf(runs), ...runs.map(settingsOf).filter(Boolean));
  for (const node of document.querySelectorAll("#runs summary")) node.parentNode.open = open.includes(node.textContent);
}

function runsTable(runs) {
  const numbers = ["Rounds", "Tokens", "Seconds"];
  const names = ["Run", "Accuracy", "95 % interval by video, published ◆", ...numbers, "No answer by"];
  const header = names.map((name) => {
    return element("th", { scope: "col", class: numbers.includes(name) ? "number" : null }, name);
  });
  return element("table", { class: "runs" },
    element("thead", {}, element("tr", {}, ...header)),
    element("tbody", {}, ...runs.map(runRow)));
}

function runRow({ key, head }) {
  return element("tr", { "data-run": key },
    element("th", { scope: "row" }, element("span", { class: "name" }, key), element("small", {}, head.file)),
    element("td", {}, ...(head.so_far ? soFarOf(head) : accuracyOf(head))),
    element("td", {}, head.so_far ? boundsOf(head) : forest(head), ...head.published.map(publishedLine), ...head.evidence.map(small)),
    element("td", { class: "number" }, fixed(head.rounds, 2)),
    element("td", { class: "number" }, grouped(head.tokens)),
    element("td", { class: "number" }, head.seconds === null ? "–" : fixed(head.seconds, 1)),
    element("td", {}, failuresOf(head), small(stopsOf(head))));
}

function small(text) {
  return element("small", {}, text);
}

function accuracyOf(head) {
  return [element("div", { class: "big" }, percent(head.accuracy)),
    small(`${grouped(head.correct)} of ${grouped(head.total)}`)];
}

// A run that has not finished has no accuracy yet, and no interval: what came first is no draw from all.
function soFarOf(head) {
  return [element("div", {}, head.so_far)];
}

function boundsOf(head) {
  if (!head.bounds) return small("–");
  return small(`in the end from ${percent(head.bounds[0])} (the rest wrong) to ${percent(head.bounds[1])} (right)`);
}

function stopsOf(head) {
  return head.stop_reasons.map(([reason, count]) => `${reason || "(none)"} ${grouped(count)}`).join(" · ");
}

function failuresOf(head) {
  const counts = head.failures.filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${grouped(count)}`);
  return counts.join(", ") || "none";
}

function publishedLine(figure) {
  if (figure.difference === null) return small(`${percent(figure.accuracy)} published (${figure.source})`);
  const points = `${figure.difference >= 0 ? "+" : "−"}${Math.abs(100 * figure.difference).toFixed(2)} points`;
  const inside = figure.inside_interval;
  const where = inside === null ? "" : `, ${inside ? "inside" : "outside"} the interval`;
  return small(`${percent(figure.accuracy)} published (${figure.source}): ${points}${where}`);
}

function forest(head) {
  const low = head.interval ? head.interval[0] : head.accuracy;
  const high = head.interval ? head.interval[1] : head.accuracy;
  const published = head.published.map((figure) => figure.accuracy);
  const from = Math.max(0, Math.floor(10 * Math.min(low, ...published) - 0.5) / 10);
  const to = Math.min(1, Math.ceil(10 * Math.max(high, ...published) + 0.5) / 10);
  const place = (value) => 6 + 248 * (value - from) / (to - from);
  const between = head.interval ? `${percent(low, 1)} – ${percent(high, 1)}` : "no interval";
  const interval = head.interval ? `${percent(low)} to ${percent(high)}` : "no interval: fewer than two videos";
  return drawn("svg", { class: "forest", viewBox: "0 0 260 34", role: "img", "aria-label": interval },
    drawn("title", {}, interval),
    drawn("line", { class: "axis", x1: 6, x2: 254, y1: 20, y2: 20 }),
    drawn("text", { x: 6, y: 32 }, percent(from, 0)),
    drawn("text", { x: 130, y: 32, "text-anchor": "middle" }, between),
    drawn("text", { x: 254, y: 32, "text-anchor": "end" }, percent(to, 0)),
    drawn("line", { class: "interval", x1: place(low), x2: place(high), y1: 12, y2: 12 }),
    drawn("circle", { class: "value", cx: place(head.accuracy), cy: 12, r: 4.5 }),
    ...published.map((value) => drawn("path", { class: "published", d: `M${place(value)} 6l5 6l-5 6l-5-6z` })));
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
  if (!head.settings.length) return null;
  return folded(`Settings of ${key}`, definitions("settings", head.settings));
}

function drawPaired() {
  const paired = readBlock("paired");
  if (!paired) return;
  const [ours, theirs] = store.runs.map((run) => run.head.file);
  byId("paired").replaceChildren(
    element("h2", {}, `${ours} against ${theirs}`),
    definitions("paired", paired.figures),
    caveatList(paired.notes));
}
