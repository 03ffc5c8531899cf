// What part of the plane a chart shows: where the front lives, or what the reader zoomed to; its axes and ticks.
"use strict";

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
function median(values) {
  const order = [...values].sort((a, b) => a - b), half = order.length >> 1;
  return order.length % 2 ? order[half] : (order[half - 1] + order[half]) / 2;
}
// The lowest value worth showing: so many times as far below the median as the highest lies above it. A quantile and not
// the minimum decides, so that one network that failed does not squeeze all others into a line.
const fence = (values, reach) => { const middle = median(values); return Math.max(least(values), middle - reach * (most(values) - middle)); };
const REACH_OF_ALL = 2, REACH_OF_FRONT = 3, REACH_OF_COST = 4;
const LEAST_SPAN = 0.03; // of a quality: where half of all rows have the highest, those just below are shown as well

// The usual range, in the units shown: { x: [low, high], y: [low, high] }.
function usualRange(state, drawable, front, x, isLog) {
  const cost = (i) => figure(x, i) / (FIGURES[x].scale || 1), at = isLog ? (i) => Math.log(cost(i)) : cost;
  const quality = (i) => figure(state.quality, i);
  const everyCost = drawable.map(at), frontCost = front.map(at), none = (values) => values.map((value) => -value);
  let low = least([fence(everyCost, REACH_OF_COST), ...(front.length ? [fence(frontCost, REACH_OF_COST)] : [])]);
  let high = -least([fence(none(everyCost), REACH_OF_COST), ...(front.length ? [fence(none(frontCost), REACH_OF_COST)] : [])]);
  const qualities = drawable.map(quality), top = most(qualities);
  let bottom = least([fence(qualities, REACH_OF_ALL), ...(front.length ? [fence(front.map(quality), REACH_OF_FRONT)] : [])]);
  bottom = Math.max(least(qualities), Math.min(bottom, top - LEAST_SPAN));
  const whiskered = (state.whiskers === "all" ? drawable : state.whiskers === "front" ? front : []).filter((i) => quality(i) >= bottom);
  const ends = [bottom, top, ...whiskered.flatMap((i) => interval(state.quality, i) || [])];
  return padded([low, high], [least(ends), most(ends)], isLog);
}

// All that there is to see: what zooming out ends at.
function wholeRange(state, drawable, x, isLog) {
  const costs = drawable.map((i) => figure(x, i) / (FIGURES[x].scale || 1)), qualities = drawable.flatMap((i) => [figure(state.quality, i), ...(interval(state.quality, i) || [])]);
  return padded(isLog ? [Math.log(least(costs)), Math.log(most(costs))] : [least(costs), most(costs)], [least(qualities), most(qualities)], isLog);
}

function padded([low, high], [bottom, top], isLog) {
  const pad = isLog ? Math.max(0.06 * (high - low), 0.1) : 0.07 * (high - low || Math.abs(low) || 1);
  const x = isLog ? [Math.exp(low - pad), Math.exp(high + pad)] : [low > 0 ? Math.max(0, low - pad) : low - pad, high + pad];
  const room = Math.max(0.09 * (top - bottom), 0.002);
  return { x, y: [Math.max(0, bottom - room), Math.min(1.004, top + room)] };
}

// A range seen from nearer (factor below 1) or farther, about a point given as fractions of the panel; never beyond `whole`.
function zoomed(range, whole, isLog, factor, [across, up]) {
  return { x: zoomedAxis(range.x, whole.x, isLog, factor, across), y: zoomedAxis(range.y, whole.y, false, factor, up) };
}
function zoomedAxis([low, high], [least, most], isLog, factor, at) {
  const to = isLog ? Math.log : (v) => v, from = isLog ? Math.exp : (v) => v;
  const [a, b] = [to(low), to(high)], middle = a + (b - a) * at, span = Math.max((to(most) - to(least)) * 1e-4, Math.min(to(most) - to(least), (b - a) * factor));
  return within([middle - span * at, middle + span * (1 - at)], [to(least), to(most)]).map(from);
}
// A range moved by fractions of the panel.
function panned(range, whole, isLog, across, up) {
  const to = isLog ? Math.log : (v) => v, from = isLog ? Math.exp : (v) => v;
  const moved = ([low, high], way) => [low + (high - low) * way, high + (high - low) * way];
  return { x: within(moved(range.x.map(to), across), whole.x.map(to)).map(from), y: within(moved(range.y, up), whole.y) };
}
function within([low, high], [least, most]) {
  const back = low < least ? least - low : high > most ? Math.max(most - high, least - low) : 0;
  return [low + back, high + back];
}

// Functions that place figures, and the lines and numbers of the axes.
function rulers(quality, x, isLog, { x: [low, high], y: [bottom, top] }, box) {
  const inner = box.right - box.left, tall = box.bottom - box.top, isTime = FIGURES[x].isTime;
  const fraction = isLog ? (v) => Math.log(v / low) / Math.log(high / low) : (v) => (v - low) / (high - low);
  const place = (v) => box.left + inner * fraction(v);
  const up = (v) => box.top + tall * (1 - (v - bottom) / (top - bottom));
  const across = (value) => place(value / (FIGURES[x].scale || 1));
  const lines = [];
  for (const tick of isTime ? timeTicks(low, high, inner) : isLog ? logTicks(low, high, inner) : ticks(low, high, inner / 80)) {
    const at = place(tick);
    lines.push(drawn("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, class: "grid" }));
    lines.push(drawn("text", { x: at, y: box.bottom + 17, "text-anchor": "middle", class: "tick" }, isTime ? dayOf(tick) : plainTick(tick)));
  }
  const levels = ticks(bottom, Math.min(top, 1), Math.max(2, tall / 55));
  const digits = Math.max(2, ...levels.map((tick) => (String(tick).split(".")[1] || "").length));
  for (const tick of levels) {
    const at = up(tick);
    lines.push(drawn("line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "grid" }));
    lines.push(drawn("text", { x: box.left - 8, y: at + 4, "text-anchor": "end", class: "tick" }, tick.toFixed(digits)));
  }
  lines.push(drawn("path", { d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, fill: "none", class: "frame" }));
  lines.push(drawn("text", { x: box.left + inner / 2, y: box.bottom + 38, "text-anchor": "middle", class: "axis" }, heading(x)));
  lines.push(drawn("text", { x: 0, y: 0, transform: `translate(14 ${box.top + tall / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, heading(quality)));
  return { across, up, lines };
}

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
  if (found.length < 3) return ticks(low, high, Math.max(2, inner / 110));
  if (spaced) return found;
  const whole = found.filter((v) => /^1(?:0*|0*e.*)$|^0?\.?0*1$/.test(String(v)));
  return whole.length >= 2 ? whole : found.filter((_, n) => n % 2 === 0);
}
const plainTick = (value) => (value >= 10000 ? value.toLocaleString("en") : String(value));
// Days, weeks or months, 90 pixels apart; a time is in days since 1970.
function timeTicks(low, high, inner) {
  const rough = (high - low) / Math.max(1, inner / 90), step = [1, 2, 7, 14, 30, 91, 182, 365].find((days) => days >= rough) || 730;
  const found = [];
  for (let day = Math.ceil(low / step) * step; day <= high; day += step) found.push(day);
  return found.length ? found : [Math.floor((low + high) / 2)];
}
const dayOf = (days) => new Date(days * 864e5).toISOString().slice(0, 10);
