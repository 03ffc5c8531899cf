// Small drawings of a row's page: lines over a plane (learning, ROC, calibration) and bars.
"use strict";

// series: {name, points: [[x, y]], sizes}. about: {x, y: words, range: [x0, x1, y0, y1] or none, diagonal}.
function curveChart(name, series, about) {
  const width = 360, height = 250, box = { left: 58, right: width - 12, top: 12, bottom: height - 40 }, known = series.filter(({ points }) => points.length);
  const xs = known.flatMap(({ points }) => points.map(([x]) => x)), ys = known.flatMap(({ points }) => points.map(([, y]) => y));
  const room = (most(ys) - least(ys)) * 0.06 || 0.01, [x0, x1, y0, y1] = about.range ?? [least(xs), Math.max(most(xs), least(xs) + 1), least(ys) >= 0 ? Math.max(0, least(ys) - room) : least(ys) - room, most(ys) + room];
  const across = (x) => box.left + ((box.right - box.left) * (x - x0)) / (x1 - x0 || 1), up = (y) => box.bottom - ((box.bottom - box.top) * (y - y0)) / (y1 - y0 || 1);
  const ends = known.map(({ name: one, points }) => `${one} ends at ${threeDigits(points.at(-1)[1])}`).join(", ");
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: ${about.y} against ${about.x}. ${about.range ? known.map((one) => one.name).join(", ") : ends}` });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const y = y0 + (y1 - y0) * part, x = x0 + (x1 - x0) * part;
    svg.append(drawn("line", { x1: box.left, x2: box.right, y1: up(y), y2: up(y), class: "grid" }), drawn("text", { x: box.left - 6, y: up(y) + 4, "text-anchor": "end", class: "tick" }, tickOf(y, y1 - y0)));
    if (about.x !== "epoch" || part === 0 || part === 1 || x1 - x0 >= 8) svg.append(drawn("text", { x: across(x), y: box.bottom + 15, "text-anchor": "middle", class: "tick" }, about.x === "epoch" ? String(Math.round(x)) : tickOf(x, x1 - x0)));
  }
  svg.append(drawn("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, about.x), drawn("text", { x: 0, y: 0, transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, about.y));
  const low = Math.max(x0, y0), high = Math.min(x1, y1);
  if (about.diagonal) svg.append(drawn("path", { d: line([[across(low), up(low)], [across(high), up(high)]]), class: "chance" }));
  known.forEach(({ points, sizes }, n) => {
    const spots = points.map(([x, y]) => [across(x), up(y)]), look = `curve f-${n % FAMILY_SHAPES.length} dash-${n % 4}`;
    svg.append(drawn("path", { d: line(spots), class: look }));
    if (sizes || points.length < 3) svg.append(...spots.map(([cx, cy], k) => drawn("circle", { cx, cy, r: sizes ? 2.5 + 6 * Math.sqrt(sizes[k] / most(sizes)) : 3, class: `mark full f-${n % FAMILY_SHAPES.length}` })));
  });
  const legend = known.length > 1 ? node("ul", { class: "legend" }, known.map(({ name: one }, n) => node("li", {}, drawn("svg", { viewBox: "0 0 22 16", "aria-hidden": "true" }, drawn("path", { d: "M0,8H22", class: `curve f-${n % FAMILY_SHAPES.length} dash-${n % 4}` })), one))) : null;
  return node("figure", { class: "chart" }, node("figcaption", {}, node("strong", {}, name)), svg, legend);
}
const tickOf = (value, reach) => value.toFixed(reach >= 20 ? 0 : reach >= 2 ? 1 : reach >= 0.2 ? 2 : 3);

// Bars by name, largest as given; at most `most` of them, and it says how many there are.
function bars(pairs, write, label, limit = 40) {
  const high = Math.max(...pairs.map(([, value]) => value), 0) || 1;
  const rows = pairs.slice(0, limit).map(([name, value]) => { const bar = node("span", { class: "bar-fill" }); bar.style.setProperty("--part", value / high); return node("tr", {}, node("th", { scope: "row" }, name), node("td", { class: "figure" }, write(value)), node("td", { class: "bar-cell", "aria-hidden": "true" }, bar)); });
  return node("div", { class: "sideways" }, node("table", { class: "bars", "aria-label": label }, node("tbody", {}, rows)), pairs.length > limit ? node("p", { class: "hint" }, `${limit} of ${pairs.length}.`) : null);
}
