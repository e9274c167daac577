// What leaves the page: the samples that are shown as CSV or as the records that they are, and charts as pictures.

function saved(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// A spreadsheet would take a text that begins like a formula for one.
function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value).replaceAll("\0", "");
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function saveTable() {
  const names = ["run", "index", "status", "question", "answer", "truth", "rounds", "tokens", "seconds", "category", "stop",
    "video", ...(settings.against ? ["change"] : [])];
  const rows = view.shown.map((row) => names.map((name) => {
    const special = { run: row.run.key, category: row.categories.join("; "), change: settings.against && changeText(row) };
    return name in special ? special[name] : row[name];
  }));
  saved("samples.csv", `${[names, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n")}\r\n`, "text/csv");
}

async function saveRecords() {
  const lines = [];
  for (const row of view.shown.slice()) {
    lines.push(`${await recordLine(row)}\n`);
    if (lines.length % 100 === 0) drawCount(`; ${grouped(lines.length)} records read`);
  }
  drawCount();
  saved("samples.jsonl", lines.join(""), "application/jsonl");
}

function addChartButtons() {
  for (const figure of document.querySelectorAll("#charts figure")) {
    const caption = figure.querySelector("figcaption");
    const title = caption.textContent;
    const name = `${title.replace(/[^\w]+/g, "_").toLowerCase().slice(0, 80)}.svg`;
    const chart = () => new XMLSerializer().serializeToString(figure.querySelector("svg"));
    caption.append(button("Save as SVG", () => saved(name, chart(), "image/svg+xml"),
      { "aria-label": `Save the chart ${title} as SVG` }));
  }
}
