// Three objectives: a box that turns, drawn in parallel projection, with a stem below every mark.

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

/** Draw into `root`; returns the marks with their places in pixels. */
function drawCloud(root, seen, width, height) {
  const names = [view.x, view.y, view.z];
  const inAll = seen.filter((one) => view.y in one.metrics);
  if (!inAll.length) {
    root.append(svg("text", { class: "empty", x: width / 2, y: height / 2 }, "Nothing to show"));
    return [];
  }
  const known = (metric) => seen.map((one) => one.metrics[metric]).filter((one) => one !== undefined);
  const scales = names.map((metric) => scaleOf(metric, known(metric), -1, 1));
  const project = projection(width, height);
  root.append(...box(project), ...beyond(project, names, scales), ...edgeTitles(project, scales));
  const placed = seen
    .map((trial) => {
      // a stopped trial's quality is not known: it stands on the floor
      const point = names.map((metric, index) => metric in trial.metrics ? scales[index](trial.metrics[metric]) : -1);
      const [x, y, depth] = project(...point);
      return { trial, x, y, depth, foot: project(point[0], -1, point[2]) };
    })
    .sort((a, b) => b.depth - a.depth);
  for (const one of placed) {
    const [x, y] = one.foot;
    const faint = one.trial.on_front || one.trial.kind === "dense" ? "" : " faint";
    root.append(svg("line", { class: `stem${faint}`, x1: one.x, y1: one.y, x2: x, y2: y }), marked(one));
  }
  return placed;
}

/** From the unit box (right, up, away) to pixels and depth, as the view is turned. */
function projection(width, height) {
  const size = Math.min(width / 3.3, height / 3.1);
  const [cosine, sine] = [Math.cos(view.yaw), Math.sin(view.yaw)];
  const [level, tilt] = [Math.cos(view.pitch), Math.sin(view.pitch)];
  return (right, up, away) => {
    const across = right * cosine + away * sine;
    const behind = away * cosine - right * sine;
    const rise = up * level + behind * tilt;
    return [width / 2 + across * size, height * 0.48 - rise * size, behind * level - up * tilt];
  };
}

const face = (kind, points) => svg("polygon", { class: kind, points: points.map((one) => one.slice(0, 2).join()).join(" ") });

/** The floor, and the walls that stand behind it. */
function box(project) {
  return [ground(project, "wall", [-1, 1], [-1, 1]), ...standing(project, "wall", [-1, 1])];
}

function ground(project, kind, [left, right], [near, away]) {
  return face(kind, [[left, near], [right, near], [right, away], [left, away]].map(([x, z]) => project(x, -1, z)));
}

/** The walls behind the floor, from one height to another. */
function standing(project, kind, [low, high]) {
  return CORNERS.flatMap((one, index) => {
    const other = CORNERS[(index + 1) % 4];
    const middle = project((one[0] + other[0]) / 2, 0, (one[1] + other[1]) / 2)[2];
    if (middle <= project(0, 0, 0)[2] + 1e-6) return [];
    return face(kind, [project(one[0], low, one[1]), project(other[0], low, other[1]), project(other[0], high, other[1]), project(one[0], high, one[1])]);
  });
}

/** Shade what lies beyond the bounds of the space: on the floor, or on the walls. */
function beyond(project, names, scales) {
  return data.objectives.flatMap(({ metric, limits }) => Object.entries(limits).flatMap(([end, limit]) => {
    const axis = names.indexOf(metric);
    if (axis < 0 || limit === null) return [];
    const at = Math.max(-1, Math.min(1, scales[axis](limit)));
    const part = end === "at_most" ? [at, 1] : [-1, at];
    if (axis === 1) return standing(project, "beyond-bound", part);
    return ground(project, "beyond-bound", ...(axis ? [[-1, 1], part] : [part, [-1, 1]]));
  }));
}

/** Ticks and titles along the near edges of the floor, and up the leftmost corner. */
function edgeTitles(project, [x, y, z]) {
  const nearer = (one, other) => (project(...one)[2] <= project(...other)[2] ? one : other);
  const near = nearer([0, -1, -1], [0, -1, 1])[2];
  const side = nearer([-1, -1, 0], [1, -1, 0])[0];
  const left = CORNERS.reduce((best, one) =>
    project(one[0], 0, one[1])[0] < project(best[0], 0, best[1])[0] ? one : best);
  return [
    ...edge(x, view.x, (at, out) => project(at, -1 - 0.3 * out, near * (1 + out))),
    ...edge(z, view.z, (at, out) => project(side * (1 + out), -1 - 0.3 * out, at)),
    ...edge(y, view.y, (at, out) => { const [right, up] = project(left[0], at, left[1]); return [right - 90 * out, up]; }),
  ];
}

function edge(scale, metric, place) {
  const ticks = scale.ticks(4).flatMap((value) => {
    const [from, to] = [place(scale(value), 0), place(scale(value), 0.05)];
    const [x, y] = place(scale(value), 0.17);
    return [
      svg("line", { class: "grid", x1: from[0], y1: from[1], x2: to[0], y2: to[1] }),
      svg("text", { class: "tick", x, y: y + 4, "text-anchor": "middle" }, tick(value)),
    ];
  });
  const [x, y] = place(0, 0.46);
  const isUpright = metric === view.y;
  const where = isUpright ? { transform: `translate(${x - 14} ${y}) rotate(-90)` } : { x, y: y + 6 };
  return [...ticks, svg("text", { class: "title", "text-anchor": "middle", ...where }, capital(titled(metric)))];
}
