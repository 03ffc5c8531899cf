// The marks of a chart: what a row's mark looks like, by its kind or its architecture family; whiskers, stairs, names.
"use strict";

const PIN_LETTERS = "ABCDEF", MOST_PINS = PIN_LETTERS.length;
const SHAPES = { teacher: "square", baseline: "triangle", distilled: "circle", control: "diamond", imported: "plus" };
// Architecture families, most rows first; each has a shape and a colour of its own, the eighth and later share the last.
const FAMILY_SHAPES = ["circle", "square", "triangle", "diamond", "pentagon", "down", "star", "hexagon"];
const FAMILIES = (() => {
  const counts = new Map();
  for (let i = 0; i < NUM; i++) counts.set(named("family", i), (counts.get(named("family", i)) || 0) + 1);
  const order = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const last = FAMILY_SHAPES.length - 1;
  return { order: order.length > last + 1 ? order.slice(0, last) : order, slot: new Map(order.map((name, n) => [name, Math.min(n, last)])), isMore: order.length > last + 1 };
})();
// Shape and classes of a row's mark.
function lookOf(i, marks) {
  if (marks !== "family") return { shape: SHAPES[kindOf(i)], look: `k-${kindOf(i)}` };
  const slot = FAMILIES.slot.get(named("family", i));
  return { shape: FAMILY_SHAPES[slot], look: `f-${slot}${isImported(i) ? " borrowed" : ""}` };
}
function swatchOf(i, marks) { const { shape, look } = lookOf(i, marks); return swatch(shape, look, isInt8(i)); }
function swatch(shape, look, full) {
  return drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("path", { d: markPath(shape, 8, 8, 5), class: `mark ${look}${full ? " full" : ""}` }));
}

const regular = (x, y, r, n, inner = 1) => Array.from({ length: n }, (_, k) => { const far = k % 2 ? r * inner : r, at = (2 * Math.PI * k) / n - Math.PI / 2; return `${k ? "L" : "M"}${(x + far * Math.cos(at)).toFixed(1)},${(y + far * Math.sin(at)).toFixed(1)}`; }).join("") + "z";
function markPath(shape, x, y, r) {
  const p = (value) => value.toFixed(1);
  if (shape === "square") return `M${p(x - r)},${p(y - r)}h${p(2 * r)}v${p(2 * r)}h${p(-2 * r)}z`;
  if (shape === "triangle") return `M${p(x)},${p(y - 1.15 * r)}L${p(x + 1.1 * r)},${p(y + 0.85 * r)}H${p(x - 1.1 * r)}z`;
  if (shape === "down") return `M${p(x)},${p(y + 1.15 * r)}L${p(x + 1.1 * r)},${p(y - 0.85 * r)}H${p(x - 1.1 * r)}z`;
  if (shape === "diamond") return `M${p(x)},${p(y - 1.3 * r)}L${p(x + 1.3 * r)},${p(y)}L${p(x)},${p(y + 1.3 * r)}L${p(x - 1.3 * r)},${p(y)}z`;
  if (shape === "plus") return `M${p(x - r)},${p(y)}H${p(x + r)}M${p(x)},${p(y - r)}V${p(y + r)}`;
  if (shape === "pentagon") return regular(x, y, 1.15 * r, 5);
  if (shape === "hexagon") return regular(x, y, 1.1 * r, 6);
  if (shape === "star") return regular(x, y, 1.4 * r, 10, 0.45);
  return `M${p(x - r)},${p(y)}a${p(r)},${p(r)} 0 1 0 ${p(2 * r)},0a${p(r)},${p(r)} 0 1 0 ${p(-2 * r)},0z`;
}

// One path a look, not one element a row: 100,000 marks stay quick.
function markPaths(spots, indices, front, verdicts, marks) {
  const paths = new Map();
  for (const on of [false, true]) {
    for (const i of indices) {
      if (front.has(i) !== on) continue;
      const { shape, look } = lookOf(i, marks);
      const key = `mark ${look}${isInt8(i) ? " full" : ""}${on || indices.length < 8 || verdicts.get(i) === "maybe" ? "" : " dim"}`;
      const [x, y] = spots.get(i);
      if (!paths.has(key)) paths.set(key, []);
      paths.get(key).push(markPath(shape, x, y, on ? 5 : 4));
    }
  }
  return [...paths].map(([key, some]) => drawn("path", { d: some.join(""), class: key }));
}

// What lies outside the range: an arrowhead at the edge, in the colour of the row, that can be pointed at like a mark.
function edgePaths(outside, marks) {
  const paths = new Map();
  for (const [i, [x, y, angle]] of outside) {
    const key = `edge mark full ${lookOf(i, marks).look}`;
    if (!paths.has(key)) paths.set(key, []);
    const tip = (far, turn) => `${(x + far * Math.cos(angle + turn)).toFixed(1)},${(y + far * Math.sin(angle + turn)).toFixed(1)}`;
    paths.get(key).push(`M${tip(7, 0)}L${tip(8, 2.5)}L${tip(8, -2.5)}z`);
  }
  return [...paths].map(([key, some]) => drawn("path", { d: some.join(""), class: key }));
}

