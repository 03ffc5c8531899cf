// The state of the page, what changes it, and the link that keeps it.
"use strict";

const byId = (id) => document.getElementById(id);
const FIRST = { row: "", place: "", rig: "", role: "", scheme: "", query: "", quality: "", whiskers: "front", marks: "kind", size: "medium", view: "", layout: "rows", figure: "", links: false, names: true, all: false, theme: "" };
const state = { ...FIRST, axes: [{ x: "", log: true, view: null }, { x: "", log: true, view: null }], limits: {}, best: { row: -1 }, sort: { name: "", way: -1 }, columns: USUAL.filter(filled), pins: [] };
const BASE_TITLE = document.title;
let indices = [], isRedrawDue = false, linkDue = 0, isRead = false;

const hooks = {
  change(slot, part) { Object.assign(state.axes[slot], part); refresh(); },
  hover(i, x, y, spoken = false) { hover(i, x, y, spoken); },
  light(i) { for (const chart of [...charts, view]) chart.light(state, i); },
  quality: () => state.quality,
  board: () => `#${boardLink()}`,
  limits: () => state.limits,
  // The range that a chart shows (null: the usual one); only that chart is drawn anew.
  see(slot, range) { state.axes[slot].view = range; charts[slot].redraw(); keepLinkSoon(); },
  // A budget's limit of one cost (null: none); while it is dragged, once a frame.
  limit(name, value, isFinal) {
    if (value === null) delete state.limits[name]; else state.limits[name] = value;
    if (isFinal) keepLinkSoon();
    if (isRedrawDue) return;
    isRedrawDue = true;
    requestAnimationFrame(() => { isRedrawDue = false; state.best = bestWithin(indices, state.limits, state.quality); charts.forEach((chart) => chart.redraw()); drawAnswer(state, indices, hooks); });
  },
  pin(i) {
    state.pins = state.pins.includes(i) ? state.pins.filter((one) => one !== i) : [...state.pins.slice(1 - MOST_PINS), i];
    announce(state.pins.includes(i) ? `pinned ${text("model", i)}` : `let ${text("model", i)} go`);
    refresh(true);
  },
  pinBoth(rows) {
    state.pins = rows;
    announce(`pinned ${rows.map(title).join(" and ")}`);
    refresh(true);
    byId("compare").scrollIntoView({ block: "start" });
  },
  sort(name, way) {
    const start = name in FIGURES ? (FIGURES[name].better || -1) * -1 : isFlag(name) || COLUMNS[name].ordered ? -1 : 1;
    state.sort = { name, way: way ?? (state.sort.name === name ? -state.sort.way : start) };
    refresh(true);
    if (!way) document.querySelector(`[data-sort="${name}"]`)?.focus();
  },
};
const charts = [0, 1].map((slot) => makeChart(byId(`chart-${slot}`), slot, hooks));
const view = makeView(byId("view-card"), hooks);
const table = makeTable(hooks);
const drawMatrix = makeMatrix(hooks);
const tickColumns = makeChooser(state, (columns) => { state.columns = columns; refresh(true); });

function announce(words) { byId("announce").textContent = words; }

