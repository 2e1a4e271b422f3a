// Every trial as a row, to sort by any column and to filter by words or by `size_mb<2`.

const sorting = { key: "", down: false };
const TEST = /^(\w+)\s*(>=|<=|>|<|=)\s*([\d.eE+-]+)\s*(%?)\s*(\*\s*dense)?$/;
const COMPARE = {
  ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b,
};

function setUpTable() {
  const [first] = goals();
  const cost = goals().find((one) => one !== first) || first;
  byId("filter").placeholder = `front, ${cost.metric}<${number(middle(cost.metric))}`;
  byId("filter").title = "Words, or a metric and a limit such as cider>=0.95*dense; several with commas";
  byId("filter").addEventListener("input", drawTable);
  sorting.key = first.metric;
  sorting.down = isMore(first.metric);
  onChoice(drawTable);
}

function middle(metric) {
  const values = data.trials.map((one) => one.metrics[metric]).filter((one) => one !== undefined);
  return values.sort((a, b) => a - b)[values.length >> 1] || 1;
}

function columns() {
  return [
    { key: "number", title: "trial", of: (one) => one.number },
    { key: "kind", title: "kind", of: (one) => KINDS.indexOf(one.kind), is: "text" },
    ...data.objectives.map(({ metric }) => ({ key: metric, title: titled(metric), of: (one) => one.metrics[metric] })),
    { key: "short", title: "policy", of: (one) => one.short, is: "text" },
  ];
}

function drawTable() {
  const all = columns();
  const shown = data.trials.filter(matches(byId("filter").value)).sort(byColumn(all));
  const unknown = unknownMetric(byId("filter").value);
  byId("matches").textContent = unknown ? `no metric ${unknown}` : `${shown.length} of ${data.trials.length}`;
  const focused = document.activeElement?.closest("#rows tr[data-trial]");
  const head = byId("rows").contains(document.activeElement) ? document.activeElement.dataset.key : null;
  byId("rows").replaceChildren(el("table", { class: "trials" },
    el("thead", {}, el("tr", {}, all.map(heading))),
    el("tbody", { onkeydown: stepped }, shown.map((one) => row(one, all)))));
  if (focused) byId("rows").querySelector(`tr[data-trial="${choice.trial}"]`)?.focus({ preventScroll: true });
  if (head) byId("rows").querySelector(`button[data-key="${head}"]`)?.focus();
}

function byColumn(all) {
  const { of } = all.find((one) => one.key === sorting.key);
  const sign = sorting.down ? -1 : 1;
  return (a, b) => {
    const [one, other] = [of(a), of(b)];
    if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
    return sign * (typeof one === "string" ? one.localeCompare(other) : one - other) || a.number - b.number;
  };
}

function heading({ key, title, is }) {
  const order = sorting.key === key ? (sorting.down ? "descending" : "ascending") : "none";
  const sort = () => {
    sorting.down = sorting.key === key ? !sorting.down : Boolean(data.metrics[key]) && isMore(key);
    sorting.key = key;
    drawTable();
  };
  return el("th", { scope: "col", "aria-sort": order, class: is },
    el("button", { type: "button", "data-key": key, onclick: sort }, title));
}

function row(trial, all) {
  const chosen = trial.number === choice.trial;
  const cells = all.map(({ key, is }) => {
    if (key === "number") return el("td", {}, `${trial.number}`);
    if (key === "kind") return el("td", { class: "text kind" }, swatch(trial.kind), trial.kind.replace(/ (\(.*|trials)$/, ""));
    if (key === "short") return el("td", { class: "text" }, trial.reason || trial.short);
    const value = trial.metrics[key];
    const share = goals().some((one) => one.metric === key) ? beside(key, value) : "";
    return el("td", { class: is }, value === undefined ? "" : valueOf(key, value), el("small", {}, share));
  });
  return el("tr", {
    "data-trial": trial.number, tabindex: 0, "aria-selected": `${chosen}`,
    onclick: () => choose(trial.number),
  }, cells);
}

function stepped(event) {
  const line = event.target.closest("tr");
  const next = { ArrowDown: line.nextSibling, ArrowUp: line.previousSibling }[event.key];
  if (event.key === "Enter" || event.key === " ") choose(+line.dataset.trial);
  else if (next) next.focus();
  else return;
  event.preventDefault();
}

/** A test of a trial: every part of the text, parted by commas, must hold. */
function matches(text) {
  const parts = text.split(",").map((one) => one.trim()).filter(Boolean).map(part);
  return (trial) => parts.every((one) => one(trial));
}

/** The first metric of a limit that nobody measured, or undefined. */
function unknownMetric(text) {
  const tested = text.split(",").map((one) => TEST.exec(one.trim())).filter(Boolean);
  return tested.map(([, metric]) => metric).find((metric) => !(metric in data.metrics));
}

function part(text) {
  const found = TEST.exec(text);
  if (found) {
    const [, metric, sign, limit, percent, dense] = found;
    const of = dense ? (data.reference || {})[metric] : 1;
    const bound = (Number(limit) / (percent ? 100 : 1)) * of;
    return (trial) => metric in trial.metrics && COMPARE[sign](trial.metrics[metric], bound);
  }
  const words = text.toLowerCase();
  return (trial) => [`trial ${trial.number}`, trial.kind, trial.short, trial.reason || "", ...trial.words]
    .some((one) => one.toLowerCase().includes(words));
}
