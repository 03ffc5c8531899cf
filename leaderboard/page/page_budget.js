// The budget: "at most 2 ms and 3 MB", typed or dragged, and the best row that keeps it.
"use strict";

const fits = (i, limits) => Object.entries(limits).every(([name, limit]) => { const value = figure(name, i); return value !== null && value <= limit; });
const limitWords = (limits) => Object.entries(limits).map(([name, limit]) => `${FIGURES[name].label} ${show(name, limit, true)}`).join(" and ");

// The best student of the group that keeps the budget, by the one rule; where none can be chosen (no student was measured
// here with its file), the row of the highest quality, which is called that and nothing else.
function bestWithin(group, limits, quality) {
  if (!Object.keys(limits).length) return { row: -1 };
  const shown = new Set(group), fitting = group.filter((i) => fits(i, limits) && figure(quality, i) !== null);
  const ballot = DATA.ballots.find(({ rows }) => rows.some((i) => shown.has(i)));
  const among = ballot ? ballot.rows.map((i, place) => place).filter((place) => shown.has(ballot.rows[place]) && fits(ballot.rows[place], limits)) : [];
  const place = ballot ? chooseBest(ballot, among) : -1;
  const own = fitting.filter((i) => !isImported(i)), highest = (own.length ? own : fitting).reduce((a, b) => (a < 0 || figure(quality, b) > figure(quality, a) ? b : a), -1);
  return { numFitting: group.filter((i) => fits(i, limits)).length, isChosen: place >= 0, row: place >= 0 ? ballot.rows[place] : highest };
}

// The sentence beside the charts: what fits, and which is best.
function drawAnswer(state, group, hooks) {
  const answer = document.getElementById("budget"), names = Object.keys(state.limits);
  if (!names.length) { answer.replaceChildren("Budget: type a limit above a chart, or drag the ▼ at its right edge, to see the best row that keeps it."); return; }
  const { numFitting, isChosen, row } = state.best;
  const parts = [node("strong", {}, `At most ${limitWords(state.limits)}`), `: ${numFitting.toLocaleString("en")} of ${group.length.toLocaleString("en")} rows fit. `];
  if (row < 0) parts.push("None of them can be called the best: raise a limit.");
  else {
    const figures = [state.quality, ...new Set([...names, ...state.axes.map(({ x }) => x)])].filter((name) => figure(name, row) !== null);
    parts.push(isChosen ? "Best student that fits: " : `No student measured here fits; highest ${FIGURES[state.quality].label} that fits: `, node("strong", {}, title(row)));
    parts.push(` (${figures.map((name) => `${FIGURES[name].label} ${show(name, figure(name, row), true, interval(name, row))}`).join(", ")}). `);
    const pin = node("button", { type: "button", class: "small no-print" }, state.pins.includes(row) ? "Unpin it" : "Pin it");
    pin.addEventListener("click", () => hooks.pin(row));
    parts.push(pin);
  }
  const clear = node("button", { type: "button", class: "small no-print" }, "No budget");
  clear.addEventListener("click", () => { for (const name of names) hooks.limit(name, null, true); });
  answer.replaceChildren(...parts, " ", clear);
}

