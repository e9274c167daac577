// The page itself: the filters, the open sample, the keyboard, and the updates of a live report.

const POLL_MS = 2000;
const CHANGES = ["lost", "gained", "answer", "course", "same", "alone"];
const CHANGE_NAMES = {
  flips: "right in one run only", lost: "no longer right", gained: "now right", answer: "another answer",
  course: "same answer, other rounds", same: "the same", alone: "only in the newer run",
};

// --- against another run

// The older run is the first one, and stands on the left.
function otherRow(row) {
  return store.runs[0].byIndex.get(row.index);
}

function changeOf(row) {
  const other = otherRow(row);
  if (!other) return "alone";
  const [now, before] = [row.status === "right", other.status === "right"];
  if (now !== before) return now ? "gained" : "lost";
  if (!same(row.answer, other.answer)) return "answer";
  return row.differs === null ? "same" : "course";
}

function changed(row, kind) {
  return kind === "flips" ? row.change === "lost" || row.change === "gained" : row.change === kind;
}

function changeRank(row) {
  return CHANGES.indexOf(row.change);
}

function changeCell(row) {
  const kind = { gained: "right", lost: "wrong" }[row.change] || "quiet";
  return element("span", { class: kind }, changeText(row));
}

// Such as "right → no answer, differs from round 3".
function changeText(row) {
  const other = otherRow(row);
  if (!other || row.change === "same") return CHANGE_NAMES[row.change];
  const [before, now] = [other, row].map(({ status }) => (status === "unanswered" ? "no answer" : status));
  const what = before !== now ? `${before} → ${now}` : `${now}${row.change === "answer" ? ", another answer" : ""}`;
  return row.differs === null ? what : `${what}, differs from round ${row.differs + 1}`;
}

function listedRows() {
  return settings.against ? store.runs[1].rows : store.rows;
}

function pairRows() {
  const differs = readBlock("differs");
  listedRows().forEach((row) => {
    row.differs = differs[row.at];
    row.change = changeOf(row);
  });
  view.by = "change";
}

// --- the filters

function counted(of) {
  const counts = new Map();
  for (const row of view.ordered) for (const value of [of(row)].flat()) counts.set(value, (counts.get(value) || 0) + 1);
  return counts;
}

function statusChoices() {
  const counts = counted((row) => row.status);
  const present = STATUSES.filter((status) => counts.has(status) || view.status === status);
  const buttons = ["", ...present].map((status) => {
    const count = status ? counts.get(status) || 0 : view.ordered.length;
    const attributes = { "aria-pressed": String(view.status === status), "data-status": status || "all" };
    return button([`${status || "all"} `, small(grouped(count))], () => choose("status", status), attributes);
  });
  return element("div", { class: "choices", role: "group", "aria-label": "Result" }, ...buttons);
}

function selection(name, label, options) {
  // A link can name a value that no sample has.
  if (view[name] && !options.some(([value]) => value === view[name])) options.push([view[name], `${view[name]} (0)`]);
  const node = element("select", { "aria-label": label, name }, element("option", { value: "" }, label),
    ...options.map(([value, text]) => element("option", { value, selected: view[name] === value }, text)));
  node.addEventListener("change", () => choose(name, node.value));
  return node;
}

function withCounts(counts, order) {
  return [...counts].sort(order).map(([value, count]) => [String(value), `${value} (${grouped(count)})`]);
}

function changeOptions() {
  const counts = counted((row) => row.change);
  counts.set("flips", (counts.get("lost") || 0) + (counts.get("gained") || 0));
  const kinds = Object.keys(CHANGE_NAMES).filter((kind) => counts.get(kind));
  return kinds.map((kind) => [kind, `${CHANGE_NAMES[kind]} (${grouped(counts.get(kind))})`]);
}

