// The rows as columns: decode them, select them, find relatives, write figures.
"use strict";

// Large data come as gzip in base64; browsers since 2023 unpack it themselves.
const DATA = JSON.parse(await (async ({ textContent, dataset }) => {
  if (!dataset.packed) return textContent;
  if (typeof DecompressionStream === "undefined") { document.getElementById("count").textContent = "This browser is too old for a leaderboard of this size: use one of 2023 or later."; throw new Error("no DecompressionStream"); }
  const bytes = Uint8Array.from(atob(textContent), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream(dataset.packed))).text();
})(document.getElementById("data")));
const NUM = DATA.count;
// What is known of each column, and their order, come with the data.
const COLUMNS = DATA.columns;
const FIGURES = Object.fromEntries(Object.entries(COLUMNS).filter(([, one]) => one.number));
const FACTS = Object.keys(FIGURES).filter((name) => FIGURES[name].better && ["quality", "cost"].includes(FIGURES[name].group));
const KINDS = DATA.kinds;
// Names that columns had are still read, in filters and in links.
const columnNamed = (name) => DATA.grammar.names[name] ?? name;

// Text columns come as a list of distinct texts and one code a row: no codes where all rows say the same, null where
// each says its own.
const code = ({ codes }, i) => (codes === null ? i : codes.length ? codes[i] : 0);
const text = (name, i) => { const column = DATA.words[name]; return column ? column.texts[code(column, i)] : ""; };
const figure = (name, i) => { const column = DATA.figures[name]; return column ? column[i] : null; };
const has = (name) => name in DATA.figures && DATA.figures[name].some((value) => value !== null);
const flag = (name, i) => DATA.flags[name][i] === 1;
const onFront = (i) => flag("on_front", i);
const named = (name, i) => { const column = DATA.names[name]; return column.texts[code(column, i)]; };
const written = (name, i) => { const column = DATA.written[name]; return column ? column.texts[code(column, i)] : ""; };
const isImported = (i) => text("source", i) === "imported";
const archOf = (i) => JSON.parse(DATA.archs.texts[code(DATA.archs, i)] || "null");
const isInt8 = (i) => text("scheme", i).includes("int8");

const signed = (value, digits = 3) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
const pWords = (p) => (p === null ? "too few seeds" : p < 0.001 ? "p < 0.001" : `p ${Number(p.toPrecision(2))}`);
const kindOf = (i) => named("kind", i);
// The verdict that words begin with: gained, lost, equivalent or inconclusive.
const verdictIn = (words) => words.split(" ")[0];

// Rows that may share a front have the same place (data set and split) and the same rig (device, batch, threads).
const PLACES = Array.from({ length: NUM }, (_, i) => named("place", i));
const RIGS = Array.from({ length: NUM }, (_, i) => named("rig", i));
const rigOf = (i) => RIGS[i];

// The time of filing is a figure of charts alone, in days since 1970: quality over time, and the best so far as a stair.
FIGURES.created_at = { label: "filed on", better: -1, number: true, isTime: true };
DATA.figures.created_at = Array.from({ length: NUM }, (_, i) => { const time = Date.parse(text("created", i)); return Number.isNaN(time) ? null : time / 864e5; });

// Writes a figure with no more digits than its interval `bounds` carries, where one is given (`quantities.py`).
function show(name, value, withUnit = false, bounds = null) {
  if (value === null || value === undefined) return "";
  const about = FIGURES[name] || {};
  if (about.isTime) return dayOf(value);
  if (about.whole) return `${Math.round(value)}${withUnit && about.unit ? ` ${about.unit}` : ""}`;
  const scale = about.scale || 1, scaled = value / scale, carried = bounds ? decimalsOf(bounds[0] / scale, bounds[1] / scale) : null;
  const isFraction = about.digits === 3;
  const written = isFraction && carried !== null ? scaled.toFixed(Math.min(4, Math.max(2, carried))) : about.digits !== undefined ? scaled.toFixed(about.digits) : threeDigits(scaled, carried);
  return withUnit && about.unit ? `${written} ${about.unit}` : written;
}
// The decimals that an interval carries: two digits of half its width below 3.55 of a decade, else one.
function decimalsOf(low, high) {
  if (!(low < high)) return null;
  const half = (high - low) / 2, size = Math.floor(Math.log10(half));
  return (half / 10 ** size < 3.55 ? 1 : 0) - size;
}

