// What the page is about and what came out: the title's facts, the best student, what distillation did.
"use strict";

// Data set, test images, device, dates and versions of the rows of a group; what no row says is left out.
function drawTitle(group, base) {
  const only = (values) => [...new Set(values.filter(Boolean))];
  const details = group.map((i) => DATA.details[i]).filter(Boolean), [first] = group;
  const images = only(details.map((one) => one.test_images)), days = only(group.map((i) => text("created", i).slice(0, 10))).sort();
  const runtimes = only(group.map((i) => [text("runtime", i), text("runtime_version", i)].filter(Boolean).join(" "))), processors = only(group.map((i) => text("processor", i)));
  const versions = new Map();
  for (const { versions: said } of details) for (const [name, version] of Object.entries(said || {})) versions.set(`${name} ${version}`, name);
  const parts = [
    `${PLACES[first]}${images.length ? `: ${images.map((one) => one.toLocaleString("en")).join(" or ")} test images` : ""}`,
    [rigOf(first), ...(processors.length ? [`(${processors.join(", ")})`] : [])].filter(Boolean).join(" "),
    runtimes.filter((one) => ![...versions.keys()].includes(one)).join(", "),
    days.length ? `filed ${days.length > 1 ? `${days[0]} to ${days.at(-1)}` : days[0]}` : "",
    [...versions.keys()].slice(0, 8).join(", "),
  ].filter(Boolean);
  byId("about").textContent = parts.join(" · ");
  document.title = [base, PLACES[first], rigOf(first)].filter(Boolean).join(" · ");
}

// The best student by validation against the best teacher, in one line, and why it is the best.
function drawHeadline(state, group, hooks) {
  const section = document.getElementById("headline");
  section.replaceChildren();
  const [b, a, warning] = headlineOf(group) || [-1, -1, ""];
  section.hidden = b < 0;
  if (b < 0) return;
  const both = node("button", { type: "button", class: "no-print" }, a < 0 ? "Pin it" : "Compare the two");
  both.addEventListener("click", () => hooks.pinBoth(a < 0 ? [b] : [a, b]));
  section.append(node("header", {}, node("p", {}, "Best student by validation: ", node("strong", {}, title(b)), a < 0 ? "" : " against teacher ", a < 0 ? "" : node("strong", {}, title(a))), both));
  if (warning) section.append(node("p", { class: "warning", role: "note" }, `Warning: ${warning}.`));
  section.append(node("div", { class: "tiles" }, headlineTiles(state.quality, a, b)));
  const distilled = distillationWords(group, b);
  if (distilled) section.append(node("p", {}, distilled));
  section.append(node("p", { class: "hint" }, `${reasonWords(b)}Of the students equivalent to the best on validation images: the smallest file, then the fastest, then the control before the distilled.`));
}

// Why not the student of the highest validation figure: it is equivalent, and costs more.
function reasonWords(b) {
  const ballot = DATA.ballots.find(({ rows }) => rows.includes(b));
  if (!ballot) return "";
  const mine = ballot.rows.indexOf(b), high = ballot.quality.indexOf(Math.max(...ballot.quality)), label = FIGURES[ballot.figure].label, other = ballot.rows[high];
  const words = `Chosen of ${ballot.rows.length} student${ballot.rows.length > 1 ? "s" : ""}. `;
  if (high === mine) return `${words}It has the highest validation ${label}, ${ballot.quality[mine].toFixed(4)}. `;
  const larger = ballot.size[mine] && ballot.size[high] ? ballot.size[high] / ballot.size[mine] : 1;
  const verdict = equivalent(ballot, mine, high), says = verdict === null ? "" : verdict ? `, equivalent within ${ballot.margin}` : ", but has not surely gained over its control";
  return `${words}The highest validation ${label} is ${title(other)}'s, ${ballot.quality[high].toFixed(4)} against ${ballot.quality[mine].toFixed(4)}${says}${larger > 1.01 ? `; its file is ${ratio(larger)} times the size` : ""}. `;
}

// What the teachers were worth, by the verdicts of the paired tests against the same networks without a teacher.
function distillationWords(group, b) {
  const counts = new Map();
  for (const i of group.filter((one) => text("role", one) === "student" && text("teacher", one))) {
    const verdict = verdictIn(written("gain", i));
    if (verdict) counts.set(verdict, (counts.get(verdict) || 0) + 1);
  }
  const total = [...counts.values()].reduce((x, y) => x + y, 0);
  if (!total) return "";
  const parts = { gained: "gained over", equivalent: "are equivalent to", lost: "lost against", inconclusive: "show no evidence either way against" };
  const said = Object.entries(parts).filter(([verdict]) => counts.has(verdict)).map(([verdict, words]) => `${counts.get(verdict)} ${words}`);
  const best = text("teacher", b) ? "" : " The best student is such a control: it was trained without a teacher.";
  return `What distillation did: of ${total} distilled files ${said.join(", ")} the same network trained without a teacher.${best}`;
}

function headlineTiles(quality, a, b) {
  const tiles = [];
  const tile = (big, what, small, kind = "") => tiles.push(node("div", { class: `tile ${kind}` }, node("b", {}, big), node("span", { class: "what" }, what), node("span", { class: "small" }, small)));
  const va = a < 0 ? null : figure(quality, a), vb = figure(quality, b), bounds = interval(quality, b);
  const mine = show(quality, vb, false, bounds);
  if (vb !== null && va === null) tile(mine, FIGURES[quality].label, bounds ? `${show(quality, bounds[0], false, bounds)} to ${show(quality, bounds[1], false, bounds)}` : "");
  else if (vb !== null) {
    const test = testOf(a, b, quality);
    tile(signed(vb - va), FIGURES[quality].label, `${mine} against ${show(quality, va, false, interval(quality, a))}; ${testWords(test)}`, VERDICT_CLASS[test?.verdict] || "");
  }
  for (const [name, { less: [less, more] }] of Object.entries(FIGURES).filter(([, one]) => one.less)) {
    const own = figure(name, b), theirs = a < 0 ? null : figure(name, a);
    if (own === null) continue;
    const said = show(name, own, true, interval(name, b));
    if (theirs === null) tile(said, FIGURES[name].label, "");
    else if (isTie(name, a, b)) tile("same", FIGURES[name].label, `${said} against ${show(name, theirs, true)}`);
    else tile(`${ratio(Math.max(own, theirs) / Math.min(own, theirs))}×`, own < theirs ? less : more, `${said} against ${show(name, theirs, true, interval(name, a))}`, own < theirs ? "better" : "worse");
  }
  for (const name of Object.keys(DATA.written)) if (written(name, b)) tile(verdictIn(written(name, b)), COLUMNS[name].label, written(name, b), VERDICT_CLASS[verdictIn(written(name, b))]);
  return tiles;
}
const ratio = (value) => (value >= 10 ? String(Math.round(value)) : value.toFixed(1));
