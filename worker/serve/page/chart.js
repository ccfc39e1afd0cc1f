// Line charts over time, as SVG: points of [Unix ms, number], redrawn at every update.

const SPACE = "http://www.w3.org/2000/svg";
const NARROWEST = 200;
const HEIGHT = 144;
const LEFT = 48;
const BOTTOM = 18;
const TOP = 8;

function make(name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The upper end of the axis: a round number of at least `most`.
function ceiling(most) {
  if (most <= 0) return 1;
  const ten = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= most);
}

export function short(number) {
  if (number >= 1e6) return `${+(number / 1e6).toFixed(1)}M`;
  if (number >= 1e3) return `${+(number / 1e3).toFixed(1)}k`;
  return `${+number.toFixed(number < 10 ? 1 : 0)}`;
}

// lines: [{name: CSS class of the line, points}], all over the same time span.
export function draw(into, lines, label, spanMs) {
  const width = Math.max(NARROWEST, into.clientWidth); // so that its text is as large as the page's
  const every = lines.flatMap((line) => line.points);
  const last = Math.max(...every.map(([at]) => at), 0);
  const top = ceiling(Math.max(...every.map(([, value]) => value), 0));
  const x = (at) => LEFT + (width - LEFT - 4) * (1 - (last - at) / spanMs);
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value / top);
  const svg = make("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label});
  for (const value of [0, top / 2, top]) {
    svg.append(make("line", {class: "grid", x1: LEFT, x2: width - 4, y1: y(value), y2: y(value)}));
    svg.append(make("text", {x: LEFT - 6, y: y(value) + 4, "text-anchor": "end"}, short(value)));
  }
  for (const seconds of [600, 300, 120, 60, 30].filter((each) => each * 1000 <= spanMs && each * 2500 >= spanMs)) {
    const text = seconds < 60 ? `${seconds} s ago` : `${seconds / 60} min ago`;
    svg.append(make("text", {x: x(last - seconds * 1000), y: HEIGHT - 3, "text-anchor": "start"}, text));
  }
  svg.append(make("text", {x: width - 4, y: HEIGHT - 3, "text-anchor": "end"}, "now"));
  for (const {name, points} of lines) {
    const path = points.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    svg.append(make("polyline", {class: name, points: path}));
  }
  into.replaceChildren(svg);
}

// The rate of a counter per second, in steps of a few seconds. A counter that fell (an empty Redis) starts again.
export function rates(points, column, stepMs = 5000) {
  const found = [];
  let from = points[0];
  for (const point of points) {
    const ms = point[0] - from[0];
    if (ms >= stepMs) {
      found.push([point[0], (Math.max(0, point[column] - from[column]) / ms) * 1000]);
      from = point;
    } else if (ms < 0) from = point;
  }
  return found;
}
