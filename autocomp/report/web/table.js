// Every trial as a row, to sort by any column and to filter.

const sorting = { key: "", down: false };

function setUpTable() {
  const [first] = goals();
  byId("filter").placeholder = `front, ${example()}`;
  byId("filter").title = `A kind, a trial's number, words, or a metric and a limit such as ${first.metric}>=0.95*dense; several with commas`;
  byId("filter").addEventListener("input", drawTable);
  sorting.key = first.metric;
  sorting.down = isMore(first.metric);
  onChoice(drawTable);
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
  const { tests, problems } = parsed(byId("filter").value);
  const matching = problems.length ? [] : data.trials.filter((trial) => tests.every((test) => test(trial)));
  const shown = matching.sort(byColumn(all));
  byId("matches").textContent = problems.join("; ") || `${shown.length} of ${data.trials.length}`;
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
    if (key === "kind") return el("td", { class: "text kind" }, swatch(trial.kind), shortKind(trial.kind));
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
