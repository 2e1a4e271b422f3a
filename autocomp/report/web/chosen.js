// The chosen trial beside the plot: its policy in words, its metrics beside dense, how to export it.

function drawChosen(trial) {
  const kind = trial.kind === "front" ? "on the front" : trial.kind;
  byId("chosen").replaceChildren(...real([
    el("h2", {}, `Trial ${trial.number}`, el("span", { class: "badge" }, swatch(trial.kind), kind)),
    trial.reason ? el("p", { class: "note" }, capital(trial.reason)) : null,
    el("ul", { class: "words" }, trial.words.map((one) => el("li", {}, capital(one)))),
    metricsTable(trial),
    intervals(trial),
    trial.skipped.length ? skipped(trial) : null,
    Object.keys(trial.metrics).length && trial.seconds
      ? el("p", { class: "note" }, `Took ${duration(trial.seconds)}.`) : null,
    canExport(trial) ? command(`${data.export} --trial ${trial.number} --out ${exportName(trial)}`) : null,
  ]));
}

const canExport = (trial) => !["failed", "stopped early"].includes(trial.kind);
const exportName = (trial) => `${data.name.replace(/[^\w.-]+/g, "-")}-${trial.number}`;

function metricsTable(trial) {
  const steered = goals().map((one) => one.metric);
  const known = Object.keys(data.metrics).filter((one) => one in trial.metrics);
  if (!known.length) return null;
  const rows = (metrics) => metrics.filter((one) => known.includes(one)).map((metric) => metricRow(trial, metric));
  const rest = known.filter((one) => !steered.includes(one));
  const head = el("thead", {}, el("tr", {},
    ["", "this", "reference", ""].map((one) =>
      el("th", { scope: "col", title: one === "reference" ? "The better of dense and control" : null }, one))));
  return el("div", {},
    el("table", { class: "metrics" }, head, el("tbody", {}, rows(steered))),
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more metrics`),
      el("table", { class: "metrics" }, el("tbody", {}, rows(rest)))) : null);
}

function metricRow(trial, metric) {
  const dense = (data.reference || {})[metric];
  return el("tr", {},
    el("th", { scope: "row", title: data.metrics[metric].meaning }, capital(titled(metric))),
    el("td", {}, valueOf(metric, trial.metrics[metric])),
    el("td", { class: "pale" }, dense === undefined ? "" : valueOf(metric, dense)),
    el("td", { class: "gain" }, compared(metric, trial.metrics[metric]).replace(" of dense", "")));
}

/** Paired bootstrap intervals of the difference of means, where the study has them. */
function intervals(trial) {
  const lines = Object.entries(trial.intervals).flatMap(([metric, references]) =>
    Object.entries(references).map(([reference, [low, high]]) => {
      const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
      const named = data.metrics[metric] ? nameOf(metric) : metric;
      return el("li", {}, `${named} minus ${reference}'s: ${signed(low)} to ${signed(high)}`);
    }));
  if (!lines.length) return null;
  return [el("p", { class: "note" }, "95 % intervals over the images, paired:"), el("ul", { class: "intervals" }, lines)];
}

function skipped(trial) {
  return el("details", {},
    el("summary", {}, `${counted(trial.skipped.length, "thing")} not done as asked`),
    el("ul", { class: "skipped" }, trial.skipped.map((one) => el("li", {}, one))));
}
