// One scatter chart: quality upwards, a cost to the right, the front as a stair, everything reachable by mouse, touch and keys.
"use strict";

const COSTS = DATA.costs;
const MARGIN = { left: 64, right: 14, top: 12, bottom: 44 };
const HEIGHT = 380;
const REACH = 22; // a mark is found within this many pixels of the pointer

function makeChart(holder, slot, hooks) {
  const chooser = node("select", { id: `x-${slot}` });
  const log = node("input", { type: "checkbox", id: `log-${slot}` });
  for (const name of COSTS.filter(has)) chooser.append(node("option", { value: name }, heading(name)));
  const caption = node("figcaption", {}, node("label", {}, "Against", chooser), node("label", { class: "check" }, log, "logarithmic"));
  const svg = drawn("svg", { tabindex: "0", role: "application", "aria-describedby": "count" });
  const still = drawn("g"), live = drawn("g");
  svg.append(still, live);
  holder.append(caption, svg);
  const chart = { slot, svg, places: new Map(), order: [], at: -1 };
  chooser.addEventListener("change", () => hooks.change(slot, { x: chooser.value }));
  log.addEventListener("change", () => hooks.change(slot, { log: log.checked }));

  chart.draw = (state, indices, { front, verdicts }) => {
    const { x, log: isLog } = state.axes[slot];
    chooser.value = x;
    log.checked = isLog;
    still.replaceChildren();
    const width = Math.max(280, Math.round(holder.clientWidth - 26));
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("height", HEIGHT);
    const drawable = indices.filter((i) => figure(x, i) > 0 && figure(state.quality, i) !== null);
    svg.setAttribute("aria-label", `${heading(state.quality)} against ${heading(x)}: ${drawable.length} rows, ${front.length} on the front. Arrow keys walk, Enter pins.`);
    chart.places = new Map();
    chart.order = [];
    if (!drawable.length) {
      still.append(drawn("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle", class: "none" }, indices.length ? `no ${heading(x)} measured` : "no row is left"));
      chart.light(state, -1);
      return;
    }
    chart.verdicts = verdicts;
    chart.against = x;
    const ruler = rulers(state, drawable, front, x, isLog, width);
    for (const i of drawable) chart.places.set(i, [ruler.across(figure(x, i)), ruler.up(figure(state.quality, i))]);
    chart.order = [...drawable].sort((a, b) => figure(x, a) - figure(x, b));
    still.append(...ruler.lines);
    if (state.whiskers !== "none" && front.some((i) => interval(state.quality, i))) still.append(...doubt(ruler, chart.places, front, floorOf(drawable, x, state.quality), width));
    if (state.links) still.append(linkPaths(chart.places, front));
    still.append(...whiskerPaths(state, ruler, chart.places, state.whiskers === "all" ? drawable : state.whiskers === "front" ? front : []));
    still.append(stair(chart.places, front, width));
    still.append(...markPaths(chart.places, drawable, new Set(front), chart.verdicts));
    if (state.names) still.append(...nameMarks(chart.places, front, width));
    chart.light(state, -1);
  };

  // Where a row stands in this chart, in words.
  chart.verdict = (i) => {
    const verdict = chart.verdicts?.get(i);
    return verdict ? `${FIGURES[chart.against].label}: ${FRONT_WORDS[verdict]}` : "";
  };

  // What moves with the pointer: the ring, the row's relatives, the pins.
  chart.light = (state, lit) => {
    live.replaceChildren();
    if (lit >= 0 && chart.places.has(lit)) {
      live.append(linkPaths(chart.places, [lit], "link strong"));
      for (const [, other] of relatives(lit)) ring(chart.places.get(other), 7, "ring");
      ring(chart.places.get(lit), 9, "ring");
    }
    state.pins.forEach((pin, n) => {
      const spot = chart.places.get(pin);
      if (!spot) return;
      ring(spot, 9, `ring ${"ab"[n]}`);
      live.append(drawn("text", { x: spot[0], y: spot[1] - 12, "text-anchor": "middle", class: `pin-letter ${"ab"[n]}` }, "AB"[n]));
    });
  };
  function ring(spot, radius, kind) {
    if (spot) live.append(drawn("circle", { cx: spot[0], cy: spot[1], r: radius, class: kind }));
  }

  function found(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
    let best = -1, nearest = REACH * REACH;
    for (const [i, [x, y]] of chart.places) {
      const far = (x - px) ** 2 + (y - py) ** 2;
      if (far < nearest) { nearest = far; best = i; }
    }
    return best;
  }
  svg.addEventListener("pointermove", (event) => hooks.hover(found(event), event.clientX, event.clientY));
  svg.addEventListener("pointerleave", () => hooks.hover(-1));
  svg.addEventListener("click", (event) => { const i = found(event); if (i >= 0) hooks.pin(i); });
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (event.key in steps && chart.order.length) {
      chart.at = (chart.at + steps[event.key] + chart.order.length + (chart.at < 0 && steps[event.key] < 0 ? 1 : 0)) % chart.order.length;
    } else if (event.key === "Home") chart.at = 0;
    else if (event.key === "End") chart.at = chart.order.length - 1;
    else if (event.key === "Enter" && chart.at >= 0) { hooks.pin(chart.order[chart.at]); event.preventDefault(); return; }
    else if (event.key === "Escape") { chart.at = -1; hooks.hover(-1); return; }
    else return;
    event.preventDefault();
    const i = chart.order[chart.at];
    const box = svg.getBoundingClientRect(), spot = chart.places.get(i), scale = box.width / svg.viewBox.baseVal.width;
    hooks.hover(i, box.left + spot[0] * scale, box.top + spot[1] * scale, true);
  });
  svg.addEventListener("blur", () => { chart.at = -1; hooks.hover(-1); });
  return chart;
}

