// The plot: which metrics and kinds it shows, and what pointer and keys do in it. See flat and cloud.

const NEAR = 22; // pixels within which the pointer means a mark
const MARGIN = { top: 14, right: 20, bottom: 46, left: 62 };
const TURN = 0.12; // radians a key press

const view = { x: "", y: "", z: "", hidden: new Set(), zoom: null, yaw: -0.65, pitch: 0.42 };
let marks = []; // {trial, x, y} of what is drawn, in pixels

const plotted = () =>
  Object.keys(data.metrics).filter((metric) =>
    data.trials.some((one) => one.on_front || one.kind === "dense" ? metric in one.metrics : false));

function setUpPlot() {
  const known = plotted();
  if (!known.length) return missing("plot", "no trial is complete yet");
  const steered = goals().map((one) => one.metric);
  view.y = steered.find(isMore) || steered[0];
  view.x = steered.find((one) => one !== view.y) || known.find((one) => one !== view.y) || view.y;
  byId("axes").append(
    axisChoice("x", "Across", known),
    axisChoice("y", "Up", known),
    axisChoice("z", "Depth", known),
    el("button", { id: "whole", type: "button", hidden: true, onclick: () => zoomTo(null) }, "Whole view"),
  );
  drawLegend();
  listen(byId("plot"));
  new ResizeObserver(drawPlot).observe(byId("plot"));
  onChoice(drawPlot);
  drawPlot();
}

function axisChoice(axis, title, known) {
  const steered = new Set(goals().map((one) => one.metric));
  const option = (one) => el("option", { value: one, selected: view[axis] === one }, titled(one));
  const select = el(
    "select",
    { id: `axis-${axis}`, onchange: (event) => { view[axis] = event.target.value; zoomTo(null); } },
    axis === "z" ? el("option", { value: "" }, "none (flat)") : null,
    el("optgroup", { label: "Objectives" }, known.filter((one) => steered.has(one)).map(option)),
    el("optgroup", { label: "Other metrics" }, known.filter((one) => !steered.has(one)).map(option)),
  );
  return el("label", {}, title, select);
}

function drawLegend() {
  const legend = byId("legend");
  for (const kind of KINDS) {
    const count = data.trials.filter((one) => one.kind === kind).length;
    if (!count) continue;
    const button = el("button", { type: "button", "aria-pressed": "true" }, swatch(kind), kind, el("small", {}, `${count}`));
    button.addEventListener("click", () => {
      const hides = !view.hidden.has(kind);
      view.hidden[hides ? "add" : "delete"](kind);
      button.setAttribute("aria-pressed", `${!hides}`);
      drawPlot();
    });
    legend.append(button);
  }
  legend.append(el("span", { class: "hint", id: "hint" }));
}

function zoomTo(area) {
  view.zoom = area;
  byId("whole").hidden = !area;
  drawPlot();
}

function drawPlot() {
  const box = byId("plot");
  const width = Math.max(300, box.clientWidth);
  const height = Math.round(Math.max(320, Math.min(view.z ? 560 : 480, width * 0.7)));
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `Trials by ${[view.y, view.x, view.z].filter(Boolean).map(nameOf).join(", ")}`,
  });
  const shown = data.trials.filter((one) => !view.hidden.has(one.kind));
  const seen = shown.filter((one) => one.kind in SHAPES && !lacking(one));
  marks = (view.z ? drawCloud : drawFlat)(root, seen, width, height);
  const chosen = marks.find((one) => one.trial.number === choice.trial);
  if (chosen) root.append(svg("circle", { class: "ring", cx: chosen.x, cy: chosen.y, r: 10 }));
  box.replaceChildren(root);
  byId("hint").textContent = [...leftOut(shown), view.z ? "Drag to turn" : "Drag to zoom"].join(" · ");
}

/** The metric across or in depth without which a trial has no place; without one upwards it is at the foot. */
const lacking = (trial) => [view.x, view.z].find((metric) => metric && !(metric in trial.metrics));

/** How many trials are not drawn, by the reason. */
function leftOut(shown) {
  const reason = (one) => (one.kind in SHAPES ? lacking(one) && `without ${nameOf(lacking(one))}` : one.kind);
  const reasons = shown.map(reason).filter(Boolean);
  return [...new Set(reasons)].map((one) => `${reasons.filter((other) => other === one).length} ${one}, not drawn`);
}

/** The mark under the pointer, or None: trials of the front win over others as near. */
function nearest(x, y) {
  const reach = (one) => Math.hypot(one.x - x, one.y - y) - (one.trial.on_front ? 3 : 0);
  const found = marks.reduce((best, one) => (!best || reach(one) < reach(best) ? one : best), null);
  return found && reach(found) <= NEAR ? found : null;
}

function listen(box) {
  let start = null;
  const at = (event) => {
    const frame = box.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  };
  box.tabIndex = 0;
  box.addEventListener("pointerdown", (event) => {
    start = { ...at(event), yaw: view.yaw, pitch: view.pitch };
    box.setPointerCapture(event.pointerId);
    event.preventDefault();
    box.focus({ preventScroll: true });
  });
  box.addEventListener("pointermove", (event) => {
    const now = at(event);
    if (start) return dragged(start, now);
    const found = nearest(now.x, now.y);
    box.classList.toggle("pointed", Boolean(found));
    if (found) showTip(found.trial, event.clientX, event.clientY);
    else hideTip();
  });
  box.addEventListener("pointerup", (event) => {
    const [from, now] = [start, at(event)];
    start = null;
    if (from && Math.hypot(now.x - from.x, now.y - from.y) > 6) return dropped(from, now);
    const found = nearest(now.x, now.y);
    if (found) choose(found.trial.number);
  });
  box.addEventListener("pointercancel", () => { start = null; drawPlot(); });
  box.addEventListener("pointerleave", hideTip);
  box.addEventListener("dblclick", () => zoomTo(null));
  box.addEventListener("keydown", pressed);
}

function dragged(start, now) {
  hideTip();
  if (view.z) {
    view.yaw = start.yaw + (now.x - start.x) / 160;
    view.pitch = Math.max(0, Math.min(1.4, start.pitch + (now.y - start.y) / 220));
    return drawPlot();
  }
  const root = byId("plot").firstChild;
  root.querySelector(".lasso")?.remove();
  root.append(svg("rect", {
    class: "lasso", x: Math.min(start.x, now.x), y: Math.min(start.y, now.y),
    width: Math.abs(now.x - start.x), height: Math.abs(now.y - start.y),
  }));
}

function dropped(start, now) {
  if (view.z || Math.abs(now.x - start.x) < 8 || Math.abs(now.y - start.y) < 8) return drawPlot();
  zoomTo(flatArea(start, now));
}

function pressed(event) {
  const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const upwards = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!along && !upwards && event.key !== "Escape") return;
  if (event.key === "Escape") zoomTo(null);
  else if (view.z && (upwards || event.shiftKey)) {
    view.yaw += (along || 0) * TURN;
    view.pitch = Math.max(0, Math.min(1.4, view.pitch + (upwards || 0) * TURN));
    drawPlot();
  } else if (along) {
    const front = marks.filter((one) => one.trial.on_front).sort((a, b) => a.x - b.x);
    const index = front.findIndex((one) => one.trial.number === choice.trial);
    const next = front[index < 0 ? 0 : Math.max(0, Math.min(front.length - 1, index + along))];
    if (next) choose(next.trial.number);
  } else return;
  event.preventDefault();
}
