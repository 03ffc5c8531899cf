// The rows as columns: decode them, select them, find fronts and relatives, write figures.
"use strict";

// Large data come as gzip in base64; browsers since 2023 unpack it themselves.
const DATA = JSON.parse(await (async ({ textContent, dataset }) => {
  if (!dataset.packed) return textContent;
  if (typeof DecompressionStream === "undefined") { document.getElementById("count").textContent = "This browser is too old for a leaderboard of this size: use one of 2023 or later."; throw new Error("no DecompressionStream"); }
  const bytes = Uint8Array.from(atob(textContent), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream(dataset.packed))).text();
})(document.getElementById("data")));
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
  gain_auc: { label: "AUC gained by the teacher", digits: 3, better: 1 },
  gain_auc_p: { label: "p of the AUC gained", digits: 3 },
  gain_accuracy: { label: "accuracy gained by the teacher", digits: 3, better: 1 },
  gain_accuracy_p: { label: "p of the accuracy gained", digits: 3 },
};
const LABELS = { model: "model", dataset: "data set", on_front: "front", row_id: "id", gain: "gain of teacher" };
const KINDS = {
  teacher: ["teacher", "square"],
  baseline: ["baseline", "triangle"],
  taught: ["student, distilled", "circle"],
  alone: ["student without a teacher (control)", "diamond"],
  imported: ["imported", "plus"],
};

// Text columns come as a list of distinct texts and one code a row: no codes where all rows say the same, null where
// each says its own.
const code = ({ codes }, i) => (codes === null ? i : codes.length ? codes[i] : 0);
const text = (name, i) => { const column = DATA.words[name]; return column ? column.texts[code(column, i)] : ""; };
const figure = (name, i) => { const column = DATA.figures[name]; return column ? column[i] : null; };
const has = (name) => name in DATA.figures && DATA.figures[name].some((value) => value !== null);
const onFront = (i) => DATA.on_front[i] === 1;
const isImported = (i) => text("source", i) === "imported";
const archOf = (i) => JSON.parse(DATA.archs.texts[code(DATA.archs, i)] || "null");
const isInt8 = (i) => text("scheme", i).includes("int8");

// Numbers that only single rows' details hold become columns that can be chosen: explanation.insertion, ece, ...
const COUNTED = ["explanation", "calibration", "energy", "seeds"];
for (const [i, details] of Object.entries(DATA.details)) {
  for (const [name, value] of Object.entries(details)) {
    if (typeof value === "number") detailed(i, name, value);
    else if (COUNTED.includes(name) && value && typeof value === "object") for (const [inner, one] of Object.entries(value)) if (typeof one === "number") detailed(i, `${name}.${inner}`, one);
  }
}
function detailed(i, name, value) {
  if (name in FIGURES && !FIGURES[name].detailed) return;
  FIGURES[name] ??= { label: name.replace(/_/g, " ").replace(".", ": "), detailed: true };
  (DATA.figures[name] ??= Array(NUM).fill(null))[i] = value;
}

// What a teacher was worth to its student, by AUC or else accuracy: its verdict is made in Python, as everywhere.
function gainOf(i) {
  for (const name of ["gain_auc", "gain_accuracy"]) if (figure(name, i) !== null) return { name, value: figure(name, i), p: figure(`${name}_p`, i), bounds: interval(name, i), verdict: text("gain_verdict", i) };
  return null;
}
const signed = (value, digits = 3) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
const pWords = (p) => (p === null ? "too few seeds" : p < 0.001 ? "p < 0.001" : `p ${Number(p.toPrecision(2))}`);
const isDecided = ({ verdict }) => verdict === "gained" || verdict === "lost";
const gainKind = (gain) => (isDecided(gain) ? (gain.verdict === "gained" ? "better" : "worse") : "");

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

// The filter language of page_filter.js over these rows; numbers that only details hold can be compared, too.
const GRAMMAR = { ...DATA.grammar, kinds: { ...DATA.grammar.kinds } };
for (const [name, about] of Object.entries(FIGURES)) if (about.detailed) GRAMMAR.kinds[name] = "plain";
const parseQuery = (query) => readFilter(query, GRAMMAR, { text: matching, figure });

// Each distinct text is looked at once, however many rows share it.
function matching(name, test) {
  const column = DATA.words[name], flags = column.texts.map(test);
  return (i) => flags[code(column, i)];
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
// What a row is called where its teacher and scheme do not stand beside it; in a chart, as short as it can be told apart.
const briefTeacher = (teacher) => teacher.split(/\s*[+,&]\s*/).map((one) => one.replace(/_patch\d+.*$/, "")).join(" + ");
function title(i, isShort = false) {
  const model = text("model", i), teacher = text("teacher", i);
  const many = teacher.split(/\s*[+,&]\s*/).length;
  const taught = teacher && !model.includes(teacher) ? ` ← ${isShort && many > 1 ? `${many} teachers` : briefTeacher(teacher)}` : "";
  return `${model}${taught}${isInt8(i) && !model.includes("int8") ? " int8" : ""}`;
}
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
  add("without teacher", twinOf(i));
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