function drawFilters() {
  const search = byId("search") || searchField();
  const rounds = counted((row) => row.rounds);
  const categories = counted((row) => row.categories);
  const runs = counted((row) => row.run.key);
  rounds.delete(null);
  const parts = [search, byId("filter") || filterField(), byId("problem") || element("span", { id: "problem", role: "alert" }),
    statusChoices()];
  if (settings.against) {
    parts.push(selection("change", "Any change", changeOptions()));
  } else if (runs.size > 1) parts.push(selection("run", "All runs", withCounts(runs)));
  const largestFirst = (a, b) => b[1] - a[1];
  const fewestFirst = (a, b) => a[0] - b[0];
  if (categories.size) parts.push(selection("category", "All categories", withCounts(categories, largestFirst)));
  if (rounds.size > 1) parts.push(selection("rounds", "Any rounds", withCounts(rounds, fewestFirst)));
  parts.push(byId("count") || element("span", { id: "count", role: "status" }), byId("save") || saveMenu());
  const focused = document.activeElement;
  byId("filters").replaceChildren(...parts);
  if (focused && focused.form === byId("filters")) focused.focus();
}

function searchField() {
  const node = element("input", {
    type: "search", id: "search", autocomplete: "off", spellcheck: "false",
    placeholder: "Search questions, answers, videos, replies",
    "aria-label": "Search the samples", "aria-keyshortcuts": "/",
  });
  node.addEventListener("input", () => search(node.value));
  node.addEventListener("focus", searchReplies);
  return node;
}

function filterField() {
  const node = element("input", {
    type: "text", id: "filter", autocomplete: "off", spellcheck: "false", maxlength: 500,
    placeholder: "Filter: wrong and rounds > 2", "aria-label": "Filter by the columns", "aria-describedby": "problem",
    title: `Words: ${[...Object.keys(WORDS)].join(", ")}. Columns: ${Object.keys(FIELDS).join(", ")}, with = != < <= > >= `
      + "or ~ (contains). Joined by and, or, not and brackets.",
  });
  node.addEventListener("input", () => filter(node.value));
  return node;
}

function saveMenu() {
  const node = tableMenu("Copy or save", samplesTable, "samples");
  node.id = "save";
  node.lastChild.append(button("Save records as JSONL", () => { node.open = false; saveRecords(); }));
  return node;
}

function search(text) {
  view.search = text;
  view.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  narrow();
}

function filter(text) {
  view.filter = text;
  readFilter();
  narrow();
}

// With a text that cannot be read, the filter stays that was before it.
function readFilter() {
  let problem = "";
  try {
    view.meant = parseFilter(view.filter);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    problem = `The filter is not read: ${error.message}.`;
  }
  byId("filter").setAttribute("aria-invalid", String(Boolean(problem)));
  byId("problem").textContent = problem;
}

// The view that the address names, where it is another one.
function takeView() {
  if (!takeAddressedView()) return;
  view.words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  [byId("search").value, byId("filter").value, view.meant] = [view.search, view.filter, null];
  readFilter();
  sortRows();
  filterRows();
  drawFilters();
  drawHeader();
  drawRows();
  drawCount();
  if (view.search) searchReplies();
}

function choose(name, value) {
  view[name] = value;
  const pressed = document.activeElement.dataset.status;
  narrow();
  drawFilters();
  document.querySelector(pressed ? `[data-status="${pressed}"]` : `select[name="${name}"]`).focus();
}

function narrow() {
  keepAddress();
  filterRows();
  byId("scroller").scrollTop = 0;
  drawRows();
  drawCount();
}

function drawCount(reading = "") {
  const all = view.ordered.length;
  const shown = view.shown.length;
  const part = shown === all ? "" : `${grouped(shown)} of `;
  byId("count").textContent = part + plural(all, "sample") + reading;
}

let searching = false;

// The rows of a live report contain the replies.
async function searchReplies() {
  if (settings.live || searching) return;
  searching = true;
  await readReplies((done, run) => drawCount(done < run.rows.length ? `; replies of ${grouped(done)} read` : ""));
  if (view.words.length) refresh();
  drawCount();
}

// --- one sample

let opening = 0;

function open(row) {
  if (location.hash === hashOf(row)) show(row);
  else location.hash = hashOf(row);
}

// Previous and next replace the entry in the browser's history, so that "back" returns to the first opened sample.
function walk(step) {
  const at = view.shown.indexOf(view.current);
  const next = view.shown[at < 0 ? 0 : at + step];
  if (!next) return;
  if (view.current) history.replaceState(null, "", hashOf(next));
  else history.pushState(null, "", hashOf(next));
  show(next);
}

