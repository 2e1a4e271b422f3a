// Elements, numbers and words: what every part of the page uses. Text from data is only ever text.

const data = JSON.parse(document.getElementById("data").textContent);
const trials = new Map(data.trials.map((one) => [one.number, one]));
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`) and children, which are nodes or text. */
function el(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...real(children));
  return node;
}

/** Children may be nested, and those that are not there are null. */
const real = (children) => children.flat(Infinity).filter((one) => one !== null && one !== undefined);

const byId = (id) => document.getElementById(id);

/** Three significant digits, and all digits before the point; millions and more by letter. */
function number(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 999.5) return Math.round(value).toLocaleString("en"); // with an exponent from here on
  if (size < 5e-5) return "0";
  return value.toPrecision(3);
}

const nameOf = (metric) => data.metrics[metric].name;
const unitOf = (metric) => data.metrics[metric].unit;
const isMore = (metric) => data.metrics[metric].direction === "maximize";

/** A value as it is written in a column of its metric: shares in percent. */
const valueOf = (metric, value) => data.metrics[metric].percent ? `${+(100 * value).toPrecision(3)}\u00a0%` : number(value);

/** A value with its unit: "0.838 MB", "0.968". */
function measured(metric, value) {
  const unit = unitOf(metric);
  return unit ? `${number(value)}\u00a0${unit}` : valueOf(metric, value);
}

function titled(metric) {
  const unit = unitOf(metric);
  return unit ? `${nameOf(metric)} (${unit})` : nameOf(metric);
}

/** How a value stands to the dense model's: "96.7 %" of a quality, "4.1×" of a cost. */
function beside(metric, value) {
  const dense = (data.reference || {})[metric];
  if (!(dense > 0) || value === undefined || !data.metrics[metric].direction) return "";
  if (isMore(metric)) return `${+((100 * value) / dense).toFixed(1)}\u00a0%`;
  return value > 0 ? `${(dense / value).toFixed(1)}×` : "";
}

/** The same as a phrase: "96.7 % of dense", "4.1× smaller". */
function compared(metric, value) {
  const relative = beside(metric, value);
  if (!relative) return "";
  if (isMore(metric)) return `${relative} of dense`;
  const [less, more] = data.metrics[metric].less_and_more;
  const dense = data.reference[metric];
  return value > dense ? `${(value / dense).toFixed(1)}× ${more}` : `${relative} ${less}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 ? +seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${(minutes / 1440).toFixed(1)} days`;
}

function bytes(value) {
  if (value >= 1e6) return `${number(value / 1e6)}\u00a0MB`;
  return value >= 1000 ? `${number(value / 1000)}\u00a0kB` : `${value}\u00a0B`;
}

const counted = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Why a part is not there, in the place where it would be. */
function missing(id, why) {
  byId(id).append(el("p", { class: "note" }, `Left out: ${why}.`));
}

function swatch(kind) {
  const icon = svg("svg", { class: "swatch", viewBox: "-8 -8 16 16", "aria-hidden": "true" });
  icon.append(mark(kind, 0, 0));
  return icon;
}

/** The mark of a kind of trial: shapes differ as well as colours. */
function mark(kind, x, y) {
  const shape = SHAPES[kind] || SHAPES["other trials"];
  const node = svg("path", { class: `mark ${shape.name}`, d: shape.path });
  node.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  return node;
}

const circle = (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
const SHAPES = {
  "dense": { name: "dense", path: "M0-6.5L6.5 0L0 6.5L-6.5 0Z" },
  "control (dense, retrained)": { name: "control", path: "M-5-5H5V5H-5Z" },
  "front": { name: "front", path: circle(5) },
  "other trials": { name: "other", path: circle(3.5) },
  "out of bounds": { name: "beyond", path: "M-4-4L4 4M-4 4L4-4" },
  "stopped early": { name: "stopped", path: "M0-6V6" },
};
const KINDS = Object.keys(SHAPES);

/** A command to copy; one click on the text selects it all where there is no clipboard. */
function command(text) {
  const code = el("code", { title: text }, text.split(" ").map((one, index) => [index ? " " : "", el("span", {}, one)]));
  const button = el("button", { class: "copy", type: "button", "aria-label": "Copy the command" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
  return el("div", { class: "command" }, code, button);
}
