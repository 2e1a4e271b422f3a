// What the table's filter means: kinds, trial numbers, words, and limits as `export --best` takes them.

const LIMIT = /^(\w+)\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%)?\s*(?:\*\s*(\w+))?$/;
const COMPARE = { ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, "<": (a, b) => a < b };
const CONTROL = "control (dense, retrained)";
const REFERENCES = {
  dense: () => data.reference,
  control: () => data.trials.find((one) => one.kind === CONTROL)?.metrics,
};

/** The kind of a trial as its row has it: "control", "other", "stopped early". */
const shortKind = (kind) => kind.replace(/ (\(.*|trials)$/, "");
const SHORT_KINDS = [...KINDS, "failed"].map(shortKind);

/** A filter as tests of a trial, all of which must hold, and what is wrong with it. */
function parsed(text) {
  const plain = text.replace(/(?<=\d),(?=\d{3}(?!\d))/g, ""); // 1,135 as the table writes it
  const parts = plain.split(",").map((one) => one.trim()).filter(Boolean).map(part);
  return {
    tests: parts.filter((one) => typeof one === "function"),
    problems: parts.filter((one) => typeof one === "string"),
  };
}

/** A test of a trial, or what is wrong. */
function part(text) {
  const found = LIMIT.exec(text);
  if (found) return limited(...found.slice(1));
  if (/[<>=]/.test(text)) return `${text} must be like ${example()}`;
  const words = text.toLowerCase();
  const numbered = /^(?:trial )?(\d+)$/.exec(words);
  if (numbered) return (trial) => trial.number === +numbered[1];
  const kind = SHORT_KINDS.find((one) => one === words || one.startsWith(`${words} `));
  if (kind) return (trial) => shortKind(trial.kind) === kind;
  return (trial) => [trial.short, trial.reason || "", ...trial.words].some((one) => one.toLowerCase().includes(words));
}

function limited(metric, sign, limit, percent, of) {
  const written = `${limit}${percent || ""}`;
  const known = Object.keys(data.metrics);
  if (!known.includes(metric)) return `no metric ${metric}, but ${known.join(", ")}`;
  if (!Number.isFinite(+limit)) return `${metric} must be compared with a finite number, but got ${written}`;
  if (percent && !of) return `${written} must say of what, such as ${written}*dense`;
  if (of && !Object.hasOwn(REFERENCES, of)) return `${of} must be one of ${Object.keys(REFERENCES).join(", ")}`;
  const reference = of ? (REFERENCES[of]() || {})[metric] : 1;
  if (reference === undefined) return `the study has no ${of} ${metric} yet`;
  const bound = (+limit / (percent ? 100 : 1)) * reference;
  return (trial) => metric in trial.metrics && COMPARE[sign](trial.metrics[metric], bound);
}

/** A limit that keeps about half of the trials, without the commas and letters of `number`. */
function example() {
  const [first] = goals();
  const { metric } = goals().find((one) => one !== first) || first;
  const values = data.trials.map((one) => one.metrics[metric]).filter((one) => one !== undefined);
  const middle = values.sort((a, b) => a - b)[values.length >> 1] || 1;
  return `${metric}${isMore(metric) ? ">=" : "<="}${+middle.toPrecision(3)}`;
}