function whiskerPaths(state, ruler, spots, indices, box) {
  const paths = new Map();
  for (const i of indices) {
    const bounds = interval(state.quality, i);
    if (!bounds || !spots.has(i)) continue;
    const [x] = spots.get(i), kind = `whisker ${lookOf(i, state.marks).look}`;
    const [low, high] = bounds.map((v) => Math.min(box.bottom, Math.max(box.top, ruler.up(v))).toFixed(1));
    if (!paths.has(kind)) paths.set(kind, []);
    paths.get(kind).push(`M${x.toFixed(1)},${low}V${high}M${(x - 3).toFixed(1)},${low}h6M${(x - 3).toFixed(1)},${high}h6`);
  }
  return [...paths].map(([kind, some]) => drawn("path", { d: some.join(""), class: kind }));
}

function stair(spots, right) {
  return spots.length ? drawn("path", { d: line(corners(spots, right)), class: "front" }) : drawn("g");
}
// Between the front as it was measured and where it would fall to at the lower ends of all intervals.
function doubt(ruler, spots, floor, box) {
  const upper = corners(spots, box.right);
  const lower = corners(floor.map(([cost, low]) => [ruler.across(cost), Math.min(box.bottom, ruler.up(low))]), box.right);
  return [drawn("path", { d: line([...upper, ...[...lower].reverse()]) + "Z", class: "doubt" }), drawn("path", { d: line(lower), class: "floor" })];
}
// The corners of a stair through these spots, out to the right edge.
function corners(spots, right) {
  return spots.flatMap(([x, y], n) => [[x, y], [n + 1 < spots.length ? spots[n + 1][0] : Math.max(right, x), y]]);
}
const line = (spots) => spots.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

function linkPaths(spots, indices, kind = "link") {
  const lines = [];
  for (const i of indices) {
    const spot = spots.get(i);
    for (const [what, j] of relatives(i)) {
      if (kind === "link" && what === "teacher") continue;
      const other = spots.get(j);
      if (spot && other) lines.push(`M${spot[0].toFixed(1)},${spot[1].toFixed(1)}L${other[0].toFixed(1)},${other[1].toFixed(1)}`);
    }
  }
  return drawn("path", { d: lines.join(""), class: kind });
}

// Names of front rows where there is room right beside the mark, nearer to it than to any other: no name needs a line, and
// none lies on a mark, the stair or another name. The others' names come when they are pointed at.
// `taken` are boxes that no name may lie on, `rather` those that it lies on where there is no other place (whiskers).
function nameMarks(places, front, taken, rather, box) {
  const spots = [...places.values()], labels = [];
  const filled = [...spots.map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]), ...taken];
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  for (const i of front.slice(0, 60)) {
    const name = title(i, true);
    const [x, y] = places.get(i), w = name.length * 6.4, h = 14, tries = [];
    for (const isCrossing of [false, true])
      for (const far of [8, 14])
        for (const [dx, dy] of [[-1, -1], [1, 1], [0, -1], [1, 0], [-1, 0], [0, 1], [1, -1], [-1, 1]])
          tries.push([x + dx * far - (w * (1 - dx)) / 2, y + dy * far - (h * (1 - dy)) / 2, isCrossing]);
    const fit = tries.find(([left, up, isCrossing]) => {
      const own = [left, up, left + w, up + h];
      if (left < box.left + 2 || own[2] > box.right + 6 || up < box.top || own[3] > box.bottom - 2) return false;
      if (filled.some((other) => meets(own, other)) || (!isCrossing && rather.some((other) => meets(own, other)))) return false;
      const mine = gap(own, x, y);
      return spots.every(([a, b]) => (a === x && b === y) || gap(own, a, b) > mine + 2);
    });
    if (!fit) continue;
    filled.push([fit[0], fit[1], fit[0] + w, fit[1] + h]);
    labels.push(drawn("text", { x: fit[0], y: fit[1] + 11, class: "name" }, name));
  }
  return labels;
}
const gap = ([left, up, right, down], x, y) => Math.hypot(x - Math.min(Math.max(x, left), right), y - Math.min(Math.max(y, up), down));
function stairBoxes(spots, right) {
  return spots.flatMap(([x, y], n) => {
    const [nextX, nextY] = spots[n + 1] || [right, y];
    return [[x, y - 2, nextX, y + 2], [nextX - 2, Math.min(nextY, y), nextX + 2, Math.max(nextY, y)]];
  });
}
