// Axes: linear and logarithmic scales, and ticks that people read.

const LOG_FROM = 4; // a cost that spans more than this factor is drawn on a logarithmic axis

/** A function from values of a metric to [from, to], with `ticks` and `value(pixel)`. */
function scaleOf(metric, values, from, to, domain = null) {
  let [low, high] = domain || [Math.min(...values), Math.max(...values)];
  const isLog = !isMore(metric) && low > 0 && high / low > LOG_FROM;
  const forth = isLog ? Math.log : (one) => one;
  const back = isLog ? Math.exp : (one) => one;
  if (!domain) [low, high] = widened(forth(low), forth(high)).map(back);
  const span = forth(high) - forth(low) || 1;
  const scale = (value) => from + ((forth(value) - forth(low)) / span) * (to - from);
  scale.value = (at) => back(forth(low) + ((at - from) / (to - from)) * span);
  scale.domain = [low, high];
  scale.ticks = (count) => (isLog ? logTicks(low, high, count) : linearTicks(low, high, count));
  return scale;
}

function widened(low, high) {
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - margin, high + margin];
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) {
    ticks.push(+at.toPrecision(12));
  }
  return ticks;
}

function logTicks(low, high, count) {
  const within = (steps) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      found.push(...steps.map((one) => +(one * 10 ** power).toPrecision(6)));
    }
    return found.filter((one) => one >= low && one <= high);
  };
  const options = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]].map(within);
  const fitting = options.filter((one) => one.length >= 2 && one.length <= count + 2);
  return fitting.length ? fitting[fitting.length - 1] : linearTicks(low, high, count);
}

function tick(value) {
  return Math.abs(value) >= 1000 ? number(value) : `${+value.toPrecision(4)}`;
}

/** Indices of the points that no other beats; `signs` are 1 where less is better, else -1. */
function nonDominated(points, signs) {
  const losses = points.map((point) => point.map((one, index) => one * signs[index]));
  const beats = (one, other) =>
    one.every((value, index) => value <= other[index]) &&
    one.some((value, index) => value < other[index]);
  return losses.flatMap((own, index) => (losses.some((one) => beats(one, own)) ? [] : [index]));
}