function route() {
  takeView();
  const place = wanted();
  if (!place) return close();
  const found = rowAt(...place);
  // A comparison lists the samples of the newer run.
  const row = (settings.against && found && store.runs[1].byIndex.get(found.index)) || found;
  if (row) show(row);
  else missing(`There is no sample ${place[1]} of ${place[0]}${settings.live ? " yet" : ""}.`);
}

function reading(on) {
  const before = document.body.classList.contains("reading");
  document.body.classList.toggle("reading", on);
  byId("sample").hidden = !on;
  if (before !== on) drawHeader();
}

function close() {
  opening++;
  const last = view.current;
  view.current = null;
  reading(false);
  drawRows();
  if (last) reveal(last);
}

function missing(message) {
  opening++;
  view.current = null;
  reading(true);
  byId("sample").replaceChildren(trouble(message));
  byId("sample").setAttribute("aria-label", "Sample");
  drawRows();
}

async function show(row, { quietly = false } = {}) {
  const mine = ++opening;
  view.current = row;
  reading(true);
  if (!quietly) reveal(row);
  drawRows();
  const nodes = await sampleNodes(row).catch((error) => [trouble(`This sample cannot be shown: ${error.message}`)]);
  if (mine !== opening) return;
  byId("sample").replaceChildren(...nodes);
  byId("sample").setAttribute("aria-label", nameOf(row));
  if (quietly) return;
  window.scrollTo(0, 0);
  const busy = [byId("table"), byId("filters")].some((part) => part.contains(document.activeElement));
  if (!busy) byId("sample").focus({ preventScroll: true });
}

function nameOf(row) {
  return `Sample ${row.label}`;
}

function trouble(text) {
  return element("p", { class: "trouble" }, text);
}

async function sampleNodes(row) {
  const rows = settings.against ? [otherRow(row), row].filter(Boolean) : [row];
  const samples = await Promise.all(rows.map(detailsOf));
  const marked = settings.against && rows.length > 1 ? row.differs : null;
  const columns = rows.map((one, at) => sampleColumn(one, samples[at], marked));
  if (settings.against) columns.forEach((column, at) => column.prepend(element("h3", {}, rows[at].run.key)));
  return [barOf(row), element("div", { class: "columns" }, ...columns)];
}

function barOf(row) {
  const at = view.shown.indexOf(row);
  const where = at < 0 ? "" : `${grouped(at + 1)} of ${grouped(view.shown.length)}`;
  return element("div", { class: "bar" },
    statusCell(row), element("h2", {}, row.label), element("span", { class: "quiet" }, where),
    settings.against ? changeCell(row) : null,
    element("nav", { class: "buttons", "aria-label": "Walk the samples" },
      button(["Previous", element("kbd", {}, "k")], () => walk(-1)),
      button(["Next", element("kbd", {}, "j")], () => walk(1)),
      button(["Close", element("kbd", {}, "esc")], leave)));
}

function leave() {
  history.pushState(null, "", addressWithout());
  route();
}

// --- the keyboard

function pressed(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target.tagName !== "SELECT") return escape();
  if (/^(input|select|textarea)$/i.test(event.target.tagName)) return;
  const action = { j: () => walk(1), k: () => walk(-1), "/": () => byId("search").focus(), "?": showKeys }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

const KEYS = [
  ["j, k", "next and previous sample"],
  ["/", "search"],
  ["Esc", "clear the search, leave a field, close the sample"],
  ["← →", "in an open frame: previous and next frame"],
  ["Enter", "on a frame: open it; on a line of the timeline: go to its round"],
  ["?", "these keys"],
];

function showKeys() {
  const close = button(["Close", element("kbd", {}, "esc")], () => byId("keys").close());
  byId("keys").replaceChildren(element("h2", {}, "Keys"), definitions("settings", KEYS),
    element("div", { class: "buttons" }, close));
  byId("keys").showModal();
}