function hover(i, x, y, spoken) {
  hooks.light(i);
  table.light(i);
  const tip = byId("tip");
  tip.hidden = i < 0;
  if (i < 0) return;
  tip.replaceChildren(node("strong", {}, title(i)), facts(i, false), node("p", { class: "hint" }, charts.map((chart) => chart.verdict(i)).filter(Boolean).join(" · ")));
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, x + 18 + box.width > innerWidth ? x - box.width - 18 : x + 18)}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - box.height - 8))}px`;
  if (spoken) announce(`${title(i)}, ${FIGURES[state.quality].label} ${show(state.quality, figure(state.quality, i))}, ${state.axes.map(({ x: name }) => `${FIGURES[name].label} ${show(name, figure(name, i), true)}`).join(", ")}`);
}

// Options that exist, most rows first; what was chosen before is kept if it still exists.
function options(select, values, chosen, all, name = (value) => value) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  const found = [...counts].sort((a, b) => b[1] - a[1]).map(([value]) => value);
  select.replaceChildren(...(all ? [node("option", { value: "" }, all)] : []), ...found.map((value) => node("option", { value }, name(value))));
  select.value = counts.has(chosen) ? chosen : all ? "" : (found[0] ?? "");
  return select.value;
}

function choose() {
  const everyone = Array.from({ length: NUM }, (_, i) => i);
  state.place = options(byId("dataset"), PLACES, state.place, "");
  const here = everyone.filter((i) => PLACES[i] === state.place);
  const rigs = here.map((i) => RIGS[i]);
  const real = rigs.filter(Boolean);
  state.rig = options(byId("device"), real.length ? real : rigs, state.rig, "", (value) => value || "no device");
  // Imported rows without a device are drawn beside those measured here, for what needs no device.
  const group = here.filter((i) => RIGS[i] === state.rig || (isImported(i) && !RIGS[i]));
  const ground = state.all ? everyone : group;
  state.role = options(byId("role"), ground.map((i) => text("role", i)), state.role, "all");
  state.scheme = options(byId("scheme"), ground.map((i) => text("scheme", i)), state.scheme, "all");
  const query = parseQuery(state.query);
  byId("query").classList.toggle("invalid", Boolean(query.error));
  byId("query").setAttribute("aria-invalid", String(Boolean(query.error)));
  byId("query-hint").dataset.usual ??= byId("query-hint").innerHTML;
  if (query.error) byId("query-hint").textContent = `Not understood: ${query.error}.`;
  else if (byId("query-hint").textContent.startsWith("Not understood")) restoreHint();
  const keeps = (i) => (!state.role || text("role", i) === state.role) && (!state.scheme || text("scheme", i) === state.scheme) && (query.error || query.test(i));
  indices = group.filter(keeps);
  return { group, inTable: state.all ? everyone.filter(keeps) : indices, inMatrix: state.layout === "matrix" ? here.filter(keeps) : [] };
}
const hintParts = [...byId("query-hint").childNodes].map((one) => one.cloneNode(true));
function restoreHint() { byId("query-hint").replaceChildren(...hintParts.map((one) => one.cloneNode(true))); }

function refresh(tableOnly = false) {
  if (!NUM) { byId("count").textContent = "The leaderboard holds no rows yet."; dressTheme(); return; }
  const { group, inTable, inMatrix } = choose();
  const qualities = DATA.qualities.filter((name) => group.some((i) => figure(name, i) !== null));
  state.quality = options(byId("quality"), qualities, state.quality, "", (name) => FIGURES[name].label);
  if (!state.quality) state.quality = DATA.qualities[0];
  const known = COSTS.filter((name) => group.some((i) => figure(name, i) !== null));
  state.axes.forEach((axis, slot) => { if (!has(axis.x)) Object.assign(axis, { x: known[slot] || known[0] || COSTS[slot], view: null }); });
  if (!state.sort.name) state.sort = { name: state.quality, way: -1 };
  if (state.row) return refreshRow();
  drawRow(state, hooks);
  const fronts = state.axes.map(({ x }) => frontOf(indices.filter((i) => figure(x, i) > 0), x, state.quality, indices.length === group.length && COSTS.includes(x)));
  state.best = bestWithin(indices, state.limits, state.quality);
  byId("count").textContent = `${indices.length.toLocaleString("en")} of ${group.length.toLocaleString("en")} rows on ${[state.place, state.rig].filter(Boolean).join(", ")} · on the chart fronts: ${fronts.map(({ front }) => front.length).join(" and ")}`;
  for (const [name, value] of [["query", state.query], ["whiskers", state.whiskers], ["marks", state.marks], ["size", state.size], ["view", state.view], ["layout", state.layout]]) if (byId(name).value !== value) byId(name).value = value;
  for (const [name, value] of [["links", state.links], ["names", state.names], ["all-groups", state.all]]) byId(name).checked = value;
  byId("charts").className = `charts ${state.size}`;
  drawTitle(group, BASE_TITLE);
  drawHeadline(state, group, hooks);
  drawAnswer(state, indices, hooks);
  if (!tableOnly) charts.forEach((chart, slot) => chart.draw(state, indices, fronts[slot]));
  else charts.forEach((chart) => chart.light(state, -1));
  view.draw(state, indices);
  legend(group);
  drawCompare(state, hooks);
  drawMatrix(state, inMatrix);
  if (state.layout === "rows") table.draw(state, inTable);
  tickColumns();
  dressTheme();
  keepLink();
}

function refreshRow() {
  drawRow(state, hooks);
  dressTheme();
  keepLink();
}

function legend(group) {
  const kinds = Object.keys(KINDS).filter((kind) => group.some((i) => kindOf(i) === kind));
  const families = FAMILIES.order.filter((name) => group.some((i) => named("family", i) === name));
  const isMore = FAMILIES.isMore && group.some((i) => !FAMILIES.order.includes(named("family", i)));
  const isFamily = state.marks === "family", usual = kinds.includes("distilled") ? "distilled" : kinds[0];
  const item = (look, words) => node("li", {}, look, words), path = (d, kind) => drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("path", { d, class: kind }));
  const items = isFamily
    ? [...families.map((name) => [FAMILIES.slot.get(name), name]), ...(isMore ? [[FAMILY_SHAPES.length - 1, "other families"]] : [])].map(([slot, name]) => item(swatch(FAMILY_SHAPES[slot], `f-${slot}`, false), name))
    : kinds.map((kind) => item(swatch(SHAPES[kind], `k-${kind}`, false), KINDS[kind]));
  if (group.some(isInt8)) items.push(item(isFamily ? swatch("circle", "f-0", true) : swatch(SHAPES[usual], `k-${usual}`, true), "filled: int8"));
  if (isFamily && group.some(isImported)) items.push(item(swatch("circle", "f-0 borrowed", false), "dashed: imported"));
  const isTime = state.axes.every(({ x }) => FIGURES[x].isTime);
  items.push(item(path("M1,13H6V8H11V3H15", "front"), isTime ? "best so far" : "chart front"));
  if (state.whiskers !== "none" && group.some((i) => interval(state.quality, i)))
    items.push(item(drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("path", { d: "M0,3H16V13H0z", class: "doubt" }), drawn("path", { d: "M0,13H16", class: "floor" })), "where the chart front could be (95 %)"));
  byId("legend").replaceChildren(...items);
}

function dressTheme() {
  const theme = state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Use the ${theme === "dark" ? "light" : "dark"} theme`);
}

