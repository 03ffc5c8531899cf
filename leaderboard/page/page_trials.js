// The trials of a search in their order, against each cost, and which parameters decided their scores.
"use strict";

const ORDERS = 5; // steps of colour, from the first trials to the last
const isTrials = (one) => Array.isArray(one?.scores) && Array.isArray(one.costs) && one.costs.every(({ values }) => Array.isArray(values) && values.length === one.scores.length);
// The searches that rows come from, each once, with their rows.
function searchesOf(indices) {
  const found = new Map();
  for (const i of indices) {
    const { curves, search } = detailsOf(i);
    if (!isTrials(curves?.trials) || !curves.trials.scores.length) continue;
    if (!found.has(search.file)) found.set(search.file, { trials: curves.trials, importances: search.importances, rows: [] });
    found.get(search.file).rows.push(i);
  }
  return [...found.values()];
}

function drawTrials(chart, still, state, indices, width, height) {
  const searches = searchesOf(indices), name = "Trials of the search";
  chart.height = height;
  if (!searches.length) { nothing(still, width, height, "no search is on file"); return { name, words: "No row of this selection comes from a search whose trials are here: pages built in the workspace of the run draw them." }; }
  const { trials, importances, rows } = searches[0], { scores, better, costs, kept, of } = trials;
  const across = Math.min(costs.length, Math.max(1, Math.floor(width / 330))), wide = width / across;
  const captions = costs.map(({ name: cost }) => inLines(cost, Math.floor((wide - 16) / LETTER))), below = 15 * Math.max(...captions.map((one) => one.length)), tall = Math.max(230, height * 0.7) + below;
  chart.height = Math.ceil(costs.length / across) * tall;
  const good = scores.filter((value) => value !== null).map((value) => better * value), low = fence(good, REACH_OF_ALL), high = most(good), pad = Math.max((high - low) * 0.07, 1e-4);
  const [y0, y1] = better > 0 ? [low - pad, high + pad] : [-high - pad, -low + pad];
  let outside = 0;
  costs.forEach(({ name: cost, values }, n) => {
    const left = (n % across) * wide, top = Math.floor(n / across) * tall, box = { left: 58, right: wide - 14, top: 14, bottom: tall - 32 - below };
    const known = values.filter((value) => value !== null), [c0, c1] = [least(known), most(known)], room = (c1 - c0) * 0.05 || Math.abs(c0) * 0.05 || 1, [x0, x1] = [Math.max(c0 - room, c0 >= 0 ? 0 : -Infinity), c1 + room];
    const at = (x) => box.left + ((box.right - box.left) * (x - x0)) / (x1 - x0), up = (y) => box.bottom - ((box.bottom - box.top) * (y - y0)) / (y1 - y0);
    const group = drawn("g", { transform: `translate(${left} ${top})` });
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const y = y0 + (y1 - y0) * part, x = x0 + (x1 - x0) * part;
      group.append(drawn("line", { x1: box.left, x2: box.right, y1: up(y), y2: up(y), class: "grid" }), drawn("text", { x: box.left - 6, y: up(y) + 4, "text-anchor": "end", class: "tick" }, tickOf(y, y1 - y0)));
      if (part % 0.5 === 0) group.append(drawn("text", { x: at(x), y: box.bottom + 16, "text-anchor": part ? (part === 1 ? "end" : "middle") : "start", class: "tick" }, threeDigits(x)));
    }
    const marks = Array.from({ length: ORDERS }, () => ["", ""]);
    scores.forEach((score, k) => {
      if (score === null || values[k] === null) return;
      if (score < y0 || score > y1) { if (!n) outside++; return; }
      const [x, y] = [at(values[k]).toFixed(1), up(score).toFixed(1)], order = Math.min(ORDERS - 1, Math.floor((ORDERS * k) / scores.length));
      marks[order][kept[k] ? 0 : 1] += kept[k] ? `M${x - 3},${y}a3,3 0 1 0 6,0a3,3 0 1 0 -6,0z` : `M${x - 2.5},${y - 2.5}l5,5m0,-5l-5,5`;
    });
    marks.forEach(([dots, crosses], order) => { if (dots) group.append(drawn("path", { d: dots, class: `trial o-${order}` })); if (crosses) group.append(drawn("path", { d: crosses, class: `trial over o-${order}` })); });
    const middle = wide / 2;
    group.append(drawn("text", { x: middle, y: tall - below, "text-anchor": "middle", class: "axis" }, drawn("title", {}, cost), captions[n].map((words, k) => drawn("tspan", { x: middle, dy: k ? 15 : 0 }, words))), drawn("text", { x: 0, y: 0, transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, trials.scored));
    still.append(group);
  });
  const said = [`${of.toLocaleString("en")} trials${scores.length < of ? `, ${scores.length} of them drawn` : ""}, of which ${rows.length} row${rows.length > 1 ? "s" : ""} of this selection came`];
  if (kept.includes(0)) said.push("crosses are over a bound");
  if (outside) said.push(`${outside} far worse ones lie outside`);
  if (searches.length > 1) said.push(`${searches.length - 1} more search${searches.length > 2 ? "es" : ""}: filter by recipe to see another`);
  return { name, words: `${said.join("; ")}. Scores as observed on validation images.`, more: [orderLegend(of), ...importanceBars(importances, trials.scored)] };
}

// Words in at most two lines of so many characters; what is longer ends in an ellipsis.
const LETTER = 7.4; // pixels of one, of an axis
function inLines(words, size) {
  const short = (text) => (text.length > size ? `${text.slice(0, size - 1)}…` : text);
  if (words.length <= size) return [words];
  const at = words.lastIndexOf(" ", size);
  return at > 0 ? [words.slice(0, at), short(words.slice(at + 1))] : [short(words)];
}

function orderLegend(of) {
  const ends = Array.from({ length: ORDERS }, (_, order) => [Math.floor((of * order) / ORDERS) + 1, Math.floor((of * (order + 1)) / ORDERS)]);
  return node("ul", { class: "legend", "aria-label": "Order of the trials" }, ends.filter(([a, b]) => a <= b).map(([a, b], order) => node("li", {}, drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("circle", { cx: 8, cy: 8, r: 4, class: `trial o-${order}` })), a === b ? `${a}` : `${a} to ${b}`)));
}

// The importance of each parameter of a space, as bars; where none is on file, that it is not.
function importanceBars(importances, scored) {
  const found = Object.entries(importances ?? {}).filter(([, value]) => typeof value === "number" && value >= 0);
  if (!found.length) return [node("p", { class: "hint" }, "No parameter importances: too few trials, nothing explains the scores, or an older search.")];
  return [node("h3", {}, "What decided the search"), bars(found, (value) => value.toFixed(2), "Parameter importances", 12), node("p", { class: "hint" }, `Importance of each parameter for the ${scored} of the search's trials: by how much R² of a forest on held-out trials falls when its values are shuffled.`)];
}
