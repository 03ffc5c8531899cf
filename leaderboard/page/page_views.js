// Further charts: all figures of a row at once (parallel coordinates), every data set beside the others, and how well the
// latency model predicted. The trials of a search are drawn in page_trials.js.
"use strict";

const VIEWS = { "": null, parallel: drawParallel, datasets: drawDatasets, predicted: drawPredicted, trials: drawTrials };

function makeView(holder, hooks) {
  const svg = drawn("svg", { tabindex: "0", role: "application", "aria-label": "Further chart" }), words = node("p", { class: "hint" }), more = node("div");
  const still = drawn("g"), live = drawn("g"), caption = node("figcaption");
  svg.append(still, live);
  const chart = { svg, places: new Map(), order: [], at: -1 };
  holder.append(caption, svg, words, more);
  const saver = makeSaver(svg, () => `${hooks.quality()}-${holder.dataset.view}`);
  chart.draw = (state, indices) => {
    Object.assign(chart, { places: new Map(), order: [], threads: new Map() });
    holder.hidden = !VIEWS[state.view];
    if (holder.hidden) return;
    holder.dataset.view = state.view;
    still.replaceChildren();
    live.replaceChildren();
    const width = Math.max(280, Math.round(holder.clientWidth - 26)), height = HEIGHTS[state.size];
    const said = VIEWS[state.view](chart, still, state, indices, width, height);
    svg.setAttribute("viewBox", `0 0 ${width} ${chart.height ?? height}`);
    svg.setAttribute("height", chart.height ?? height);
    svg.setAttribute("aria-label", `${said.name}. ${said.words}`);
    caption.replaceChildren(node("strong", {}, said.name), node("span", { class: "zoom no-print" }, saver));
    words.textContent = said.words;
    more.replaceChildren(...(said.more ?? []));
  };
  chart.light = (state, lit) => {
    live.replaceChildren();
    if (holder.hidden) return;
    if (chart.threads?.has(lit)) live.append(drawn("path", { d: chart.threads.get(lit), class: "thread lit" }));
    if (chart.places.has(lit)) live.append(drawn("circle", { cx: chart.places.get(lit)[0], cy: chart.places.get(lit)[1], r: 9, class: "ring" }));
  };
  addWalk(chart, hooks);
  return chart;
}
const nothing = (still, width, height, words) => still.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "none" }, words));

// One axis a figure, the better end up; a line a row. Costs of more than a decade are logarithmic.
function drawParallel(chart, still, state, indices, width, height) {
  const isNarrow = width < 560;
  const names = [...DATA.qualities.slice(0, 2), ...COSTS].filter((name) => indices.some((i) => figure(name, i) !== null)).slice(0, isNarrow ? 4 : 9);
  const box = { left: 46, right: width - 46, top: 44, bottom: height - 26 }, rows = indices.filter((i) => names.every((name) => figure(name, i) !== null));
  chart.height = height;
  const name = "All figures of each row";
  if (!rows.length || names.length < 2) { nothing(still, width, height, "no row has all of these figures"); return { name, words: "No row has all of these figures." }; }
  const axes = names.map((one, n) => {
    const values = rows.map((i) => figure(one, i)), isCost = FIGURES[one].better < 0, [low, high] = [isCost ? least(values) : Math.min(fence(values, REACH_OF_FRONT), most(values) - LEAST_SPAN), most(values)], isLog = isCost && low > 0 && high / low > 10;
    const to = isLog ? Math.log : (v) => v, span = to(high) - to(low) || 1;
    return { one, x: box.left + ((box.right - box.left) * n) / (names.length - 1), at: (v) => { const part = Math.max(0, (to(v) - to(low)) / span); return isCost ? box.top + (box.bottom - box.top) * part : box.bottom - (box.bottom - box.top) * part; }, ends: isCost ? [low, high] : [high, low] };
  });
  const front = new Set(state.axes.flatMap(({ x }) => (COSTS.includes(x) ? frontOf(rows, x, state.quality, false).front : [])));
  const threads = new Map();
  for (const i of rows) {
    const path = line(axes.map(({ one, x, at }) => [x, at(figure(one, i))])), key = `thread ${lookOf(i, state.marks).look}${front.has(i) ? " on" : ""}`;
    chart.threads.set(i, path);
    if (!threads.has(key)) threads.set(key, []);
    threads.get(key).push(path);
    chart.places.set(i, [axes[0].x, axes[0].at(figure(names[0], i))]);
  }
  still.append(...[...threads].map(([key, paths]) => drawn("path", { d: paths.join(""), class: key })));
  axes.forEach(({ one, x, ends }, n) => {
    const anchor = n === 0 ? "start" : n === names.length - 1 ? "end" : "middle", at = n === 0 ? 4 : n === names.length - 1 ? width - 4 : x;
    still.append(drawn("line", { x1: x, x2: x, y1: box.top, y2: box.bottom, class: "axis-line" }));
    still.append(drawn("text", { x: at, y: n % 2 && names.length > 5 ? 12 : 26, "text-anchor": anchor, class: "axis" }, heading(one)));
    still.append(drawn("text", { x: x, y: box.top - 5, "text-anchor": "middle", class: "tick" }, show(one, ends[0])), drawn("text", { x: x, y: box.bottom + 15, "text-anchor": "middle", class: "tick" }, show(one, ends[1])));
  });
  chart.order = [...rows].sort((a, b) => figure(names[0], b) - figure(names[0], a));
  return { name, words: `${rows.length} of ${indices.length} rows have all of: ${names.map((one) => COLUMNS[one].label).join(", ")}. The better end of every axis is up; lines of the chart fronts are stronger. A quality far below the others ends at the foot of its axis.` };
}

