// The rows as columns: decode them, select them, find fronts and relatives, write figures.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const NUM = DATA.count;
const FIGURES = {
  auc: { label: "AUC", better: 1, digits: 3 },
  accuracy: { label: "accuracy", better: 1, digits: 3 },
  latency_p50_ms: { label: "latency p50", unit: "ms", better: -1 },
  latency_p90_ms: { label: "latency p90", unit: "ms", better: -1 },
  latency_p99_ms: { label: "latency p99", unit: "ms", better: -1 },
  size_bytes: { label: "size", unit: "MB", scale: 1e6, better: -1 },
  params: { label: "params", unit: "M", scale: 1e6, better: -1 },
  macs: { label: "MACs", unit: "M", scale: 1e6, better: -1 },
  energy_mj: { label: "energy", unit: "mJ", better: -1 },
  peak_rss_bytes: { label: "peak memory", unit: "MB", scale: 1e6, better: -1 },
  batch: { label: "batch", digits: 0 },
  threads: { label: "threads", digits: 0 },
  seed: { label: "seed", digits: 0 },
};
const WORDS = ["model", "role", "teacher", "scheme", "dataset", "split", "device", "runtime", "recipe", "twin", "parent", "source", "created", "row_id"];
const LABELS = { model: "model", dataset: "data set", on_front: "front", row_id: "id" };
const KINDS = {
  teacher: ["teacher", "square"],
  baseline: ["baseline", "triangle"],
  taught: ["student, taught", "circle"],
  alone: ["student, alone", "diamond"],
  imported: ["imported", "plus"],
};

// Text columns come as a list of distinct texts and one code a row.
const text = (name, i) => { const column = DATA.words[name]; return column ? column.texts[column.codes[i]] : ""; };
const figure = (name, i) => { const column = DATA.figures[name]; return column ? column[i] : null; };
const has = (name) => name in DATA.figures && DATA.figures[name].some((value) => value !== null);
const onFront = (i) => DATA.on_front[i] === 1;
const isImported = (i) => text("source", i) === "imported";
const isInt8 = (i) => text("scheme", i).includes("int8");

function kindOf(i) {
  if (isImported(i)) return "imported";
  const role = text("role", i);
  return role === "student" ? (text("teacher", i) ? "taught" : "alone") : role;
}

// Rows that may share a front have the same place (data set and split) and the same rig (device, batch, threads).
function placeOf(i) {
  const split = text("split", i);
  return split && split !== "test" ? `${text("dataset", i)} · ${split}` : text("dataset", i);
}
function rigOf(i) {
  const device = text("device", i);
  if (!device) return "";
  const batch = figure("batch", i), threads = figure("threads", i);
  return [device, batch !== null && batch !== 1 ? `batch ${batch}` : "", threads !== null && threads !== 1 ? `${threads} threads` : ""].filter(Boolean).join(" · ");
}
const PLACES = Array.from({ length: NUM }, (_, i) => placeOf(i));
const RIGS = Array.from({ length: NUM }, (_, i) => rigOf(i));

function show(name, value, withUnit = false) {
  if (value === null || value === undefined) return "";
  const about = FIGURES[name] || {};
  const scaled = about.scale ? value / about.scale : value;
  const written = about.digits !== undefined ? scaled.toFixed(about.digits) : threeDigits(scaled);
  return withUnit && about.unit ? `${written} ${about.unit}` : written;
}

