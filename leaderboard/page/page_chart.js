// One scatter chart: quality upwards, a cost or the time to the right, the front as a stair, everything reachable by
// mouse, touch and keys.
"use strict";

const COSTS = DATA.costs;
const AXES = [...COSTS, "created_at"];
const MARGIN = { left: 64, right: 14, top: 16, bottom: 44 };
const HEIGHTS = { compact: 270, medium: 400, large: 640 };
const REACH = 22; // a mark is found within this many pixels of the pointer

function makeChart(holder, slot, hooks) {
  const chooser = node("select", { id: `x-${slot}` });
  const log = node("input", { type: "checkbox", id: `log-${slot}` }), logLabel = node("label", { class: "check" }, log, "logarithmic");
  for (const name of AXES.filter(has)) chooser.append(node("option", { value: name }, heading(name)));
  const svg = drawn("svg", { tabindex: "0", role: "application", "aria-describedby": `outside-${slot}` });
  const still = drawn("g"), tools = drawn("g"), live = drawn("g");
  const clip = drawn("rect"), outsideWords = node("p", { class: "hint outside", id: `outside-${slot}` });
  const chart = { slot, svg, places: new Map(), order: [], at: -1, against: COSTS[0] };
  const budget = makeBudget(chart, slot, hooks), moves = addGestures(chart);
  const button = (words, label, act) => { const one = node("button", { type: "button", class: "small", "aria-label": label, title: label }, words); one.addEventListener("click", act); return one; };
  const reset = button("Reset", "Reset the range of this chart", () => chart.see(null));
  const buttons = node("span", { class: "zoom no-print" }, button("−", "Zoom out of this chart", () => moves.zoomBy(-1)), button("+", "Zoom into this chart", () => moves.zoomBy(1)), reset, makeSaver(svg, () => `${hooks.quality()}-${chart.against}`));
  tools.append(...budget.parts);
  svg.append(drawn("defs", {}, drawn("clipPath", { id: `clip-${slot}` }, clip)), still, tools, live);
  holder.append(node("figcaption", {}, node("label", {}, "Against", chooser), logLabel, budget.label, buttons), svg, outsideWords);
  chooser.addEventListener("change", () => hooks.change(slot, { x: chooser.value, view: null }));
  log.addEventListener("change", () => hooks.change(slot, { log: log.checked, view: null }));

  chart.draw = (state, indices, { front, verdicts }) => {
    chart.last = [state, indices, { front, verdicts }];
    const { x, log: wantsLog, view } = state.axes[slot], isLog = wantsLog && !FIGURES[x].isTime;
    Object.assign(chart, { against: x, verdicts, front: new Set(front), isLog, range: null, places: new Map(), order: [] });
    chooser.value = x;
    log.checked = isLog;
    logLabel.toggleAttribute("hidden", Boolean(FIGURES[x].isTime));
    still.replaceChildren();
    outsideWords.textContent = "";
    reset.disabled = !view;
    const width = Math.max(280, Math.round(holder.clientWidth - 26)), height = HEIGHTS[state.size];
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    chart.box = box;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    for (const [name, value] of Object.entries({ x: box.left - 1, y: box.top - 6, width: box.right - box.left + 7, height: box.bottom - box.top + 6 })) clip.setAttribute(name, value);
    const drawable = indices.filter((i) => figure(x, i) > 0 && figure(state.quality, i) !== null);
    svg.setAttribute("aria-label", `${heading(state.quality)} against ${heading(x)}: ${drawable.length} rows, ${front.length} on the chart front. Arrow keys walk, Enter pins, plus and minus zoom, Shift and arrows move, 0 resets.`);
    if (!drawable.length) {
      still.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "none" }, indices.length ? `no ${heading(x)} measured` : "no row is left"));
      budget.draw(state, box);
      chart.light(state, -1);
      return;
    }
    chart.whole = wholeRange(state, drawable, x, isLog);
    chart.range = view ? zoomed(view, chart.whole, isLog, 1, [0.5, 0.5]) : usualRange(state, drawable, front, x, isLog);
    chart.ruler = rulers(state.quality, x, isLog, chart.range, box);
    drawMarks(state, drawable, front);
    chart.light(state, -1);
  };

  function drawMarks(state, drawable, front) {
    const { ruler, box, against: x } = chart, spots = new Map(), outside = new Map(), inside = [];
    for (const i of drawable) {
      const spot = [ruler.across(figure(x, i)), ruler.up(figure(state.quality, i))];
      spots.set(i, spot);
      const at = [Math.min(box.right, Math.max(box.left, spot[0])), Math.min(box.bottom, Math.max(box.top, spot[1]))];
      if (Math.hypot(at[0] - spot[0], at[1] - spot[1]) < 0.5) { chart.places.set(i, spot); inside.push(i); continue; }
      const edge = [Math.min(box.right - 7, Math.max(box.left + 7, spot[0])), Math.min(box.bottom - 7, Math.max(box.top + 7, spot[1]))];
      chart.places.set(i, edge);
      outside.set(i, [...edge, Math.atan2(spot[1] - at[1], spot[0] - at[0])]);
    }
    chart.order = [...drawable].sort((a, b) => figure(x, a) - figure(x, b));
    const stairs = front.map((i) => spots.get(i)), clipped = drawn("g", { "clip-path": `url(#clip-${slot})` });
    const taken = budget.draw(state, box);
    if (!FIGURES[x].isTime && state.whiskers !== "none" && front.some((i) => interval(state.quality, i))) clipped.append(...doubt(ruler, stairs, floorOf(drawable, x, state.quality), box));
    if (state.links) clipped.append(linkPaths(spots, front));
    const whiskered = (state.whiskers === "all" ? drawable : state.whiskers === "front" ? front : []).filter((i) => !outside.has(i));
    clipped.append(...whiskerPaths(state, ruler, spots, whiskered, box));
    clipped.append(stair(stairs, box.right));
    still.append(...ruler.lines, clipped, ...markPaths(spots, inside, chart.front, chart.verdicts, state.marks), ...edgePaths(outside, state.marks));
    const whiskers = whiskered.flatMap((i) => { const bounds = interval(state.quality, i), [at] = spots.get(i); return bounds ? [[at - 2, ruler.up(bounds[1]), at + 2, ruler.up(bounds[0])]] : []; });
    if (state.names) still.append(...nameMarks(chart.places, front.filter((i) => !outside.has(i)), [...stairBoxes(stairs, box.right), ...taken], whiskers, box));
    outsideWords.textContent = wordsOf(outside);
  }

  // How many rows lie outside the range, and where.
  function wordsOf(outside) {
    const counts = {};
    for (const [, , angle] of outside.values()) {
      const way = Math.abs(Math.cos(angle)) > Math.abs(Math.sin(angle)) ? (Math.cos(angle) > 0 ? "to the right" : "to the left") : Math.sin(angle) > 0 ? "below" : "above";
      counts[way] = (counts[way] || 0) + 1;
    }
    const parts = Object.entries(counts).map(([way, count]) => `${count.toLocaleString("en")} ${way}`);
    return parts.length ? `Outside this range, as arrowheads at its edge: ${parts.join(", ")}.` : "";
  }

  chart.see = (range) => { hooks.see(slot, range); };
  chart.redraw = () => { if (chart.last) chart.draw(...chart.last); };
  chart.fractionAt = (clientX, clientY) => {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width, { box } = chart;
    return [((clientX - frame.left) * scale - box.left) / (box.right - box.left), (box.bottom - (clientY - frame.top) * scale) / (box.bottom - box.top)];
  };
  // The cost, as shown, under a pointer; null beyond the right edge.
  chart.costAt = (clientX) => {
    const [at] = chart.fractionAt(clientX, 0), [low, high] = chart.range.x;
    if (at > 1) return null;
    const part = Math.max(0.001, at);
    return chart.isLog ? low * (high / low) ** part : low + (high - low) * part;
  };
  // Where a row stands in this chart, in words.
  chart.verdict = (i) => {
    const verdict = chart.verdicts?.get(i);
    return verdict ? `${FIGURES[chart.against].label}: ${frontWords(chart.front.has(i), verdict)}` : "";
  };

  // What moves with the pointer: the ring, the row's relatives, the pins, the best that keeps the budget.
  chart.light = (state, lit) => {
    live.replaceChildren();
    if (lit >= 0 && chart.places.has(lit)) {
      live.append(linkPaths(chart.places, [lit], "link strong"));
      for (const [, other] of relatives(lit)) ring(chart.places.get(other), 7, "ring");
      ring(chart.places.get(lit), 9, "ring");
    }
    if (Object.keys(state.limits).length && state.best.row >= 0) ring(chart.places.get(state.best.row), 11, "ring best");
    state.pins.forEach((pin, n) => {
      const spot = chart.places.get(pin);
      if (!spot) return;
      ring(spot, 9, `ring ${PIN_LETTERS[n].toLowerCase()}`);
      live.append(drawn("text", { x: spot[0], y: spot[1] - 12, "text-anchor": "middle", class: `pin-letter ${PIN_LETTERS[n].toLowerCase()}` }, PIN_LETTERS[n]));
    });
  };
  function ring(spot, radius, kind) {
    if (spot) live.append(drawn("circle", { cx: spot[0], cy: spot[1], r: radius, class: kind }));
  }

  addWalk(chart, hooks, moves);
  return chart;
}