// A small chart a data set, of the same device, against the first chart's cost; the ranges are each its own.
function drawDatasets(chart, still, state, indices, width, height) {
  const { x, log } = state.axes[0], places = new Map(), isLog = log && !FIGURES[x].isTime;
  for (let i = 0; i < NUM; i++) if ((RIGS[i] === state.rig || (isImported(i) && !RIGS[i])) && figure(x, i) > 0 && figure(state.quality, i) !== null) { if (!places.has(PLACES[i])) places.set(PLACES[i], []); places.get(PLACES[i]).push(i); }
  const name = `${FIGURES[state.quality].label} against ${FIGURES[x].label} on every data set`, shown = [...places].slice(0, 12);
  if (!shown.length) { nothing(still, width, height, "no data set has these figures"); return { name, words: "No data set has these figures." }; }
  const across = Math.min(shown.length, Math.max(1, Math.floor(width / 330))), wide = width / across, tall = Math.max(210, height * 0.62);
  chart.height = Math.ceil(shown.length / across) * tall;
  const rows = [];
  shown.forEach(([place, some], n) => {
    const left = (n % across) * wide, top = Math.floor(n / across) * tall, box = { left: MARGIN.left, right: wide - 14, top: 26, bottom: tall - 44 };
    const { front, verdicts } = frontOf(some, x, state.quality, false);
    const range = usualRange({ ...state, whiskers: "none" }, some, front, x, isLog), ruler = rulers(state.quality, x, isLog, range, box), group = drawn("g", { transform: `translate(${left} ${top})` });
    const spots = new Map(some.map((i) => [i, [ruler.across(figure(x, i)), ruler.up(figure(state.quality, i))]]));
    const inside = some.filter((i) => { const [px, py] = spots.get(i); return px >= box.left - 1 && px <= box.right + 1 && py >= box.top - 1 && py <= box.bottom + 1; });
    const clip = `panel-${n}`;
    group.append(drawn("clipPath", { id: clip }, drawn("rect", { x: box.left, y: box.top - 4, width: box.right - box.left, height: box.bottom - box.top + 4 })), ...ruler.lines, drawn("g", { "clip-path": `url(#${clip})` }, stair(front.map((i) => spots.get(i)), box.right)), ...markPaths(spots, inside, new Set(front), verdicts, state.marks));
    const isCut = inside.length < some.length ? `, ${some.length - inside.length} outside` : "";
    group.append(drawn("text", { x: box.left, y: 16, class: "panel-title" }, `${place} (${some.length} rows${isCut})`));
    still.append(group);
    for (const i of inside) { const [px, py] = spots.get(i); chart.places.set(i, [px + left, py + top]); rows.push(i); }
  });
  chart.order = rows;
  return { name, words: `${places.size} data set${places.size > 1 ? "s" : ""} on ${state.rig || "no device"}${places.size > shown.length ? `, the ${shown.length} first of them` : ""}, whatever the filter; each panel shows where its own front lives.` };
}

