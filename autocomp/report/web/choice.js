// The chosen trial: every part shows it, any part may change it, and the URL fragment keeps it.

const choice = { trial: null, listeners: [] };

function onChoice(listener) {
  choice.listeners.push(listener);
}

function choose(number, keepsAddress = false) {
  if (!trials.has(number) || number === choice.trial) return;
  choice.trial = number;
  if (!keepsAddress) history.replaceState(null, "", `#trial=${number}`);
  for (const listener of choice.listeners) listener(trials.get(number));
}

function fromAddress() {
  const found = /^#trial=(\d+)$/.exec(location.hash);
  return found && trials.has(+found[1]) ? +found[1] : null;
}

/** The trial to begin with: the address's, else the smallest that is nearly as good as dense. */
function firstChoice() {
  const named = fromAddress();
  if (named !== null) return named;
  const shares = data.headline.shares || [];
  const good = shares.flatMap((one) => one.choices).map((one) => one.trial);
  const compressed = good.find((one) => one !== null && trials.get(one).kind === "front");
  if (compressed !== undefined) return compressed;
  const front = data.trials.find((one) => one.on_front) || data.trials[0];
  return front ? front.number : null;
}

addEventListener("hashchange", () => {
  const named = fromAddress();
  if (named !== null) choose(named, true);
});

/** The tooltip beside the pointer: what a trial is, in words. */
function showTip(trial, x, y) {
  const tip = byId("tip");
  tip.replaceChildren(...real([
    el("strong", {}, swatch(trial.kind), `Trial ${trial.number}`),
    el("span", { class: "kind" }, trial.kind === "front" ? "on the front" : trial.kind),
    el("dl", {}, goals().map((one) => tipLine(trial, one.metric))),
    el("ul", {}, trial.words.map((one) => el("li", {}, one))),
    trial.reason ? el("p", {}, trial.reason) : null,
  ]));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - height - 4))}px`;
}

function tipLine(trial, metric) {
  const value = trial.metrics[metric];
  if (value === undefined) return null;
  return [
    el("dt", {}, nameOf(metric)),
    el("dd", {}, measured(metric, value), el("span", {}, ` ${compared(metric, value)}`)),
  ];
}

function hideTip() {
  byId("tip").hidden = true;
}

const goals = () => data.objectives.filter((one) => one.direction);
