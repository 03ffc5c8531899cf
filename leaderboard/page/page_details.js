// What a run left in a row's `details`: what people compare first is shown, the rest opens on demand.
"use strict";

const FOREMOST = ["per_class", "explained", "explanation", "against_teachers", "confusion"];
const WORDED = { per_class: "Per class", explained: "Where it looks", explanation: "How far the explanations can be trusted", against_teachers: "Against its teachers", confusion: "Confusion (rows: truth)" };
const SHOWN_ABOVE = ["gain_over_control", "gain_over_twin", "curves", "made", "layers"]; // its figures stand among the row's facts

function detailBlocks(details) {
  const isEmpty = (value) => value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);
  const names = Object.keys(details).filter((name) => !isEmpty(details[name]) && !SHOWN_ABOVE.includes(name));
  const blocks = FOREMOST.filter((name) => names.includes(name)).flatMap((name) => { const block = name === "explanation" ? explanationBlock(details[name]) : (name === "confusion" && confusionTable(details)) || detailBlock(details[name]); return block ? [node("h3", {}, WORDED[name]), block] : []; });
  const rest = names.filter((name) => !FOREMOST.includes(name));
  if (!rest.length) return blocks;
  const more = node("details", { class: "rest" }, node("summary", {}, "More of this row"));
  const list = node("dl", { class: "facts" });
  for (const name of rest.filter((one) => typeof details[one] !== "object")) list.append(node("dt", {}, name.replace(/_/g, " ")), node("dd", {}, plainValue(details[name])));
  if (list.childElementCount) more.append(list);
  for (const name of rest.filter((one) => typeof details[one] === "object")) more.append(node("h3", {}, name.replace(/_/g, " ")), detailBlock(details[name]));
  return [...blocks, more];
}
// The classes of a row in their order: { name, auc, ... }.
function classesOf(details) {
  const found = details?.per_class;
  return Array.isArray(found) ? found.map((one) => ({ ...(one && typeof one === "object" ? one : {}), name: String(one?.name ?? "") })) : [];
}
// Figures of explanations stand with their names and what they mean; one that no column names is not shown.
function explanationBlock(found) {
  const list = node("dl", { class: "facts meant" });
  for (const [name, value] of Object.entries(found)) {
    const about = COLUMNS[`explained_${name}`];
    if (about && value !== null) list.append(node("dt", {}, about.label.replace(/^explanation: /, "")), node("dd", {}, plainValue(value), node("span", { class: "meaning" }, ` ${about.help}`)));
  }
  return list.childElementCount ? list : null;
}
const isPicture = (value) => typeof value === "string" && /^data:image\/(png|jpeg|webp);base64,/.test(value);
function detailBlock(value) {
  if (isPicture(value)) return node("div", { class: "images" }, node("img", { src: value, alt: "sample explanation" }));
  if (Array.isArray(value) && value.length && value.every((one) => one && typeof one === "object" && !Array.isArray(one))) {
    if (value.some((one) => Object.values(one).some(isPicture))) return node("div", { class: "images" }, value.map(pictured));
    return recordTable(value);
  }
  if (value && typeof value === "object" && !Array.isArray(value)) {
    const inner = Object.values(value);
    if (inner.every((one) => one && typeof one === "object" && !Array.isArray(one)))
      return recordTable(Object.entries(value).map(([name, one]) => ({ name, ...one })));
    const list = node("dl", { class: "facts" });
    for (const [name, one] of Object.entries(value)) list.append(node("dt", {}, name.replace(/_/g, " ")), node("dd", {}, plainValue(one)));
    return list;
  }
  if (Array.isArray(value) && value.length && value.every(Array.isArray)) return matrix(value);
  return node("p", {}, plainValue(value));
}
function matrix(value) {
  return node("table", { class: "matrix" }, node("tbody", {}, value.map((row) => node("tr", {}, row.map((one) => node("td", { class: "figure" }, plainValue(one)))))));
}
function pictured(record) {
  const [, source] = Object.entries(record).find(([, value]) => isPicture(value)) || [];
  const words = Object.entries(record).filter(([, value]) => !isPicture(value)).map(([name, value]) => `${name} ${plainValue(value)}`).join(", ");
  return node("figure", {}, source ? node("img", { src: source, alt: words }) : null, node("figcaption", {}, words));
}
const MOST_RECORDS = 100;
function recordTable(records) {
  const names = [...new Set(records.flatMap(Object.keys))];
  const rows = records.slice(0, MOST_RECORDS).map((record) => node("tr", {}, names.map((name) => node("td", { class: typeof record[name] === "number" ? "figure" : null, "data-label": name.replace(/_/g, " ") }, plainValue(record[name])))));
  const table = node("table", { class: "records" }, node("thead", {}, node("tr", {}, names.map((name) => node("th", { scope: "col", class: typeof records[0][name] === "number" ? "figure" : null }, name.replace(/_/g, " "))))), node("tbody", {}, rows));
  return records.length > MOST_RECORDS ? node("div", {}, table, node("p", { class: "hint" }, `The first ${MOST_RECORDS} of ${records.length.toLocaleString("en")}.`)) : table;
}
function plainValue(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en") : threeDigits(value);
  if (Array.isArray(value)) return value.length > 40 ? `${value.slice(0, 40).map(plainValue).join(", ")} …` : value.map(plainValue).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