// The line of one chart: a slider in its drawing, and a field above it that says the same.
function makeBudget(chart, slot, hooks) {
  const field = node("input", { type: "number", id: `most-${slot}`, min: "0", step: "any", class: "limit", placeholder: "no limit" }), unit = node("span");
  const label = node("label", {}, "at most", field, unit);
  const shade = drawn("rect", { class: "beyond" }), rule = drawn("line", { class: "limit-line" }), grip = drawn("path", { class: "grip" });
  const slider = drawn("g", { role: "slider", tabindex: "0", class: "limit-slider", "aria-valuemin": "0" }, rule, grip);
  const words = drawn("text", { class: "limit-name" });
  const scale = () => FIGURES[chart.against].scale || 1;
  const toLimit = (shown) => shown * scale();
  let held = false;
  field.addEventListener("change", () => { const value = field.value === "" ? null : Number(field.value); hooks.limit(chart.against, value > 0 ? toLimit(value) : null, true); });
  const atPointer = (event) => {
    const shown = chart.costAt(event.clientX);
    hooks.limit(chart.against, shown === null ? null : toLimit(Number(shown.toPrecision(3))), event.type !== "pointermove");
  };
  slider.addEventListener("pointerdown", (event) => { held = true; slider.setPointerCapture(event.pointerId); event.stopPropagation(); event.preventDefault(); slider.focus(); });
  slider.addEventListener("pointermove", (event) => { if (held) { event.stopPropagation(); atPointer(event); } });
  for (const kind of ["pointerup", "pointercancel"]) slider.addEventListener(kind, (event) => { if (held && kind === "pointerup") atPointer(event); held = false; event.stopPropagation(); });
  slider.addEventListener("click", (event) => event.stopPropagation());
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: 1 / 1.02, ArrowDown: 1 / 1.02, ArrowRight: 1.02, ArrowUp: 1.02, PageDown: 1 / 1.2, PageUp: 1.2 }[event.key];
    const isGone = event.key === "Delete" || event.key === "Backspace" || event.key === "End";
    if (!step && !isGone) return;
    event.preventDefault();
    event.stopPropagation();
    const now = hooks.limits()[chart.against] ?? toLimit(chart.range.x[1]);
    hooks.limit(chart.against, isGone ? null : Number((now * step).toPrecision(4)), true);
  });
  return {
    label, parts: [shade, slider, words],
    // Where the best row's name may stand: [left, top, right, bottom], or nothing.
    draw(state, box) {
      const isTime = FIGURES[chart.against].isTime, limit = state.limits[chart.against];
      label.toggleAttribute("hidden", Boolean(isTime));
      unit.textContent = FIGURES[chart.against].unit || "";
      field.setAttribute("aria-label", `At most, ${heading(chart.against)}`);
      if (document.activeElement !== field) field.value = limit === undefined ? "" : String(Number((limit / scale()).toPrecision(6)));
      for (const one of [shade, slider, words]) one.toggleAttribute("hidden", Boolean(isTime) || !chart.range);
      words.textContent = "";
      if (isTime || !chart.range) return [];
      const at = limit === undefined ? box.right : Math.min(box.right, Math.max(box.left, chart.ruler.across(limit)));
      for (const [name, value] of Object.entries({ x: at, y: box.top, width: Math.max(0, box.right - at), height: box.bottom - box.top })) shade.setAttribute(name, value);
      for (const [name, value] of Object.entries({ x1: at, x2: at, y1: box.top, y2: box.bottom })) rule.setAttribute(name, value);
      rule.toggleAttribute("hidden", limit === undefined);
      grip.setAttribute("d", `M${at - 8},${box.top - 11}h16l-8,12z`);
      slider.setAttribute("aria-label", `Budget: at most, ${heading(chart.against)}`);
      slider.setAttribute("aria-valuemax", String(Number(chart.whole.x[1].toPrecision(4))));
      slider.setAttribute("aria-valuenow", String(Number(((limit ?? toLimit(chart.whole.x[1])) / scale()).toPrecision(4))));
      slider.setAttribute("aria-valuetext", limit === undefined ? "no limit" : `at most ${show(chart.against, limit, true)}`);
      if (limit === undefined || state.best.row < 0) return [];
      const room = Math.floor((Math.max(at - box.left, box.right - at) - 14) / 6.4), name = `best: ${title(state.best.row, true)}`;
      const isLeft = at - box.left > box.right - at, text = name.length > room ? `${name.slice(0, Math.max(8, room - 1))}…` : name;
      words.textContent = text;
      for (const [key, value] of Object.entries({ x: at + (isLeft ? -7 : 7), y: box.top + 12, "text-anchor": isLeft ? "end" : "start" })) words.setAttribute(key, value);
      const width = text.length * 6.6;
      return [isLeft ? [at - 7 - width, box.top, at, box.top + 16] : [at, box.top, at + 7 + width, box.top + 16]];
    },
  };
}