// The latency model's predictions with their intervals against what was measured, on one scale.
function drawPredicted(chart, still, state, indices, width, height) {
  const pairs = indices.map((i) => [i, DATA.details[i]?.predicted_ms, DATA.details[i]?.anchored_ms ?? figure("latency_p50_ms", i)]).filter(([, predicted, measured]) => Array.isArray(predicted) && predicted.length === 3 && predicted.every((one) => one > 0) && measured > 0);
  const name = "Predicted against measured latency";
  chart.height = height;
  if (!pairs.length) { nothing(still, width, height, "no row has a predicted and a measured latency"); return { name, words: "No row has a predicted and a measured latency: predictions are of searched networks on devices with a latency model." }; }
  const ends = pairs.flatMap(([, predicted, measured]) => [measured, predicted[1]]), low = least(ends) / 1.15, high = most(ends) * 1.15;
  const side = Math.min(width, 720), box = { left: MARGIN.left, right: side - 14, top: 16, bottom: height - 44 }, inner = box.right - box.left, tall = box.bottom - box.top;
  const part = (v) => Math.log(v / low) / Math.log(high / low), across = (v) => box.left + inner * part(v), up = (v) => box.bottom - tall * Math.min(1, Math.max(0, part(v)));
  for (const tick of logTicks(low, high, inner)) {
    still.append(drawn("line", { x1: across(tick), x2: across(tick), y1: box.top, y2: box.bottom, class: "grid" }), drawn("text", { x: across(tick), y: box.bottom + 17, "text-anchor": "middle", class: "tick" }, plainTick(tick)));
    still.append(drawn("line", { x1: box.left, x2: box.right, y1: up(tick), y2: up(tick), class: "grid" }), drawn("text", { x: box.left - 8, y: up(tick) + 4, "text-anchor": "end", class: "tick" }, plainTick(tick)));
  }
  // Measured and predicted at the corners of the band, which ends at the frame.
  const corners = (pairs) => line(pairs.map(([a, b]) => [across(a), up(b)])), diagonal = [[low, low], [high, high]];
  const band = [diagonal[0], [low / 0.9, low], [high, high * 0.9], diagonal[1], [high / 1.1, high], [low, low * 1.1]];
  still.append(drawn("path", { d: `${corners(band)}z`, class: "band" }), drawn("path", { d: corners(diagonal), class: "diagonal" }));
  still.append(drawn("text", { x: box.left + inner / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, "measured (ms)"), drawn("text", { x: 0, y: 0, transform: `translate(14 ${box.top + tall / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis" }, "predicted (ms)"));
  const spots = new Map(pairs.map(([i, predicted, measured]) => [i, [across(measured), up(predicted[1])]]));
  for (const [i, predicted] of pairs) { const [px] = spots.get(i); still.append(drawn("path", { d: `M${px},${up(predicted[0])}V${up(predicted[2])}`, class: `whisker ${lookOf(i, state.marks).look}` })); }
  still.append(...markPaths(spots, [...spots.keys()], new Set(spots.keys()), new Map(), state.marks));
  chart.places = spots;
  chart.order = pairs.sort((a, b) => a[2] - b[2]).map(([i]) => i);
  const error = pairs.reduce((sum, [, predicted, measured]) => sum + Math.abs(predicted[1] - measured) / measured, 0) / pairs.length, inside = pairs.filter(([, predicted, measured]) => predicted[0] <= measured && measured <= predicted[2]).length;
  return { name, words: `${pairs.length} rows: mean error ${(100 * error).toFixed(1)} %; ${inside} of them measured inside the predicted interval. The diagonal is a perfect prediction, the band within 10 %.` };
}