// The link: only what differs from the start, so that it stays short.
function keepLinkSoon() { clearTimeout(linkDue); linkDue = setTimeout(keepLink, 120); }
function keepLink() {
  const link = state.row ? `#row=${encodeURIComponent(state.row)}${state.theme ? `&theme=${state.theme}` : ""}` : `#${boardLink()}`;
  if (location.hash !== link) history.replaceState(null, "", link);
}
function boardLink() {
  const kept = new URLSearchParams();
  for (const name of ["place", "rig", "role", "scheme", "query", "quality", "theme"]) if (state[name]) kept.set(name, state[name]);
  for (const name of ["links", "all"]) if (state[name]) kept.set(name, "1");
  if (!state.names) kept.set("names", "0");
  for (const name of ["whiskers", "marks", "size", "view", "layout"]) if (state[name] !== FIRST[name]) kept.set(name, state[name]);
  if (state.layout === "matrix") kept.set("figure", state.figure);
  state.axes.forEach(({ x, log }, slot) => kept.set(`x${slot}`, `${x}${log ? "" : ":linear"}`));
  state.axes.forEach(({ view: range }, slot) => { if (range) kept.set(`v${slot}`, [...range.x, ...range.y].map((end) => Number(end.toPrecision(6))).join()); });
  if (Object.keys(state.limits).length) kept.set("most", Object.entries(state.limits).map(([name, limit]) => `${name}:${limit}`).join());
  kept.set("sort", `${state.sort.name}:${state.sort.way > 0 ? "up" : "down"}`);
  if (state.columns.join() !== USUAL.filter(filled).join()) kept.set("columns", state.columns.join());
  if (state.pins.length) kept.set("pins", state.pins.map((i) => text("row_id", i)).join());
  return String(kept);
}
// A range as the link holds it; null where it holds none.
function rangeIn(words) {
  const [a, b, c, d, ...rest] = words.split(",").map(Number);
  return rest.length === 0 && [a, b, c, d].every(Number.isFinite) && a > 0 && a < b && c < d ? { x: [a, b], y: [c, d] } : null;
}
function readLink() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const one = (name, usual) => kept.get(name) ?? usual;
  const row = one("row", ""), theme = one("theme", ""), i = rowOf(row);
  if (row && isRead) { Object.assign(state, { row, theme: theme || state.theme }); return; } // the board is as it was left
  isRead = true;
  Object.assign(state, FIRST);
  for (const name of ["place", "rig", "role", "scheme", "query", "quality", "theme"]) state[name] = one(name, "");
  if (row) Object.assign(state, { row, ...(i >= 0 ? { place: PLACES[i], rig: RIGS[i] } : {}) });
  state.links = one("links") === "1";
  state.all = one("all") === "1";
  state.names = one("names") !== "0";
  for (const [name, known] of Object.entries({ whiskers: ["front", "all", "none"], marks: ["kind", "family"], size: Object.keys(HEIGHTS), view: Object.keys(VIEWS), layout: ["rows", "matrix"] })) if (known.includes(one(name))) state[name] = one(name);
  state.limits = Object.fromEntries(one("most", "").split(",").map((part) => part.split(":")).map(([name, limit]) => [columnNamed(name), Number(limit)]).filter(([name, limit]) => COSTS.includes(name) && limit > 0 && Number.isFinite(limit)));
  state.axes = [0, 1].map((slot) => { const [x, way] = one(`x${slot}`, "").split(":"); const name = columnNamed(x); return { x: AXES.includes(name) ? name : "", log: way !== "linear", view: rangeIn(one(`v${slot}`, "")) }; });
  state.figure = columnNamed(one("figure", ""));
  const [name, way] = one("sort", ":").split(":");
  state.sort = { name: USABLE.includes(columnNamed(name)) ? columnNamed(name) : "", way: way === "up" ? 1 : -1 };
  state.columns = kept.has("columns") ? one("columns").split(",").map(columnNamed).filter((column) => USABLE.includes(column)) : USUAL.filter(filled);
  const ids = one("pins", "").split(",").filter(Boolean).slice(0, MOST_PINS);
  state.pins = ids.map((id) => Array.from({ length: NUM }, (_, i) => i).find((i) => text("row_id", i) === id)).filter((i) => i !== undefined);
}

