// The address: `#run/index?filter=...`. It names the open sample and the view, so that a link carries both.

const CARRIED = ["search", "filter", "status", "run", "category", "change", "by", "down"];
const KEEP_MS = 200; // a browser refuses to change its address for every key

let startView = {};
let keeping = 0;

function carried() {
  return Object.fromEntries(CARRIED.map((name) => [name, view[name]]));
}

function viewQuery() {
  const query = new URLSearchParams();
  for (const name of CARRIED) if (view[name] !== startView[name]) query.set(name, String(view[name]));
  return query.size ? `?${query}` : "";
}

function hashOf(row) {
  return `#${encodeURIComponent(row.run.key)}/${row.index}${viewQuery()}`;
}

// The run and the index that the address names.
function wanted() {
  const found = /^#(.+)\/(-?\d+)$/.exec(location.hash.split("?", 1)[0]);
  if (!found) return null;
  try {
    return [decodeURIComponent(found[1]), Number(found[2])];
  } catch {
    return [found[1], Number(found[2])];
  }
}

// Takes the view that the address names, and returns whether it is another one than the one that is shown. A part that
// the address does not name is as at the start.
function takeAddressedView() {
  const at = location.hash.indexOf("?");
  const query = new URLSearchParams(at < 0 ? "" : location.hash.slice(at));
  const found = { ...startView };
  for (const name of CARRIED) if (query.has(name)) found[name] = query.get(name);
  found.down = String(found.down) === "true";
  if (!COLUMNS.some((column) => column.name === found.by)) found.by = startView.by;
  if (CARRIED.every((name) => found[name] === view[name])) return false;
  Object.assign(view, found);
  return true;
}

function addressWithout() {
  return location.pathname + location.search + (viewQuery() && `#${viewQuery()}`);
}

function keepAddress() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const place = location.hash.split("?", 1)[0];
    history.replaceState(null, "", place.length > 1 ? place + viewQuery() : addressWithout());
    drawRows();
  }, KEEP_MS);
}
