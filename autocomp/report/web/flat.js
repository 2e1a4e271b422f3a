// Two objectives: axes, the area beyond bounds, the front's stairs, marks, and the front's numbers.

let flatScales = null;

/** Draw into `root`; returns the marks with their places in pixels. */
function drawFlat(root, seen, width, height) {
  const right = width - MARGIN.right;
  const floor = height - MARGIN.bottom;
  const both = seen.filter((one) => view.y in one.metrics);
  if (!both.length) {
    root.append(svg("text", { class: "empty", x: width / 2, y: height / 2 }, "Nothing to show"));
    return [];
  }
  const zoom = view.zoom || {};
  const x = scaleOf(view.x, seen.map((one) => one.metrics[view.x]), MARGIN.left, right, zoom.x);
  const y = scaleOf(view.y, both.map((one) => one.metrics[view.y]), floor, MARGIN.top, zoom.y);
  flatScales = { x, y };
  root.append(clip(width, height), ...gridLines(x, y, right, floor));
  const inside = svg("g", { "clip-path": "url(#inside)" });
  inside.append(...bounds(x, y, right, floor), ...crosshair(x, y, right, floor), stairs(both, x, y));
  root.append(inside);
  const placed = seen
    .map((trial) => ({
      trial,
      x: x(trial.metrics[view.x]),
      // a stopped trial's quality is not known: it stands on the axis
      y: view.y in trial.metrics ? y(trial.metrics[view.y]) : floor - 6,
    }))
    .filter((one) => one.x >= MARGIN.left - 1 && one.x <= right + 1 && one.y >= MARGIN.top - 1 && one.y <= floor + 1)
    .sort((a, b) => KINDS.indexOf(b.trial.kind) - KINDS.indexOf(a.trial.kind));
  root.append(...placed.map((one) => marked(one)), ...numbers(placed, right, floor));
  return placed;
}

function marked(one) {
  const node = mark(one.trial.kind, one.x, one.y);
  node.dataset.trial = one.trial.number;
  return node;
}

function clip(width, height) {
  const area = {
    x: MARGIN.left, y: MARGIN.top,
    width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom,
  };
  return svg("clipPath", { id: "inside" }, svg("rect", area));
}

function gridLines(x, y, right, floor) {
  const across = x.ticks(7).flatMap((value) => [
    svg("line", { class: "grid", x1: x(value), x2: x(value), y1: MARGIN.top, y2: floor }),
    svg("text", { class: "tick", x: x(value), y: floor + 16, "text-anchor": "middle" }, tick(value)),
  ]);
  const upwards = y.ticks(6).flatMap((value) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, tick(value)),
  ]);
  const middle = (MARGIN.top + floor) / 2;
  return [
    ...across,
    ...upwards,
    svg("text", { class: "title", x: (MARGIN.left + right) / 2, y: floor + 38, "text-anchor": "middle" }, capital(titled(view.x))),
    svg("text", { class: "title", transform: `translate(16 ${middle}) rotate(-90)`, "text-anchor": "middle" }, capital(titled(view.y))),
  ];
}

/** Shade what lies beyond the bounds of the space. */
function bounds(x, y, right, floor) {
  const shades = [];
  for (const { metric, limits } of data.objectives) {
    for (const [end, limit] of Object.entries(limits)) {
      if (limit === null) continue;
      if (metric === view.x) {
        const [from, to] = end === "at_most" ? [x(limit), right] : [MARGIN.left, x(limit)];
        shades.push(svg("rect", { class: "beyond-bound", x: from, y: MARGIN.top, width: Math.max(0, to - from), height: floor }));
      }
      if (metric === view.y) {
        const [from, to] = end === "at_most" ? [MARGIN.top, y(limit)] : [y(limit), floor];
        shades.push(svg("rect", { class: "beyond-bound", x: MARGIN.left, y: from, width: right, height: Math.max(0, to - from) }));
      }
    }
  }
  return shades;
}

/** Where the dense model stands, right across: everything is compared with it. */
function crosshair(x, y, right, floor) {
  const dense = data.trials.find((one) => one.kind === "dense");
  if (!dense || !(view.x in dense.metrics && view.y in dense.metrics)) return [];
  const [across, up] = [x(dense.metrics[view.x]), y(dense.metrics[view.y])];
  return [
    svg("line", { class: "cross", x1: across, x2: across, y1: MARGIN.top, y2: floor }),
    svg("line", { class: "cross", x1: MARGIN.left, x2: right, y1: up, y2: up }),
  ];
}

/** The border of what the front dominates in this view: from each to the next by way of a corner. */
function stairs(seen, x, y) {
  const front = seen.filter((one) => one.on_front);
  const points = front.map((one) => [one.metrics[view.x], one.metrics[view.y]]);
  const signs = [isMore(view.x) ? -1 : 1, isMore(view.y) ? -1 : 1];
  const steps = nonDominated(points, signs)
    .map((index) => points[index])
    .sort((a, b) => signs[0] * (a[0] - b[0]));
  const path = steps.map(([across, up], index) =>
    index ? `H${x(across)}V${y(up)}` : `M${x(across)} ${y(up)}`);
  return svg("path", { class: "stairs", d: path.join("") });
}

/** Trial numbers beside the front's marks, where there is room for them. */
function numbers(placed, right, floor) {
  const taken = placed.map((one) => [one.x - 5, one.y - 5, one.x + 5, one.y + 5]);
  const free = ([left, top, end, bottom]) =>
    left >= MARGIN.left && end <= right && top >= MARGIN.top && bottom <= floor &&
    taken.every((one) => left > one[2] || end < one[0] || top > one[3] || bottom < one[1]);
  const labels = [];
  for (const one of placed.filter((each) => each.trial.on_front)) {
    const wide = 7 * `${one.trial.number}`.length;
    const boxes = [[8, -16], [8, 6], [-8 - wide, -16], [-8 - wide, 6], [-wide / 2, -20], [-wide / 2, 9]]
      .map(([dx, dy]) => [one.x + dx, one.y + dy, one.x + dx + wide, one.y + dy + 11]);
    const box = boxes.find(free);
    if (!box) continue;
    taken.push([box[0] - 3, box[1], box[2] + 3, box[3]]);
    labels.push(svg("text", { class: "label", x: box[0], y: box[3] - 1 }, `${one.trial.number}`));
  }
  return labels;
}

/** What a dragged rectangle means in the metrics, to zoom to. */
function flatArea(start, end) {
  const ends = (scale, one, other) => [scale.value(one), scale.value(other)].sort((a, b) => a - b);
  return { x: ends(flatScales.x, start.x, end.x), y: ends(flatScales.y, start.y, end.y) };
}
