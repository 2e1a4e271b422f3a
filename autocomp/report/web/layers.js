// The chosen trial's layers beside dense's, block by block: widths, bits and bytes.

function setUpLayers() {
  if (data.layers.missing) return missing("layers", data.layers.missing);
  byId("layers").append(
    el("p", { class: "note" }, "Bytes of the packed weights, scales included. A block opens to show its layers."),
    el("div", { id: "blocks" }),
  );
  onChoice(drawLayers);
}

function drawLayers(trial) {
  byId("layers-title").textContent = `Layers of trial ${trial.number} beside dense`;
  const own = data.layers.trials[trial.number];
  const place = byId("blocks");
  if (!own) {
    place.replaceChildren(el("p", { class: "note" }, `Trial ${trial.number} left no record of its tensors.`));
    return;
  }
  const rows = data.layers.layers.map((layer, index) =>
    ({ ...layer, dense: data.layers.trials[0][index], own: own[index] }));
  const blocks = [...Map.groupBy(rows, (one) => one.block)].map(([name, layers]) => ({ name, layers, ...sums(layers) }));
  const most = Math.max(...blocks.map((one) => one.dense));
  const whole = sums(rows);
  place.replaceChildren(
    blockHead(),
    ...blocks.map((one) => blockRow(one, most)),
    el("div", { class: "block total" }, ...cells("all layers", "", whole, most)),
  );
}

function sums(layers) {
  const total = (which) => layers.reduce((sum, one) => sum + (one[which] ? one[which][3] : 0), 0);
  return { dense: total("dense"), own: total("own") };
}

function blockHead() {
  return el("div", { class: "block heading" },
    ["block", "bits", "bytes beside dense", "dense", "this", "share"].map((one) => el("span", {}, one)));
}

function blockRow(block, most) {
  return el("details", { class: "block-rows" },
    el("summary", { class: "block" }, ...cells(block.name, bitsOf(block.layers), block, most)),
    el("table", {}, el("tbody", {}, block.layers.map(layerRow))));
}

function cells(name, bits, { dense, own }, most) {
  const bar = svg("svg", { class: "bars", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "dense-bar", width: (100 * Math.min(dense, most)) / most, height: 14 }),
    svg("rect", { class: "own-bar", width: (100 * Math.min(own, most)) / most, y: 4, height: 6 }));
  return [
    el("span", { class: "name" }, name),
    el("span", {}, bits),
    name === "all layers" ? el("span", {}) : bar,
    el("span", { class: "pale" }, bytes(dense)),
    el("span", {}, own ? bytes(own) : "removed"),
    el("span", {}, dense ? `${Math.round((100 * own) / dense)}\u00a0%` : ""),
  ];
}

/** The widths in a block, of the layers that weigh: norms and biases stay as they are. */
function bitsOf(layers) {
  const weighty = layers.filter((one) => one.own && one.own[0].length > 1);
  const widths = [...new Set((weighty.length ? weighty : layers.filter((one) => one.own)).map((one) => one.own[1]))];
  return widths.sort((a, b) => a - b).join(", ");
}

function layerRow({ name, block, dense, own }) {
  const short = name.startsWith(`${block}.`) ? name.slice(block.length + 1) : name;
  return el("tr", {},
    el("th", { scope: "row" }, short),
    el("td", {}, shape(dense, own)),
    el("td", {}, own ? widths(own) : "removed"),
    el("td", {}, own ? bytes(own[3]) : ""),
    el("td", { class: "pale" }, dense ? bytes(dense[3]) : ""));
}

/** "5 bits, computed in 8" where no kernel is as narrow as what is stored. */
function widths([, stored, computed]) {
  return stored === computed ? `${stored} bits` : `${stored} bits, computed in ${computed}`;
}

/** "96×16 → 64×16", or one shape if nothing became narrower. */
function shape(dense, own) {
  const written = (one) => one[0].join("×") || "scalar";
  if (!dense || !own) return written(dense || own);
  return written(dense) === written(own) ? written(own) : `${written(dense)} → ${written(own)}`;
}