function threeDigits(value) {
  if (value === 0) return "0";
  const size = Math.abs(Number(value.toPrecision(3)));
  const digits = Math.max(0, Math.min(9, 2 - Math.floor(Math.log10(size))));
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function heading(name) {
  const about = FIGURES[name];
  if (about) return about.unit ? `${about.label} (${about.unit})` : about.label;
  return LABELS[name] || name.replace(/_/g, " ");
}

function interval(name, i) {
  const low = figure(`${name}_lo`, i), high = figure(`${name}_hi`, i);
  return low === null || high === null ? null : [low, high];
}

// A query is words that must occur in a row's texts and comparisons of columns; returns a test or an error.
const UNITS = { "": 1, k: 1e3, K: 1e3, M: 1e6, G: 1e9, B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, ms: 1, us: 1e-3, s: 1e3, mJ: 1, "%": 1e-2 };
function parseQuery(query) {
  const tests = [];
  for (const part of query.match(/"[^"]*"|\S+/g) || []) {
    const found = /^([a-z_0-9]+)(<=|>=|!=|=|<|>|~)(.*)$/.exec(part);
    if (!found) {
      const word = part.replace(/"/g, "").toLowerCase();
      tests.push((i) => WORDS.some((name) => text(name, i).toLowerCase().includes(word)));
      continue;
    }
    const test = comparison(found[1], found[2], found[3].replace(/"/g, ""));
    if (typeof test === "string") return { error: test };
    tests.push(test);
  }
  return { test: (i) => tests.every((one) => one(i)) };
}

function comparison(name, sign, wanted) {
  if (name in DATA.words) {
    const low = wanted.toLowerCase();
    const same = (i) => text(name, i).toLowerCase() === low;
    if (sign === "=") return same;
    if (sign === "!=") return (i) => !same(i);
    if (sign === "~") return (i) => text(name, i).toLowerCase().includes(low);
    return `${name} is text: use = != or ~`;
  }
  if (!(name in FIGURES) && !/_(lo|hi)$/.test(name)) return `there is no column ${name}`;
  const number = /^([+-]?[\d.]+(?:e[+-]?\d+)?)([a-zA-Z%]*)$/.exec(wanted);
  if (!number || !(number[2] in UNITS) || Number.isNaN(Number(number[1]))) return wanted === "" ? `${name}${sign} what?` : `${wanted} is not a number`;
  const bound = Number(number[1]) * UNITS[number[2]];
  const compare = { "<": (a) => a < bound, "<=": (a) => a <= bound, ">": (a) => a > bound, ">=": (a) => a >= bound, "=": (a) => a === bound, "!=": (a) => a !== bound, "~": null }[sign];
  if (!compare) return `${name} is a number: use < <= > >= = !=`;
  return (i) => { const value = figure(name, i); return value !== null && compare(value); };
}

// The front of cost (less is better) against quality (more is better): sort by cost, keep what raises the best so far.
function frontOf(indices, cost, quality) {
  const known = indices.filter((i) => figure(cost, i) !== null && figure(quality, i) !== null && !isImported(i));
  known.sort((a, b) => figure(cost, a) - figure(cost, b) || figure(quality, b) - figure(quality, a));
  const front = [];
  let best = -Infinity, bestCost = NaN;
  for (const i of known) {
    const value = figure(quality, i);
    if (value > best || (value === best && figure(cost, i) === bestCost)) {
      front.push(i);
      best = value;
      bestCost = figure(cost, i);
    }
  }
  return front;
}

// Relatives of a row in its own group, by name: its twin without a teacher, its fp32 parent, its int8 children, its teachers.
const BY_NAME = new Map();
for (let i = 0; i < NUM; i++) {
  const key = `${PLACES[i]}\n${RIGS[i]}\n${text("model", i)}`;
  if (BY_NAME.has(key)) BY_NAME.get(key).push(i); else BY_NAME.set(key, [i]);
}
const named = (name, i) => (name && BY_NAME.get(`${PLACES[i]}\n${RIGS[i]}\n${name}`)) || [];
// Twin, student and int8 may share a model name and differ by teacher and scheme alone, so each kin says what it must be.
function nearest(name, i, fits) {
  const found = named(name, i).filter((j) => j !== i && fits(j));
  const like = (j) => ["scheme", "teacher"].filter((one) => text(one, j) === text(one, i)).length * 2 + (figure("seed", j) === figure("seed", i) ? 1 : 0);
  return found.sort((a, b) => like(b) - like(a))[0];
}
const twinOf = (i) => nearest(text("twin", i), i, (j) => !text("teacher", j) && text("role", j) === text("role", i));
const parentOf = (i) => nearest(text("parent", i), i, (j) => !isInt8(j) && text("teacher", j) === text("teacher", i));
const teacherOf = (name, i) => nearest(name, i, (j) => text("role", j) === "teacher");
// What a row is called where its teacher and scheme do not stand beside it.
function title(i) {
  const model = text("model", i), teacher = text("teacher", i);
  const taught = teacher && !model.includes(teacher) ? ` ← ${teacher}` : "";
  return `${model}${taught}${isInt8(i) && !model.includes("int8") ? " int8" : ""}`;
}
const CHILDREN = new Map();
for (let i = 0; i < NUM; i++) {
  const parent = parentOf(i);
  if (parent !== undefined) CHILDREN.set(parent, [...(CHILDREN.get(parent) || []), i]);
}
function relatives(i) {
  const found = [];
  const add = (what, j) => { if (j !== undefined && j !== i && !found.some(([, k]) => k === j)) found.push([what, j]); };
  add("without teacher", twinOf(i));
  add("fp32", parentOf(i));
  for (const j of CHILDREN.get(i) || []) add(text("scheme", j), j);
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

function markPath(shape, x, y, r) {
  const p = (value) => value.toFixed(1);
  if (shape === "square") return `M${p(x - r)},${p(y - r)}h${p(2 * r)}v${p(2 * r)}h${p(-2 * r)}z`;
  if (shape === "triangle") return `M${p(x)},${p(y - 1.15 * r)}L${p(x + 1.1 * r)},${p(y + 0.85 * r)}H${p(x - 1.1 * r)}z`;
  if (shape === "diamond") return `M${p(x)},${p(y - 1.3 * r)}L${p(x + 1.3 * r)},${p(y)}L${p(x)},${p(y + 1.3 * r)}L${p(x - 1.3 * r)},${p(y)}z`;
  if (shape === "plus") return `M${p(x - r)},${p(y)}H${p(x + r)}M${p(x)},${p(y - r)}V${p(y + r)}`;
  return `M${p(x - r)},${p(y)}a${p(r)},${p(r)} 0 1 0 ${p(2 * r)},0a${p(r)},${p(r)} 0 1 0 ${p(-2 * r)},0z`;
}
function swatch(kind, full) {
  return drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn("path", { d: markPath(KINDS[kind][1], 8, 8, 5), class: `mark k-${kind}${full ? " full" : ""}` }));
}
