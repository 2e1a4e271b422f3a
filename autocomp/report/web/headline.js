// The page's head, and the answer to what one came for: how small and how fast at which quality.

function drawHead() {
  document.title = `${data.name}: autocomp report`;
  const members = data.trials.filter((one) => one.on_front).length;
  const facts = [
    counted(data.trials.length, "trial"),
    `${members} on the front`,
    data.hypervolume === null ? null : `hypervolume ${data.hypervolume.toFixed(3)}`,
    data.cost.hours === null ? null : duration(data.cost.hours * 3600),
    machineOf((data.cost.sessions.at(-1) || {}).machine),
    targetOf(data.target),
  ];
  byId("head").append(
    el("p", { class: "brand" }, "autocomp"),
    el("h1", {}, data.name),
    el("p", { class: "facts" }, facts.filter(Boolean).map((one) => el("span", {}, one))),
  );
  byId("foot").append(
    el("p", {}, `autocomp ${data.autocomp}. Everything is inside this file; it loads nothing.`),
  );
}

function machineOf(machine) {
  if (!machine || !machine.processor) return null;
  return machine.cores ? `${machine.processor}, ${counted(machine.cores, "core")}` : machine.processor;
}

function targetOf(target) {
  if (!target || !target.kind) return null;
  return target.threads ? `${target.kind}, ${counted(target.threads, "thread")}` : target.kind;
}

function drawHeadline() {
  const { quality, shares, missing: why } = data.headline;
  if (why) return missing("headline", why);
  const metrics = shares[0].choices.map((one) => one.metric);
  const head = [`${capital(nameOf(quality))} of at least`, ...metrics.map((one) => `Least ${nameOf(one)}`)];
  byId("headline").append(
    el("table", { class: "offers" },
      el("thead", {}, el("tr", {}, head.map((one) => el("th", { scope: "col" }, one)))),
      el("tbody", {}, shares.map((share) => el("tr", {},
        el("th", { scope: "row" },
          el("strong", {}, `${share.percent}\u00a0%`),
          el("span", {}, `${number(share.at_least)}`)),
        share.choices.map((one) => el("td", {}, offer(one, quality)))))),
    ),
    el("p", { class: "note" }, "Percent of the better of the dense model and the control, which is dense retrained. Factors are against dense. Trials were chosen on these very images, which flatters the chosen a little: autocomp verify --split test measures one on images that no search reads."),
  );
}

/** The best trial for a share and a cost. */
function offer({ metric, trial: numbered, command: line }, quality) {
  if (numbered === null) return el("p", { class: "none" }, "nothing compressed is that good");
  const trial = trials.get(numbered);
  const value = trial.metrics[metric];
  const others = goals().map((one) => one.metric).filter((one) => one !== metric && one !== quality);
  const rest = [
    ...others.map((one) => `${measured(one, trial.metrics[one])}, ${compared(one, trial.metrics[one])}`),
    `${nameOf(quality)} ${number(trial.metrics[quality])}, ${compared(quality, trial.metrics[quality])}`,
  ];
  const button = el("button", { class: "offer", type: "button", onclick: () => choose(numbered) },
    el("strong", {}, measured(metric, value)),
    el("em", {}, compared(metric, value)),
    el("span", { class: "badge" }, `trial ${numbered}`),
    el("span", { class: "rest" }, rest.join(" · ")));
  onChoice((now) => button.setAttribute("aria-pressed", `${now.number === numbered}`));
  return [button, command(line)];
}
