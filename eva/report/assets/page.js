// The page itself: the filters, the open sample, the keyboard, and how a live page is loaded again.

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

function changesOf(row) {
  return row.change === "lost" || row.change === "gained" ? ["flips", row.change] : [row.change];
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
  for (const row of listedRows()) {
    const other = otherRow(row);
    const [now, before] = [row.status === "right", other && other.status === "right"];
    row.differs = differs[row.at];
    if (!other) row.change = "alone";
    else if (now !== before) row.change = now ? "gained" : "lost";
    else if (!same(row.answer, other.answer)) row.change = "answer";
    else row.change = row.differs === null ? "same" : "course";
  }
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

// The values of a column with their counts, the most frequent first. A link can name a value that no sample has.
function selection(name, label, of, written = (value) => value) {
  const counts = counted(of);
  if (view[name] && !counts.has(view[name])) counts.set(view[name], 0);
  const options = [...counts].sort((a, b) => b[1] - a[1]).map(([value, count]) => (
    element("option", { value, selected: view[name] === value }, `${written(value)} (${grouped(count)})`)));
  const node = element("select", { "aria-label": label, name, hidden: !options.length },
    element("option", { value: "" }, label), ...options);
  node.addEventListener("change", () => choose(name, node.value));
  return node;
}

function drawFilters() {
  const parts = [statusChoices()];
  if (settings.against) parts.push(selection("change", "Any change", changesOf, (kind) => CHANGE_NAMES[kind] || kind));
  else if (store.runs.length > 1) parts.push(selection("run", "All runs", (row) => row.run.key));
  parts.push(selection("category", "All categories", (row) => row.categories));
  byId("choices").replaceChildren(...parts);
}

function search(text) {
  view.search = text;
  view.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  narrow();
}

function filter(text) {
  readFilter(text);
  narrow();
}

// With a text that cannot be read, the filter stays that was before it.
function readFilter(text) {
  view.filter = text;
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
  readFilter(view.filter);
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

async function searchReplies() {
  if (searching) return;
  searching = true;
  await readReplies(drawCount);
  if (view.words.length) filterRows();
  drawRows();
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

async function show(row) {
  const mine = ++opening;
  view.current = row;
  reading(true);
  reveal(row);
  drawRows();
  const nodes = await sampleNodes(row).catch((error) => [trouble(`This sample cannot be shown: ${error.message}`)]);
  if (mine !== opening) return;
  byId("sample").replaceChildren(...nodes);
  byId("sample").setAttribute("aria-label", `Sample ${row.label}`);
  window.scrollTo(0, 0);
  const busy = [byId("table"), byId("filters")].some((part) => part.contains(document.activeElement));
  if (!busy) byId("sample").focus({ preventScroll: true });
}

function trouble(text) {
  return element("p", { class: "trouble" }, text);
}

async function sampleNodes(row) {
  const rows = settings.against ? [otherRow(row), row].filter(Boolean) : [row];
  const records = await Promise.all(rows.map(async (one) => asObject(JSON.parse(await recordLine(one)))));
  const marked = settings.against && rows.length > 1 ? row.differs : null;
  const columns = rows.map((one, at) => sampleColumn(one, records[at], marked));
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
  const action = { j: () => walk(1), k: () => walk(-1), "/": () => byId("search").focus(), "?": () => byId("keys").showModal() }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
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

// The server has written the page anew when the number of the page is another one. It is loaded where a reader has
// nothing open, and what they have found stays: the address has the view, and the list is where it was.
async function poll() {
  try {
    const response = await fetch("made");
    const answer = await response.text();
    if (!response.ok) throw new Error(answer);
    byId("status").textContent = settings.status;
    if (answer !== String(settings.live)) loadAgain();
  } catch (error) {
    byId("status").textContent = `No news of the run (${error.message}); what is here stays.`;
  }
  setTimeout(poll, POLL_MS);
}

function loadAgain() {
  if (document.querySelector(".reading, dialog[open], #runs details[open]") || /^(input|select)$/i.test(document.activeElement.tagName)) {
    byId("status").textContent = "There is news of the run. It is loaded when nothing is open.";
    return;
  }
  history.replaceState({ top: byId("scroller").scrollTop }, "");
  location.reload();
}

// --- at the start

function begin() {
  readBlock("heads").forEach(addRun);
  document.body.classList.toggle("comparing", Boolean(settings.against));
  if (settings.against) pairRows();
  startView = carried();
  for (const name of ["status", "chosen", "legend"]) byId(name).textContent = settings[name] || "";
  drawHead();
  drawPaired();
  addChartButtons();
  rememberCharts();
  byId("save").append(button("Save as CSV", saveTable), button("Save as JSONL", saveRecords));
  sortRows();
  filterRows();
  drawFilters();
  drawHeader();
  drawCount();
  listen();
  route();
  if (settings.live && history.state) byId("scroller").scrollTop = history.state.top;
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
  NARROW.addEventListener("change", () => { drawHeader(); drawRows(); });
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("search").addEventListener("input", () => search(byId("search").value));
  byId("search").addEventListener("focus", searchReplies);
  byId("filter").addEventListener("input", () => filter(byId("filter").value));
  byId("filter").title = `Words: ${Object.keys(WORDS).join(", ")}. Columns: ${Object.keys(FIELDS).join(", ")}.`;
  listenToViewer();
  document.addEventListener("keydown", pressed);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("home").addEventListener("click", (event) => { event.preventDefault(); leave(); });
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("scroller").focus(); });
}

begin();
