// Small plots as SVG path data. Pure: numbers in, text out. y grows downwards, as in SVG.

function scaled({ from, to, low, high, width, height, inset = 1 }) {
  const x = (at) => round(((Math.min(to, Math.max(from, at)) - from) / (to - from || 1)) * width);
  const y = (value) => {
    const share = (Math.min(high, Math.max(low, value)) - low) / (high - low || 1);
    return round(height - inset - share * (height - 2 * inset));
  };
  return { x, y };
}

function round(number) {
  return Math.round(number * 100) / 100;
}

/** A line through points `[at, value]`; empty for fewer than two. */
export function line(points, box) {
  if (points.length < 2) return "";
  const { x, y } = scaled(box);
  return points.map(([at, value], index) => `${index ? "L" : "M"}${x(at)} ${y(value)}`).join("");
}

/** The area below such a line. */
export function area(points, box) {
  const path = line(points, box);
  if (path === "") return "";
  const { x } = scaled(box);
  return `${path}L${x(points.at(-1)[0])} ${box.height}L${x(points[0][0])} ${box.height}Z`;
}

/** A line that keeps each value until the next point, and the last one until the end of the box. */
export function stairs(points, box) {
  if (points.length === 0) return "";
  const { x, y } = scaled(box);
  let path = `M${x(points[0][0])} ${y(points[0][1])}`;
  for (const [at, value] of points.slice(1)) path += `H${x(at)}V${y(value)}`;
  return `${path}H${box.width}`;
}

/** Bars from the left, one for each value, with room for `most`; each is a rectangle `{x, y, width, height, good}`. */
export function bars(values, { most, low, high, width, height, good }) {
  const step = width / most;
  const { y } = scaled({ from: 0, to: 1, low, high, width, height, inset: 0 });
  return values.slice(-most).map((value, index) => {
    const top = Math.min(y(value), height - 1.5);
    return { x: round(index * step), y: top, width: round(step * 0.7), height: round(height - top), good: good(value) };
  });
}