function rulers(state, drawable, front, x, isLog, width) {
  const costs = drawable.map((i) => figure(x, i) / (FIGURES[x].scale || 1));
  const qualities = drawable.flatMap((i) => {
    const value = figure(state.quality, i), bounds = state.whiskers === "all" || (state.whiskers === "front" && front.includes(i)) ? interval(state.quality, i) : null;
    return bounds ? [value, ...bounds] : [value];
  });
  let [low, high] = [least(costs), most(costs)];
  if (isLog) {
    const pad = Math.max(0.06 * Math.log(high / low), 0.1);
    [low, high] = [low * Math.exp(-pad), high * Math.exp(pad)];
  } else [low, high] = [Math.max(0, low - 0.08 * (high - low || low)), high + 0.06 * (high - low || low)];
  let [bottom, top] = [least(qualities), most(qualities)];
  const room = Math.max(0.09 * (top - bottom), 0.002);
  [bottom, top] = [Math.max(0, bottom - room), Math.min(1.004, top + room)];
  const inner = width - MARGIN.left - MARGIN.right, tall = HEIGHT - MARGIN.top - MARGIN.bottom;
  const fraction = isLog ? (v) => Math.log(v / low) / Math.log(high / low) : (v) => (v - low) / (high - low);
  const place = (v) => MARGIN.left + inner * fraction(v);
  const up = (v) => MARGIN.top + tall * (1 - (v - bottom) / (top - bottom));
  const across = (value) => place(value / (FIGURES[x].scale || 1));
  const lines = [];
  for (const tick of isLog ? logTicks(low, high, inner) : ticks(low, high, inner / 80)) {
    const at = place(tick);
    lines.push(drawn("line", { x1: at, x2: at, y1: MARGIN.top, y2: MARGIN.top + tall, class: "grid" }));
    lines.push(drawn("text", { x: at, y: MARGIN.top + tall + 17, "text-anchor": "middle", class: "tick" }, plainTick(tick)));
  }
  const levels = ticks(bottom, Math.min(top, 1), 6);
  const digits = Math.max(2, ...levels.map((tick) => (String(tick).split(".")[1] || "").length));
  for (const tick of levels) {
    const at = up(tick);
    lines.push(drawn("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: "grid" }));
    lines.push(drawn("text", { x: MARGIN.left - 8, y: at + 4, "text-anchor": "end", class: "tick" }, tick.toFixed(digits)));
  }
  lines.push(drawn("path", { d: `M${MARGIN.left},${MARGIN.top}V${MARGIN.top + tall}H${width - MARGIN.right}`, fill: "none", class: "frame" }));
  lines.push(drawn("text", { x: MARGIN.left + inner / 2, y: HEIGHT - 6, "text-anchor": "middle", class: "axis" }, heading(x)));
  lines.push(drawn("text", { x: 0, y: 0, transform: `translate(14 ${MARGIN.top + tall / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, heading(state.quality)));
  return { across, up, lines };
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(2, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + 1e-12; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}
// 1, 2, 5 of each decade, thinned until their labels stand 42 pixels apart.
function logTicks(low, high, inner) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
    for (const m of [1, 2, 5]) { const v = Number((m * 10 ** power).toPrecision(3)); if (v >= low && v <= high) found.push(v); }
  const per = inner / Math.log(high / low);
  const spaced = found.every((v, n) => !n || per * Math.log(v / found[n - 1]) >= 42);
  if (found.length < 3) return ticks(low, high, 5);
  if (spaced) return found;
  const whole = found.filter((v) => /^1(?:0*|0*e.*)$|^0?\.?0*1$/.test(String(v)));
  return whole.length >= 2 ? whole : found.filter((_, n) => n % 2 === 0);
}
const plainTick = (value) => (value >= 10000 ? value.toLocaleString("en") : String(value));

// One path a kind, not one element a row: 100,000 marks stay quick.
function markPaths(places, indices, front, verdicts) {
  const paths = new Map();
  for (const on of [false, true]) {
    for (const i of indices) {
      if (front.has(i) !== on) continue;
      const kind = kindOf(i), key = `mark k-${kind}${isInt8(i) ? " full" : ""}${on || indices.length < 8 || verdicts.get(i) === "maybe" ? "" : " dim"}`;
      const [x, y] = places.get(i);
      if (!paths.has(key)) paths.set(key, []);
      paths.get(key).push(markPath(SHAPES[kind], x, y, on ? 5 : 4));
    }
  }
  return [...paths].map(([key, marks]) => drawn("path", { d: marks.join(""), class: key }));
}

function whiskerPaths(state, ruler, places, indices) {
  const paths = new Map();
  for (const i of indices) {
    const bounds = interval(state.quality, i);
    if (!bounds) continue;
    const [x] = places.get(i), kind = `whisker k-${kindOf(i)}`;
    const [low, high] = bounds.map((v) => Math.min(HEIGHT - MARGIN.bottom, Math.max(MARGIN.top, ruler.up(v))).toFixed(1));
    if (!paths.has(kind)) paths.set(kind, []);
    paths.get(kind).push(`M${x.toFixed(1)},${low}V${high}M${(x - 3).toFixed(1)},${low}h6M${(x - 3).toFixed(1)},${high}h6`);
  }
  return [...paths].map(([kind, marks]) => drawn("path", { d: marks.join(""), class: kind }));
}

function stair(places, front, width) {
  return front.length ? drawn("path", { d: line(corners(front.map((i) => places.get(i)), width)), class: "front" }) : drawn("g");
}

// Between the front as it was measured and where it would fall to at the lower ends of all intervals.
function doubt(ruler, places, front, floor, width) {
  const bottom = HEIGHT - MARGIN.bottom;
  const upper = corners(front.map((i) => places.get(i)), width);
  const lower = corners(floor.map(([cost, low]) => [ruler.across(cost), Math.min(bottom, ruler.up(low))]), width);
  return [drawn("path", { d: line([...upper, ...[...lower].reverse()]) + "Z", class: "doubt" }), drawn("path", { d: line(lower), class: "floor" })];
}
// The corners of a stair through these spots, out to the right edge.
function corners(spots, width) {
  return spots.flatMap(([x, y], n) => [[x, y], [n + 1 < spots.length ? spots[n + 1][0] : width - MARGIN.right, y]]);
}
const line = (spots) => spots.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

function linkPaths(places, indices, kind = "link") {
  const lines = [];
  for (const i of indices) {
    const spot = places.get(i);
    for (const [what, j] of relatives(i)) {
      if (kind === "link" && what === "teacher") continue;
      const other = places.get(j);
      if (other) lines.push(`M${spot[0].toFixed(1)},${spot[1].toFixed(1)}L${other[0].toFixed(1)},${other[1].toFixed(1)}`);
    }
  }
  return drawn("path", { d: lines.join(""), class: kind });
}

// Names of front rows where there is room: beside the mark, never over a mark, the stair, a leader or another name.
function nameMarks(places, front, width) {
  const marks = [...places.values()].map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  const stairs = stairBoxes(front.map((i) => places.get(i)), width);
  const taken = [...marks, ...stairs], leaders = [], labels = [];
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  for (const i of front.slice(0, 40)) {
    const full = title(i, true), name = full.length > 34 ? `${full.slice(0, 19)}…${full.slice(-13)}` : full;
    const [x, y] = places.get(i), w = name.length * 6.2, h = 14;
    const spots = [];
    for (const far of [9, 16, 26, 38, 52, 70, 90])
      for (const [dx, dy] of [[-1, -1], [1, 1], [0, -1], [1, 0], [-1, 0], [0, 1], [1, -1], [-1, 1]])
        spots.push([x + dx * far - (w * (1 - dx)) / 2, y + dy * far - (h * (1 - dy)) / 2, far]);
    const fit = spots.find(([left, up, far]) => {
      const box = [left, up, left + w, up + h];
      if (left < MARGIN.left + 2 || box[2] > width - 4 || up < MARGIN.top || box[3] > HEIGHT - MARGIN.bottom - 2) return false;
      if (taken.some((other) => meets(box, other)) || leaders.some((leader) => crosses(leader, box))) return false;
      if (far <= 12) return true;
      const leader = [x, y, ...nearestPoint(box, x, y)];
      return !labels.some((label) => label.box && crosses(leader, label.box)) && marks.filter((mark) => crosses(leader, mark)).length <= 1 + overlapping(marks, x, y);
    });
    if (!fit) continue;
    const [left, up, far] = fit, box = [left, up, left + w, up + h];
    taken.push(box);
    const label = { box, name: drawn("text", { x: left, y: up + 11, class: "name" }, name) };
    if (far > 12) {
      const leader = [x, y, ...nearestPoint(box, x, y)];
      leaders.push(leader);
      label.leader = drawn("line", { x1: leader[0], y1: leader[1], x2: leader[2], y2: leader[3], class: "leader" });
    }
    labels.push(label);
  }
  return labels.flatMap(({ leader, name }) => (leader ? [leader, name] : [name]));
}

const nearestPoint = ([left, up, right, down], x, y) => [Math.min(Math.max(x, left), right), Math.min(Math.max(y, up), down)];
const overlapping = (marks, x, y) => marks.filter((mark) => x > mark[0] - 5 && x < mark[2] + 5 && y > mark[1] - 5 && y < mark[3] + 5).length;
function stairBoxes(spots, width) {
  return spots.flatMap(([x, y], n) => {
    const [nextX, nextY] = spots[n + 1] || [width - MARGIN.right, y];
    return [[x, y - 2, nextX, y + 2], [nextX - 2, nextY, nextX + 2, y]];
  });
}
// Whether a straight line passes through a box: walk along it in small steps.
function crosses([x1, y1, x2, y2], [left, up, right, down]) {
  const steps = Math.max(2, Math.hypot(x2 - x1, y2 - y1) / 3);
  for (let n = 0; n <= steps; n++) {
    const x = x1 + ((x2 - x1) * n) / steps, y = y1 + ((y2 - y1) * n) / steps;
    if (x > left && x < right && y > up && y < down) return true;
  }
  return false;
}
