// The table. Of ten thousand rows only the visible ones are in the document, between two empty rows for all others.

const ROW_HEIGHT = 30; // as in page.css
const BEYOND = 8; // rows above and below those that can be seen

// `of` is what a column sorts by, `cell` what it shows. A `wide` column is hidden beside an open sample, a `single` one
// where two runs are compared.
const COLUMNS = [
  { name: "status", label: "", width: "44px", of: (row) => STATUSES.indexOf(row.status), cell: statusCell },
  { name: "sample", label: "Sample", width: "140px", narrow: "104px",
    of: (row) => row.run.number * 1e9 + row.index, cell: (row) => element("a", { href: hashOf(row) }, row.label) },
  { name: "question", label: "Question", of: (row) => row.question, cell: (row) => row.question },
  { name: "answer", label: "Answer (truth)", short: "Answer", width: "118px", narrow: "78px",
    of: (row) => row.answer,
    cell: (row) => (row.answer.trim() || "–") + (row.status === "right" ? "" : ` (${row.truth})`) },
  { name: "change", label: "Change", width: "260px", narrow: "auto", comparing: true, of: (row) => CHANGES.indexOf(row.change), cell: changeCell },
  { name: "rounds", label: "Rounds", width: "76px", number: true, wide: true,
    of: (row) => row.rounds, cell: (row) => grouped(row.rounds) },
  { name: "tokens", label: "Tokens", width: "84px", number: true, wide: true,
    of: (row) => row.tokens, cell: (row) => grouped(row.tokens) },
  { name: "seconds", label: "Seconds", width: "84px", number: true, wide: true,
    of: (row) => row.seconds, cell: (row) => fixed(row.seconds, 1) },
  { name: "category", label: "Category", width: "170px", wide: true,
    of: (row) => row.categories.join(", "), cell: (row) => row.categories.join(", ") },
  { name: "stop", label: "Ended by", width: "190px", wide: true, single: true, of: (row) => row.stop, cell: (row) => row.stop },
  { name: "video", label: "Video", width: "170px", wide: true,
    of: (row) => row.video, cell: (row) => baseName(row.video) },
];

const view = {
  search: "", words: [], filter: "", meant: null, status: "", category: "", run: "", change: "",
  by: "", down: false,
  ordered: [], shown: [], current: null,
};

function baseName(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

function statusCell(row) {
  const attributes = { class: `mark ${row.status}`, role: "img", "aria-label": row.status, title: row.status };
  return element("span", attributes, MARKS[row.status]);
}

const NARROW = window.matchMedia("(max-width: 1000px)");

// Whether there is no room for the wide columns: the question must be read.
function isNarrow() {
  return document.body.classList.contains("reading") || NARROW.matches;
}

function visibleColumns() {
  const [narrow, beside] = [isNarrow(), document.body.classList.contains("reading")];
  return COLUMNS.filter((column) => (settings.against ? !column.single : !column.comparing) && !(narrow && column.wide)
    && !(beside && settings.against && (column.name === "question" || column.name === "answer"))
    && !(column.name === "category" && !view.ordered.some((row) => row.categories.length)));
}

// --- which rows, in which order

function matches(row) {
  return (!view.status || row.status === view.status)
    && (!view.run || row.run.key === view.run)
    && (!view.category || row.categories.includes(view.category))
    && (!view.change || changesOf(row).includes(view.change))
    && (!view.meant || view.meant(row))
    && view.words.every((word) => row.text.includes(word) || row.said.includes(word));
}

// A missing value, such as a count that a record lacks, comes last in both directions.
function compared(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  const order = a < b ? -1 : 1;
  return view.down ? -order : order;
}

function sortRows() {
  const column = COLUMNS.find((one) => one.name === view.by);
  view.ordered = listedRows().slice();
  if (column) view.ordered.sort((a, b) => compared(column.of(a), column.of(b)));
}

function filterRows() {
  view.shown = view.ordered.filter(matches);
}

// --- drawing

function drawHeader() {
  byId("table").tHead.replaceChildren(element("tr", { "aria-rowindex": 1 }, ...visibleColumns().map(headerCell)));
}

function headerCell(column) {
  const sorted = view.by === column.name ? (view.down ? "descending" : "ascending") : null;
  const narrow = isNarrow();
  const label = (narrow && column.short) || column.label || element("span", { "aria-label": "Result" }, "✓");
  const attributes = { scope: "col", class: column.number ? "number" : null, "aria-sort": sorted };
  const cell = element("th", attributes, button(label, () => sortBy(column.name)));
  if (column.width) cell.style.width = (narrow && column.narrow) || column.width;
  return cell;
}

function sortBy(name) {
  view.down = view.by === name && !view.down;
  view.by = name;
  keepAddress();
  sortRows();
  filterRows();
  drawHeader();
  byId("scroller").scrollTop = 0;
  drawRows();
}

function drawRows() {
  const scroller = byId("scroller");
  const count = view.shown.length;
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW_HEIGHT) - BEYOND);
  const last = Math.min(count, first + Math.ceil(scroller.clientHeight / ROW_HEIGHT) + 2 * BEYOND);
  const columns = visibleColumns();
  const rows = [space(first, columns.length)];
  for (let at = first; at < last; at++) rows.push(drawnRow(view.shown[at], at, columns));
  rows.push(space(count - last, columns.length));
  replaceRows(rows);
  byId("table").setAttribute("aria-rowcount", count + 1);
  byId("nothing").hidden = count > 0;
}

// A link that had the keyboard focus gets it again, as a new element.
function replaceRows(rows) {
  const body = byId("table").tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  body.replaceChildren(...rows);
  if (focused === null) return;
  const links = rows.map((row) => row.querySelector("a"));
  const again = links.find((link) => link && link.getAttribute("href") === focused);
  (again || byId("scroller")).focus({ preventScroll: true });
}

function space(rows, columns) {
  const node = element("tr", { class: "space", "aria-hidden": "true" }, element("td", { colspan: columns }));
  node.style.height = `${rows * ROW_HEIGHT}px`;
  node.hidden = rows <= 0;
  return node;
}

function drawnRow(row, at, columns) {
  const cells = columns.map((column) => {
    const attributes = { class: column.number ? "number" : null, title: titleOf(column, row) };
    return element("td", attributes, column.cell(row));
  });
  const current = row === view.current ? "true" : null;
  const node = element("tr", { "aria-rowindex": at + 2, "aria-current": current }, ...cells);
  node.addEventListener("click", (event) => {
    if (!event.target.closest("a")) open(row);
  });
  return node;
}

function titleOf(column, row) {
  if (column.name === "change") return changeText(row);
  return { video: row.video, stop: row.stop, question: row.question, category: row.categories.join(", ") }[column.name];
}

function reveal(row) {
  const at = view.shown.indexOf(row);
  const scroller = byId("scroller");
  if (at < 0) return;
  const top = at * ROW_HEIGHT;
  const bottom = scroller.scrollTop + scroller.clientHeight - 2 * ROW_HEIGHT;
  if (top < scroller.scrollTop) scroller.scrollTop = Math.max(0, top - ROW_HEIGHT);
  else if (top > bottom) scroller.scrollTop = top - scroller.clientHeight + 3 * ROW_HEIGHT;
}