// Charts are folded at the first visit, and then as the reader left them. A browser may refuse to remember it.
function rememberCharts() {
  const node = byId("charts");
  if (!node) return;
  try {
    node.open = localStorage.getItem("eva-charts") === "open";
    node.addEventListener("toggle", () => localStorage.setItem("eva-charts", node.open ? "open" : "folded"));
  } catch {
    node.open = false;
  }
}

function escape() {
  const field = byId("search");
  if (field.value) {
    field.value = "";
    search("");
  } else if (/^input$/i.test(document.activeElement.tagName)) document.activeElement.blur();
  else if (document.body.classList.contains("reading")) leave();
}

// --- a run that is going on

let drawnHeads = "";

async function poll() {
  try {
    const since = store.runs.map((run) => `${encodeURIComponent(run.key)}:${run.generation}:${run.offset}`).join(",");
    const news = await fetched(`updates?since=${encodeURIComponent(since)}`);
    take(news);
    setTimeout(poll, news.more ? 0 : POLL_MS);
  } catch (error) {
    byId("status").textContent = `No news of the run (${error.message}); what is here stays.`;
    setTimeout(poll, 5 * POLL_MS);
  }
}

function take(news) {
  const shown = view.current && outcome(view.current);
  const changed = news.runs.map(takeRun).some(Boolean);
  const heads = JSON.stringify(store.runs.map((run) => run.head));
  if (heads !== drawnHeads) drawHead();
  drawnHeads = heads;
  drawProgress(news.runs);
  byId("status").textContent = news.status;
  if (changed) takeRows(shown);
}

function drawProgress(updates) {
  for (const row of document.querySelectorAll("#runs tr[data-run]")) {
    const update = updates.find((one) => one.key === row.dataset.run);
    if (update) row.querySelector(".progress").textContent = update.progress;
  }
  // The page of a run without records has no charts.
  if (store.rows.length && !byId("charts")) byId("paired").textContent = "Load the page again to see charts.";
}

// An open sample stays open while it runs again. Its new record replaces it.
function takeRows(shown) {
  const row = wanted() && rowAt(...wanted());
  view.current = row || null;
  drawHeader();
  refresh();
  // Not while a reader has a list of choices open.
  if (document.activeElement.tagName !== "SELECT") drawFilters();
  drawCount();
  const here = row && byId("sample").getAttribute("aria-label") === nameOf(row);
  if (row && shown !== outcome(row)) show(row, { quietly: here });
}

function outcome(row) {
  return JSON.stringify([row.answer, row.stop, row.tokens, row.seconds]);
}

function takeRun(update) {
  const run = store.runs.find((one) => one.key === update.key) || addRun(update.key, null);
  if (update.head) run.head = update.head;
  const again = run.generation !== undefined && run.generation !== update.generation;
  if (again) forgetRows(run);
  addRows(run, update.rows);
  [run.generation, run.offset] = [update.generation, update.offset];
  return again || update.rows.index.length > 0;
}

// --- at the start

function begin() {
  for (const head of readBlock("heads") || []) {
    addRows(addRun(head.key, head), readBlock(`rows-${store.runs.length - 1}`));
  }
  document.body.classList.toggle("comparing", Boolean(settings.against));
  if (settings.against) pairRows();
  startView = carried();
  byId("status").textContent = settings.status || "";
  byId("chosen").textContent = settings.chosen || "";
  byId("legend").textContent = settings.legend || "";
  drawHead();
  drawPaired();
  addChartButtons();
  rememberCharts();
  byId("help").append(button(["Keys", element("kbd", {}, "?")], showKeys));
  sortRows();
  filterRows();
  drawFilters();
  drawHeader();
  drawCount();
  route();
  listen();
  if (settings.live) poll();
}

function listen() {
  let due = false;
  const redraw = () => {
    if (!due) requestAnimationFrame(() => { due = false; drawRows(); });
    due = true;
  };
  byId("scroller").addEventListener("scroll", redraw, { passive: true });
  window.addEventListener("resize", redraw);
  window.addEventListener("hashchange", route);
  for (const media of [NARROW, PRINT]) media.addEventListener("change", drawTable);
  listenToViewer();
  document.addEventListener("keydown", pressed);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("home").addEventListener("click", (event) => { event.preventDefault(); leave(); });
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("scroller").focus(); });
}

begin();
