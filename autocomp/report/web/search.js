// What the search found out about itself: importance, hypervolume over time, and what it cost.

const SHOWN_PARAMETERS = 8;

function drawImportance() {
  const { objectives, trials: count, missing: why } = data.importance;
  if (why) return missing("importance", why);
  byId("importance").append(
    el("p", { class: "note" }, `Each parameter's share in what sets the best quarter of ${counted(count, "trial")} apart. The tick is what chance alone reaches, once in twenty times beyond; a bar that does not pass it is pale and says nothing. The first ${SHOWN_PARAMETERS} of each are shown.`),
    el("div", { class: "columns" }, Object.entries(objectives).map(([metric, parameters]) =>
      el("div", {}, el("h3", {}, capital(nameOf(metric))), parameterBars(parameters)))));
}

function parameterBars(parameters) {
  const tells = (one) => one.share > one.chance;
  const shown = [...parameters.filter(tells), ...parameters.filter((one) => !tells(one))].slice(0, SHOWN_PARAMETERS);
  // chance may reach far beyond every share, where a value was tried once: its tick stays at the edge
  const most = Math.max(...shown.map((one) => one.share), 1e-9) * 1.25;
  return el("ol", { class: "parameters" }, shown.map((one) => {
    const at = (share) => (100 * Math.min(share, most)) / most;
    const bar = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: tells(one) ? "own-bar" : "dense-bar", width: at(one.share), height: 10 }),
      svg("line", { class: "chance", x1: at(one.chance), x2: at(one.chance), y1: 0, y2: 10 }));
    return el("li", { title: `chance alone reaches ${Math.round(100 * one.chance)} %` },
      el("span", {}, one.what, el("small", {}, one.where)), bar, el("span", {}, `${Math.round(100 * one.share)}\u00a0%`));
  }));
}

function drawProgress() {
  const known = data.progress.filter((one) => one.hypervolume !== null);
  if (!known.length) return missing("progress", "there is no hypervolume without a dense model to compare with");
  const place = el("div", { class: "plot small" });
  const timed = known.every((one) => one.hours !== null);
  const draw = (key) => place.replaceChildren(hypervolumeChart(known, key));
  const select = el("select", { id: "progress-axis", onchange: (event) => draw(event.target.value) },
    el("option", { value: "trial" }, "trials"), timed ? el("option", { value: "hours" }, "hours") : null);
  byId("progress").append(
    el("p", { class: "note" }, "Hypervolume: what the front dominates, with every objective divided by dense's.", el("label", {}, " Over ", select)),
    place);
  draw("trial");
}

function hypervolumeChart(points, key) {
  const [width, height, left, floor] = [560, 260, 48, 220];
  const place = key === "trial" ? points.map((_, index) => index + 1) : points.map((one) => one.hours);
  const across = (value) => left + (value / (place.at(-1) || 1)) * (width - left - 16);
  const most = Math.max(...points.map((one) => one.hypervolume)) * 1.08 || 1;
  const up = (value) => floor - (value / most) * (floor - 12);
  const path = points.map((one, index) =>
    index ? `H${across(place[index])}V${up(one.hypervolume)}` : `M${across(place[0])} ${up(one.hypervolume)}`);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Hypervolume over ${key}` },
    linearTicks(0, most, 4).flatMap((value) => [
      svg("line", { class: "grid", x1: left, x2: width - 16, y1: up(value), y2: up(value) }),
      svg("text", { class: "tick", x: left - 6, y: up(value) + 4, "text-anchor": "end" }, tick(value)),
    ]),
    linearTicks(0, place.at(-1) || 1, 6).map((value) =>
      svg("text", { class: "tick", x: across(value), y: floor + 16, "text-anchor": "middle" }, tick(value))),
    svg("path", { class: "stairs", d: path.join("") }),
    svg("text", { class: "title", x: (left + width) / 2, y: floor + 36, "text-anchor": "middle" }, key === "trial" ? "Trials ended" : "Hours searched"));
}

function drawCost() {
  const { hours, seconds, statuses, unfinished, sessions } = data.cost;
  const tiles = [
    hours === null ? null : [duration(hours * 3600), "on the clock, the dense model's training included"],
    [duration(Object.values(seconds).reduce((sum, one) => sum + one, 0)), "in all trials together"],
    ...Object.entries(statuses).map(([status, count]) => [`${count}`, status]),
    unfinished ? [`${unfinished}`, "not finished"] : null,
    [`${sessions.length}`, sessions.length === 1 ? "session" : "sessions"],
  ];
  byId("cost").append(
    el("dl", { class: "tiles" }, tiles.filter(Boolean).map(([value, what]) =>
      el("div", {}, el("dt", {}, what), el("dd", {}, value)))),
    stages(seconds), sessionList(sessions));
}

function stages(seconds) {
  const whole = Object.values(seconds).reduce((sum, one) => sum + one, 0) || 1;
  return el("div", {}, el("h3", {}, "Where the time of trials went"),
    el("ol", { class: "parameters" }, Object.entries(seconds).map(([stage, spent]) =>
      el("li", {}, el("span", {}, stage),
        svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
          svg("rect", { class: "own-bar", width: (100 * spent) / whole, height: 10 })),
        el("span", {}, duration(spent))))));
}

function sessionList(sessions) {
  return el("div", {}, el("h3", {}, "Sessions"),
    el("ul", { class: "sessions" }, sessions.map((one) => el("li", {},
      el("strong", {}, (one.started || "").replace("T", " ").replace("+00:00", " UTC")),
      el("code", {}, one.command || "from Python"),
      el("small", {}, [machineOf(one.machine), one.machine && one.machine.system, one.commit ? `commit ${one.commit.slice(0, 12)}` : null,
        ...["autocomp", "torch", "onnxruntime"].map((name) => one.versions && one.versions[name] ? `${name} ${one.versions[name]}` : null)]
        .filter(Boolean).join(" · "))))));
}
