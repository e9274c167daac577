
// Every text of a result file becomes a text node. No script of this page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function button(label, action, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, ...[label].flat());
  node.addEventListener("click", action);
  return node;
}

// A list of names and their values.
function definitions(kind, pairs) {
  const items = pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { class: kind }, ...items);
}

function folded(title, content) {
  return element("details", {}, element("summary", {}, title), content);
}

// --- numbers for people

function grouped(number) {
  return number === null || number === undefined ? "–" : Math.round(number).toLocaleString("en-US");
}

function fixed(number, digits) {
  return number === null || number === undefined ? "–" : number.toFixed(digits);
}

function short(number) {
  return number === null || number === undefined ? "?" : String(Math.round(number * 100) / 100);
}

function percent(fraction, digits = 2) {
  return `${(100 * fraction).toFixed(digits)} %`;
}

// Without hours, like the labels of the frames: 75 minutes are 75:00.
function clock(seconds) {
  if (seconds === null || seconds === undefined) return "?";
  const tenths = Math.round(Math.abs(seconds) * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = (tenths % 600) / 10;
  const whole = Number.isInteger(rest) ? String(rest) : rest.toFixed(1);
  return `${seconds < 0 ? "−" : ""}${minutes}:${rest < 10 ? "0" : ""}${whole}`;
}

function plural(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}