for (const [id, name] of [["dataset", "place"], ["device", "rig"], ["role", "role"], ["scheme", "scheme"], ["quality", "quality"], ["whiskers", "whiskers"], ["marks", "marks"], ["size", "size"], ["view", "view"], ["layout", "layout"], ["figure", "figure"]])
  byId(id).addEventListener("change", (event) => {
    state[name] = event.target.value;
    if (name === "quality") state.sort = { name: state.quality, way: -1 };
    if (["place", "rig", "quality"].includes(name)) for (const axis of state.axes) axis.view = null; // another plane
    refresh(["layout", "figure"].includes(name));
  });
for (const [id, name] of [["links", "links"], ["names", "names"], ["all-groups", "all"]])
  byId(id).addEventListener("change", (event) => { state[name] = event.target.checked; refresh(id === "all-groups"); });
let typing = 0;
byId("query").addEventListener("input", (event) => { clearTimeout(typing); typing = setTimeout(() => { state.query = event.target.value.trim(); refresh(); }, NUM > 5000 ? 200 : 60); });
byId("theme").addEventListener("click", () => { state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; dressTheme(); keepLink(); });
byId("reset").addEventListener("click", () => { const theme = state.theme; history.replaceState(null, "", "#"); readLink(); state.theme = theme; refresh(); });
addEventListener("hashchange", () => {
  if (document.getElementById(location.hash.slice(1))) return; // a place on the page
  readLink();
  refresh();
  if (!state.row) return;
  scrollTo(0, 0);
  byId("row-heading").focus({ preventScroll: true });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dressTheme);
let drawnWidth = 0;
new ResizeObserver(() => { const width = byId("chart-0").clientWidth; if (width && width !== drawnWidth) { drawnWidth = width; refresh(); } }).observe(byId("chart-0"));

byId("summary").textContent = [`${NUM.toLocaleString("en")} rows`, DATA.made ? `page made ${DATA.made.replace("T", " ").replace("Z", " UTC")} by tutelage ${DATA.version}` : ""].filter(Boolean).join(" · ");
readLink();
refresh();

if (DATA.live) follow();
