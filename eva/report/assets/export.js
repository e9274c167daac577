// What leaves the page: tables as CSV and Markdown, records as the lines that they are.

// A button that opens a list of actions. An action's answer, a few words, stands in the button's place for a moment.
function menu(label, actions) {
  const title = element("summary", {}, label);
  const run = async (action) => {
    node.open = false;
    title.textContent = await Promise.resolve().then(action).catch((error) => `Failed: ${error.message}`);
    setTimeout(() => { title.textContent = label; }, 3000);
  };
  const buttons = actions.map(([name, action]) => button(name, () => run(action)));
  const node = element("details", { class: "menu" }, title, element("div", {}, ...buttons));
  node.addEventListener("focusout", (event) => { if (!node.contains(event.relatedTarget)) node.open = false; });
  return node;
}

async function copied(text) {
  await navigator.clipboard.writeText(text);
  return "Copied";
}

function saved(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  return `Saved ${name}`;
}

// --- tables, as lists of rows; the first row has the names

// A spreadsheet would take a text that begins like a formula for one.
function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value).replaceAll("\0", "");
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(table) {
  return table.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function markdownCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return text.replace(/[\\|<>`*_[\]]/g, (sign) => `\\${sign}`).replace(/\s+/g, " ");
}

function markdown([names, ...rows]) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(names.map(markdownCell)), line(names.map(() => "---")), ...rows.map((row) => line(row.map(markdownCell)))]
    .join("\n") + "\n";
}

function samplesTable() {
  const names = ["run", "index", "status", "question", "answer", "truth", "rounds", "tokens", "seconds", "category", "stop", "video"];
  const rows = view.shown.map((row) => [row.run.key, row.index, row.status, row.question, row.answer, row.truth, row.rounds,
    row.tokens, row.seconds, row.categories.join("; "), row.stop, row.video,
    settings.against ? changeText(row) : ""]);
  return settings.against ? [[...names, "change"], ...rows] : [names, ...rows.map((row) => row.slice(0, -1))];
}

function runsTableCells() {
  const names = ["run", "agent", "samples", "right", "accuracy_percent", "low_95_percent", "high_95_percent",
    "published_percent", "rounds", "tokens", "visual_tokens", "seconds", "no_answer"];
  const share = (fraction) => (fraction === null || fraction === undefined ? null : Number((100 * fraction).toFixed(2)));
  const rows = store.runs.filter((run) => run.head).map(({ key, head }) => [key, head.agent, head.total, head.correct,
    share(head.accuracy), ...(head.interval || [null, null]).map(share), share((head.published[0] || {}).accuracy),
    head.rounds && Number(head.rounds.toFixed(2)), head.tokens && Math.round(head.tokens),
    head.visual_tokens && Math.round(head.visual_tokens),
    head.seconds && Number(head.seconds.toFixed(1)), failuresOf(head)]);
  return [names, ...rows];
}

function tableMenu(label, table, name) {
  return menu(label, [
    ["Copy as CSV", () => copied(csv(table()))],
    ["Copy as Markdown", () => copied(markdown(table()))],
    ["Save as CSV", () => saved(`${name}.csv`, csv(table()), "text/csv")],
  ]);
}

// --- charts

// Outside of the page there is no ink of its own, and no other program knows the page's variables.
function chartText(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("font-family", "DejaVu Sans, Arial, sans-serif");
  return new XMLSerializer().serializeToString(copy)
    .replaceAll("currentColor", "#1f2328").replace(/var\(--run-\d+, ?(#[0-9a-f]{6})\)/g, "$1");
}

function addChartButtons() {
  for (const figure of document.querySelectorAll("#charts figure")) {
    const caption = figure.querySelector("figcaption");
    const title = caption.textContent;
    const name = `${title.replace(/[^\w]+/g, "_").toLowerCase().slice(0, 80)}.svg`;
    caption.append(button("Save as SVG", () => saved(name, chartText(figure.querySelector("svg")), "image/svg+xml"),
      { "aria-label": `Save the chart ${title} as SVG` }));
  }
}

// --- records

async function recordsText(rows) {
  const lines = [];
  for (const row of rows) {
    lines.push(await recordOf(row));
    if (lines.length % 100 === 0) drawCount(`; ${grouped(lines.length)} records read`);
  }
  drawCount();
  return lines.map((line) => `${line}\n`).join("");
}

async function saveRecords() {
  return saved("samples.jsonl", await recordsText(view.shown.slice()), "application/jsonl");
}

// The record of a sample, read when it is opened.
function recordBlock(row) {
  const text = element("pre", { class: "record", tabindex: 0 });
  const name = `${row.run.key}-${row.index}.json`.replace(/[^\w.-]+/g, "_");
  const block = folded("Raw record", element("div", {},
    element("div", { class: "buttons" },
      menu("Copy or save", [
        ["Copy", async () => copied(await recordOf(row))],
        ["Save", async () => saved(name, `${await recordOf(row)}\n`, "application/json")],
      ])),
    text));
  block.addEventListener("toggle", async () => {
    if (block.open && !text.textContent) text.append(...cutAt(indented(await recordOf(row)), (whole) => [whole], text));
  });
  return block;
}

function indented(line) {
  try {
    return JSON.stringify(JSON.parse(line), null, 1);
  } catch {
    return line;
  }
}
