// The samples: small rows of all of them, and their details in blocks, unpacked when one of its samples is opened.

const PER_BLOCK = 100; // as in eva/report/page.py
const STATUSES = ["right", "wrong", "unanswered", "failed"];
const MARKS = { right: "✓", wrong: "✗", unanswered: "–", failed: "!" };

const store = { runs: [], rows: [] };

function readBlock(name) {
  const node = byId(`data-${name}`);
  return node ? JSON.parse(node.textContent) : null;
}

const settings = readBlock("settings");

// Waits for a block that the browser has not parsed yet.
async function blockText(name) {
  const id = `data-${name}`;
  if (!byId(id) && document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  const node = byId(id);
  if (!node) throw new Error(`the page has no block ${name}`);
  return node.textContent;
}

async function unpacked(name) {
  const packed = atob(await blockText(name));
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(stream).text()).split("\n");
}

// Keeps the last `most` results by their names. It does not keep a failed one.
function remembered(make, most) {
  const kept = new Map();
  return (name) => {
    const known = kept.get(name);
    const value = known || make(name);
    kept.delete(name);
    kept.set(name, value);
    if (!known) value.catch(() => kept.delete(name));
    if (kept.size > most) kept.delete(kept.keys().next().value);
    return value;
  };
}

const detailsBlock = remembered(unpacked, 8);
const picturesBlock = remembered(async (name) => JSON.parse(await blockText(name)), 12);

async function detailsOf(row) {
  if (settings.live) return fetched(`sample?run=${encodeURIComponent(row.run.key)}&index=${row.index}`);
  return JSON.parse((await linesOf(row))[0]);
}

// The record of a sample as a line of JSON.
async function recordOf(row) {
  if (settings.live) return fetchedText(`record?run=${encodeURIComponent(row.run.key)}&index=${row.index}`);
  return (await linesOf(row))[1];
}

// A sample has two lines in its block: its details and its record.
async function linesOf(row) {
  const lines = await detailsBlock(`details-${row.run.number}-${Math.floor(row.at / PER_BLOCK)}`);
  const first = 2 * (row.at % PER_BLOCK);
  return lines.slice(first, first + 2);
}

async function fetchedText(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response.text();
}

async function fetched(address) {
  return JSON.parse(await fetchedText(address));
}

const framesBlock = remembered(unpacked, 16);

// Where a frame is: the live server says it with the sample, a page of a file has it in a block.
async function placed(frame) {
  if (frame.id === undefined) return frame;
  const lines = await framesBlock(`frames-${Math.floor(frame.id / PER_BLOCK)}`);
  return JSON.parse(lines[frame.id % PER_BLOCK]);
}

// The address of a frame's picture. Nothing but a picture's data, a file, or the live server's own frame is one.
async function pictureOf(frame) {
  if (frame.at !== undefined) {
    const pictures = await picturesBlock(`pictures-${Math.floor(frame.at / PER_BLOCK)}`);
    return `data:image/webp;base64,${pictures[frame.at % PER_BLOCK]}`;
  }
  return addressOf(frame);
}

function addressOf(frame) {
  const url = String(frame.url || "");
  return url.startsWith("file:///") || (settings.live && url.startsWith("frame?")) ? url : null;
}

// The frame in its own size: its file.
function wholeOf(frame) {
  const address = addressOf(frame);
  return address && settings.live ? `${address}&whole=1` : address;
}

// --- rows

function addRun(key, head) {
  const run = { key, head, number: store.runs.length, rows: [], byIndex: new Map() };
  store.runs.push(run);
  return run;
}

// Of several rows with one index a live page shows the last. A page of a finished file shows every line.
function addRows(run, columns) {
  columns.index.forEach((index, at) => {
    const row = madeRow(run, columns, at);
    const old = settings.live ? run.byIndex.get(index) : undefined;
    if (old) {
      Object.assign(old, { said: "" }, row, { at: old.at });
    } else {
      row.at = run.rows.length;
      run.rows.push(row);
      store.rows.push(row);
      run.byIndex.set(index, row);
    }
  });
}

function madeRow(run, columns, at) {
  const names = columns.names;
  const row = {
    run,
    index: columns.index[at],
    question: columns.question[at],
    truth: names[columns.truth[at]],
    answer: names[columns.answer[at]],
    status: STATUSES[columns.status[at]],
    stop: names[columns.stop[at]],
    rounds: columns.rounds[at],
    tokens: columns.tokens[at],
    seconds: columns.seconds[at],
    video: names[columns.video[at]],
    categories: columns.categories[at].map((name) => names[name]),
    said: columns.said ? columns.said[at].toLowerCase() : "",
  };
  row.label = `${run.key}/${row.index}`;
  row.text = [row.label, row.question, row.answer, row.video, ...row.categories].join("\n").toLowerCase();
  return row;
}

function forgetRows(run) {
  store.rows = store.rows.filter((row) => row.run !== run);
  run.rows = [];
  run.byIndex = new Map();
}

function rowAt(key, index) {
  const run = store.runs.find((one) => one.key === key);
  return run ? run.byIndex.get(index) : undefined;
}

// --- the agent's replies: only the details hold them, so they are read in the background after the first search

const MOST_SEARCHED = 20000; // characters of a sample's replies

function saidIn(sample) {
  const texts = sample.trajectory ? sample.trajectory.map((round) => round.reply)
    : sample.turns.filter(([role]) => role !== "user" && role !== "system").map(([, text]) => text);
  return texts.join("\n").slice(0, MOST_SEARCHED).toLowerCase();
}

async function readReplies(progress) {
  for (const run of store.runs) {
    for (let first = 0; first < run.rows.length; first += PER_BLOCK) {
      const lines = await unpacked(`details-${run.number}-${first / PER_BLOCK}`);
      const rows = run.rows.slice(first, first + PER_BLOCK);
      rows.forEach((row, at) => { row.said = saidIn(JSON.parse(lines[2 * at])); });
      progress(Math.min(first + PER_BLOCK, run.rows.length), run);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}
