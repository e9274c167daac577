// The samples: small rows of all of them, and their records in blocks, unpacked when one of its samples is opened.

const MARKS = { right: "✓", wrong: "✗", unanswered: "–", failed: "!" };

const store = { runs: [], rows: [] };

function readBlock(name) {
  const node = byId(`data-${name}`);
  return node ? JSON.parse(node.textContent) : null;
}

const settings = readBlock("settings");
const STATUSES = settings.statuses;

// Waits for a block that the browser has not parsed yet.
async function blockText(name) {
  const id = `data-${name}`;
  if (!byId(id) && document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  const node = byId(id);
  if (!node) throw new Error("a live page holds the newest records only. report.py makes a page of all from the cache");
  return node.textContent;
}

async function unpacked(name) {
  const packed = atob(await blockText(name));
  const bytes = Uint8Array.from(packed, (sign) => sign.charCodeAt(0));
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

const recordsBlock = remembered(unpacked, 8);
const picturesBlock = remembered(async (name) => JSON.parse(await blockText(name)), 12);
const framePlaces = remembered(async (name) => JSON.parse((await unpacked(name))[0]), 1);

// The record of a sample as a line of JSON.
async function recordLine(row) {
  const lines = await recordsBlock(`records-${row.run.number}-${Math.floor(row.at / settings.per_block)}`);
  return lines[row.at % settings.per_block];
}

// Where a frame can be seen: `small` and `whole` are addresses, `no` says why there are none. Nothing but a picture in
// the page, a file, or the live server's own frame is one.
async function placeOf(path) {
  if (settings.live) {
    const small = `frame?${new URLSearchParams({ path })}`;
    return { small, whole: `${small}&whole=1` };
  }
  const [address, at] = (await framePlaces("frames"))[path] || ["no picture"];
  if (!address.startsWith("file:///")) return { no: address };
  if (at === undefined) return { small: address, whole: address };
  const pictures = await picturesBlock(`pictures-${Math.floor(at / settings.per_block)}`);
  return { small: `data:image/jpeg;base64,${pictures[at % settings.per_block]}`, whole: address };
}

// --- rows

function addRun(head) {
  const number = store.runs.length;
  const run = { key: head.key, head, number, rows: [], byIndex: new Map() };
  store.runs.push(run);
  const { names, ...columns } = readBlock(`rows-${number}`);
  columns.index.forEach((index, at) => {
    const row = {
      run, at, index, question: columns.question[at], status: STATUSES[columns.status[at]],
      rounds: columns.rounds[at], tokens: columns.tokens[at], seconds: columns.seconds[at],
      truth: names[columns.truth[at]], answer: names[columns.answer[at]], stop: names[columns.stop[at]],
      video: names[columns.video[at]], categories: columns.categories[at].map((name) => names[name]),
      said: "", label: `${run.key}/${index}`,
    };
    row.text = [row.label, row.question, row.answer, row.video, ...row.categories].join("\n").toLowerCase();
    run.rows.push(row);
    store.rows.push(row);
    run.byIndex.set(index, row);
  });
}

function rowAt(key, index) {
  const run = store.runs.find((one) => one.key === key);
  return run && run.byIndex.get(index);
}

// --- the agent's replies: only the records hold them, so they are read in the background after the first search

const MOST_SEARCHED = 20000; // characters of a sample's replies

async function readReplies(progress) {
  for (const run of store.runs) {
    for (let first = 0; first < run.rows.length; first += settings.per_block) {
      const lines = await unpacked(`records-${run.number}-${first / settings.per_block}`).catch(() => []);
      const rows = run.rows.slice(first, first + lines.length - 1);
      rows.forEach((row, at) => { row.said = repliesOf(JSON.parse(lines[at])).join("\n").slice(0, MOST_SEARCHED).toLowerCase(); });
      progress(`; replies of ${grouped(first + settings.per_block)} read`);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}