// Pointing, clicking and walking with the keys, for any drawing with `svg`, `places` by row and their `order`.
function addWalk(chart, hooks, moves = null) {
  const { svg } = chart;
  function found(event) {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
    const px = (event.clientX - frame.left) * scale, py = (event.clientY - frame.top) * scale;
    let best = -1, nearest = REACH * REACH;
    for (const [i, [x, y]] of chart.places) {
      const far = (x - px) ** 2 + (y - py) ** 2;
      if (far < nearest) { nearest = far; best = i; }
    }
    return best;
  }
  svg.addEventListener("pointermove", (event) => hooks.hover(moves?.isDragging ? -1 : found(event), event.clientX, event.clientY));
  svg.addEventListener("pointerleave", () => hooks.hover(-1));
  svg.addEventListener("click", (event) => { if (moves?.endsDrag()) return; const i = found(event); if (i >= 0) hooks.pin(i); });
  svg.addEventListener("keydown", (event) => {
    const spot = chart.at >= 0 && chart.places.get(chart.order[chart.at]);
    const middle = spot && chart.box ? [(spot[0] - chart.box.left) / (chart.box.right - chart.box.left), (chart.box.bottom - spot[1]) / (chart.box.bottom - chart.box.top)] : undefined;
    if (moves?.key(event, middle)) return;
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (event.key in steps && chart.order.length) {
      chart.at = (chart.at + steps[event.key] + chart.order.length + (chart.at < 0 && steps[event.key] < 0 ? 1 : 0)) % chart.order.length;
    } else if (event.key === "Home") chart.at = 0;
    else if (event.key === "End") chart.at = chart.order.length - 1;
    else if (event.key === "Enter" && chart.at >= 0) { hooks.pin(chart.order[chart.at]); event.preventDefault(); return; }
    else if (event.key === "Escape") { chart.at = -1; hooks.hover(-1); return; }
    else return;
    event.preventDefault();
    const i = chart.order[chart.at], place = chart.places.get(i);
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    hooks.hover(i, frame.left + place[0] * scale, frame.top + place[1] * scale, true);
  });
  svg.addEventListener("blur", () => { chart.at = -1; hooks.hover(-1); });
}
