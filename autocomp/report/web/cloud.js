// Three objectives: a box that turns, drawn in parallel projection, with a stem below every mark.

const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

/** Draw into `root`; returns the marks with their places in pixels. */
function drawCloud(root, seen, width, height) {
  const names = [view.x, view.y, view.z];
  const inAll = seen.filter((one) => names.every((metric) => metric in one.metrics));
  if (!inAll.length) {
    root.append(svg("text", { class: "empty", x: width / 2, y: height / 2 }, "Nothing to show"));
    return [];
  }
  const scales = names.map((metric) => scaleOf(metric, inAll.map((one) => one.metrics[metric]), -1, 1));
  const project = projection(width, height);
  root.append(...box(project), ...edgeTitles(project, scales));
  const placed = inAll
    .map((trial) => {
      const point = names.map((metric, index) => scales[index](trial.metrics[metric]));
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

/** The floor, and the walls that stand behind it. */
function box(project) {
  const face = (points) => svg("polygon", { class: "wall", points: points.map((one) => one.slice(0, 2).join()).join(" ") });
  const floor = face(CORNERS.map(([right, away]) => project(right, -1, away)));
  const walls = CORNERS.flatMap((corner, index) => {
    const next = CORNERS[(index + 1) % 4];
    const middle = project((corner[0] + next[0]) / 2, 0, (corner[1] + next[1]) / 2)[2];
    if (middle <= project(0, 0, 0)[2] + 1e-6) return [];
    const [one, other] = [corner, next];
    return face([project(one[0], -1, one[1]), project(other[0], -1, other[1]), project(other[0], 1, other[1]), project(one[0], 1, one[1])]);
  });
  return [floor, ...walls];
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