function threeDigits(value, carried = null) {
  if (value === 0) return "0";
  const size = Math.abs(Number(value.toPrecision(3)));
  let decimals = 2 - Math.floor(Math.log10(size));
  if (carried !== null && carried < decimals && Number((value / 10 ** -carried).toFixed(0)) !== 0) decimals = carried;
  const rounded = decimals < 0 ? Math.round(value * 10 ** decimals) / 10 ** decimals : value, digits = Math.max(0, Math.min(9, decimals));
  return rounded.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const heading = (name) => COLUMNS[name]?.heading ?? COLUMNS[name]?.label ?? FIGURES[name]?.label ?? name.replace(/_/g, " ");

function interval(name, i) {
  const low = figure(`${name}_lo`, i), high = figure(`${name}_hi`, i);
  return low === null || high === null ? null : [low, high];
}

// The filter language of page_filter.js over these rows.
const parseQuery = (query) => readFilter(query, DATA.grammar, { text: matching, figure });

// Each distinct text is looked at once, however many rows share it.
function matching(name, test) {
  const column = DATA.words[name], flags = column.texts.map(test);
  return (i) => flags[code(column, i)];
}

// Relatives of a row in its own group, by name: its control without a teacher, its fp32 parent, its int8 children, its teachers.
const BY_NAME = new Map();
for (let i = 0; i < NUM; i++) {
  const key = `${PLACES[i]}\n${RIGS[i]}\n${text("model", i)}`;
  if (BY_NAME.has(key)) BY_NAME.get(key).push(i); else BY_NAME.set(key, [i]);
}
const namesakes = (name, i) => (name && BY_NAME.get(`${PLACES[i]}\n${RIGS[i]}\n${name}`)) || [];
// Twin, student and int8 may share a model name and differ by teacher and scheme alone, so each kin says what it must be.
function nearest(name, i, fits) {
  const found = namesakes(name, i).filter((j) => j !== i && fits(j));
  const like = (j) => ["scheme", "teacher"].filter((one) => text(one, j) === text(one, i)).length * 2 + (figure("seed", j) === figure("seed", i) ? 1 : 0);
  return found.sort((a, b) => like(b) - like(a))[0];
}
const controlOf = (i) => nearest(text("control", i), i, (j) => !text("teacher", j) && text("role", j) === text("role", i));
const parentOf = (i) => nearest(text("parent", i), i, (j) => !isInt8(j) && text("teacher", j) === text("teacher", i));
const teacherOf = (name, i) => nearest(name, i, (j) => text("role", j) === "teacher");
// What a row is called where its teacher and scheme do not stand beside it; in a chart, as short as it stays unique.
const title = (i, isShort = false) => named(isShort ? "short" : "title", i);
const BY_PARENT = new Map();
for (let i = 0; i < NUM; i++) {
  if (!text("parent", i)) continue;
  const key = `${PLACES[i]}\n${RIGS[i]}\n${text("parent", i)}`;
  if (BY_PARENT.has(key)) BY_PARENT.get(key).push(i); else BY_PARENT.set(key, [i]);
}
const childrenOf = (i) => (BY_PARENT.get(`${PLACES[i]}\n${RIGS[i]}\n${text("model", i)}`) || []).filter((j) => parentOf(j) === i);
function relatives(i) {
  const found = [];
  const add = (what, j) => { if (j !== undefined && j !== i && !found.some(([, k]) => k === j)) found.push([what, j]); };
  add("without teacher", controlOf(i));
  add("fp32", parentOf(i));
  for (const j of childrenOf(i)) add(text("scheme", j), j);
  const teacher = text("teacher", i);
  for (const name of [teacher, ...teacher.split(/\s*[+,&]\s*/)]) add("teacher", teacherOf(name, i));
  return found;
}

function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return dress(element, attributes, children);
}
function drawn(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}
// Text enters the page by text nodes alone, so a name is never markup.
function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}
