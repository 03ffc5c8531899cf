// A page for one row, at #row=ID: what made it, its figures, curves, confusion, images, what beats it, and its files.
"use strict";

const rowAddress = (i) => `#row=${encodeURIComponent(text("row_id", i))}`;
const rowLink = (i, words) => node("a", { href: rowAddress(i) }, words);
const ROW_OF_ID = new Map();
for (let i = 0; i < NUM; i++) ROW_OF_ID.set(text("row_id", i), i);
// A row by its id or the beginning of it that no other has; -1 where there is none.
function rowOf(id) {
  if (!id) return -1;
  if (ROW_OF_ID.has(id)) return ROW_OF_ID.get(id);
  const found = [...ROW_OF_ID].filter(([one]) => one.startsWith(id.toLowerCase()));
  return found.length === 1 ? found[0][1] : -1;
}

function drawRow(state, hooks) {
  const section = byId("row-page"), isOn = Boolean(state.row);
  section.hidden = !isOn;
  document.body.classList.toggle("one-row", isOn);
  if (!isOn) return section.replaceChildren();
  const i = rowOf(state.row), back = node("a", { href: hooks.board(), class: "back no-print" }, "← All rows");
  if (i < 0) {
    section.replaceChildren(back, node("h2", { id: "row-heading", tabindex: "-1" }, "No such row"), node("p", {}, `This page holds no row ${state.row}: it may be superseded, retracted or outside of what the page shows. `, node("code", {}, "tutelage leaderboard show --all"), " lists every row."));
    document.title = `No such row · ${BASE_TITLE}`;
    return;
  }
  document.title = `${title(i)} · ${BASE_TITLE}`;
  const pin = node("button", { type: "button", class: "ghost no-print" }, state.pins.includes(i) ? "Unpin" : "Pin to compare");
  pin.addEventListener("click", () => hooks.pin(i));
  const parts = [madePart(i), figuresPart(i), beatenPart(i, state), learningPart(i), rocPart(i), confusionPart(i), imagesPart(i), layersPart(i), archPart(i), decidedPart(i), familyPart(i), filesPart(i)].filter(Boolean);
  section.replaceChildren(
    back,
    node("header", { class: "row-head" }, node("div", {}, node("h2", { id: "row-heading", tabindex: "-1" }, title(i)), node("p", { class: "quiet" }, [kindWords(i), PLACES[i], rigOf(i)].filter(Boolean).join(" · "))), pin),
    node("div", { class: "row-parts" }, parts.map(({ name, body, wide }) => node("section", { class: `card row-part${wide ? " wide" : ""}`, "aria-label": name }, node("h3", {}, name), body))),
  );
}
const kindWords = (i) => [KINDS[kindOf(i)], text("teacher", i) ? `from ${text("teacher", i)}` : "", text("scheme", i)].filter(Boolean).join(" · ");
// One line that says what would fill an empty part; `words` between backticks are typed as they stand.
const missing = (words, ...more) => [node("p", { class: "hint" }, words.split("`").map((part, n) => (n % 2 ? node("code", {}, part) : part)), ...more)];
const detailsOf = (i) => DATA.details[i] ?? {};
// Why this page lacks what a run leaves in a row's details.
function lacking(i, what) {
  if (!DATA.details[i] && DATA.detailed < NUM && !isImported(i)) return missing(`Not on this page, which holds the details of ${DATA.detailed.toLocaleString("en")} rows; \`tutelage leaderboard build --filter row_id=${text("row_id", i)}\` makes one that does.`);
  return missing(isImported(i) ? "The imported file does not hold it." : what);
}

// A command with a button that copies it; where the browser does not let it, the command is selected.
function command(words) {
  const code = node("code", {}, words), button = node("button", { type: "button", class: "small no-print", "aria-label": `Copy ${words}` }, "Copy");
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(words); button.textContent = "Copied"; announce("copied"); }
    catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; announce("selected, copy it by your keys"); }
  });
  return node("span", { class: "command" }, code, button);
}
const id8 = (i) => text("row_id", i).slice(0, 8);

function madePart(i) {
  const details = detailsOf(i), list = node("dl", { class: "facts" });
  const add = (what, value) => { if (value) list.append(node("dt", {}, what), node("dd", {}, value)); };
  if (isImported(i)) add("source", `imported${details.imported_from ? ` from ${details.imported_from}` : ""}, not measured here`);
  else add("again", command(`tutelage reproduce ${id8(i)}`));
  // What others say made a row is not put on the clipboard.
  if (details.made?.command) add("command", (isImported(i) ? (words) => node("code", {}, words) : command)(details.made.command));
  for (const [what, name] of [["recipe", "recipe"], ["starts from", "start"], ["trained on", "accelerator"], ["data set", "dataset"], ["split", "split"], ["data hash", "manifest"]]) add(what, text(name, i));
  for (const [what, name] of [["epochs", "epochs"], ["seed", "seed"], ["fold", "fold"], ["image size", "image_size"]]) if (figure(name, i) !== null) add(what, show(name, figure(name, i), true));
  add("device", [text("device", i), text("processor", i)].filter(Boolean).join(", "));
  add("runtime", [text("runtime", i), text("runtime_version", i), text("precision", i)].filter(Boolean).join(" "));
  add("measured at", [figure("batch", i) !== null ? `batch ${figure("batch", i)}` : "", figure("threads", i) !== null ? `${figure("threads", i)} thread${figure("threads", i) === 1 ? "" : "s"}` : "", text("power_state", i)].filter(Boolean).join(", "));
  add("commit", typeof details.commit === "string" ? details.commit : "");
  add("versions", Object.entries(details.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", "));
  add("filed", text("created", i).replace("T", " ").replace("Z", " UTC"));
  add("id", text("row_id", i));
  for (const note of Array.isArray(details.notes) ? details.notes : []) add("note", String(note));
  const halt = DATA.halts[i] ?? (text("failed", i) ? ["failed", text("failed", i)] : null);
  if (halt) add(halt[0], halt[1]);
  return { name: "What made it", body: list };
}

function figuresPart(i) {
  const rows = FACTS.filter((name) => figure(name, i) !== null).map((name) => {
    const bounds = interval(name, i);
    return node("tr", {}, node("th", { scope: "row", title: hint(name) }, heading(name)), node("td", { class: "figure" }, show(name, figure(name, i), false, bounds)), node("td", { class: "figure interval" }, bounds ? `${show(name, bounds[0], false, bounds)} to ${show(name, bounds[1], false, bounds)}` : ""));
  });
  const words = Object.keys(DATA.written).filter((name) => written(name, i)).map((name) => node("p", {}, `${COLUMNS[name].label}: ${written(name, i)}`));
  return { name: "Figures", body: rows.length ? [node("table", {}, node("thead", {}, node("tr", {}, ["figure", "value", "95 % interval"].map((one, n) => node("th", { scope: "col", class: n ? "figure" : null }, one)))), node("tbody", {}, rows)), ...words] : missing("No figure is on file: the run that filed this row goes on, or was stopped.") };
}

// Which rows beat it in two figures at once, on the data and device that it shares with them.
function beatenPart(i, state) {
  const peers = peersOf(i), body = [];
  for (const quality of DATA.qualities.filter((name) => figure(name, i) !== null))
    for (const cost of COSTS.slice(0, 4).filter((name) => figure(name, i) !== null)) {
      const beaters = beatersOf(i, peers, cost, quality);
      const names = `${FIGURES[quality].label} and ${FIGURES[cost].label}`;
      if (!beaters.length) { body.push(node("li", {}, `${names}: none`)); continue; }
      body.push(node("li", {}, `${names}: `, beaters.slice(0, 3).flatMap((j, n) => [n ? ", " : "", rowLink(j, title(j)), ` (${show(quality, figure(quality, j))}, ${show(cost, figure(cost, j), true)})`]), beaters.length > 3 ? ` and ${beaters.length - 3} more` : ""));
    }
  return { name: "Rows that beat it", body: body.length ? [node("ul", { class: "beaten" }, body), node("p", { class: "hint" }, "No worse in both and better in one by more than a tie, of the same data and device.")] : missing("It has no quality and cost to be compared by.") };
}

function learningPart(i) {
  const found = detailsOf(i).curves?.learning;
  if (!found) return { name: "Learning curves", body: lacking(i, isInt8(i) ? "Not here: of an int8 file its network's training counts, whose workspace this page was not built in." : "No epochs are on file: runs of this version leave them in the workspace, and pages built there show them; trainings of earlier versions, by `tutelage run RECIPE --fresh`.") };
  return { name: "Learning curves", wide: true, body: node("div", { class: "curves" }, learningCharts(found)) };
}
// The curves of a training that were recorded: of validation, and of the losses.
function learningCharts(found) {
  const series = (names) => names.filter((name) => found[name]).map((name) => ({ name: { loss: "training loss", val_loss: "validation loss", val_accuracy: "accuracy", val_auc: "AUC" }[name], points: found.epoch.map((epoch, n) => [epoch, found[name][n]]).filter(([, value]) => value !== null) }));
  const charts = [["Validation", ["val_auc", "val_accuracy"], "validation"], ["Loss", ["loss", "val_loss"], "loss"]].map(([name, names, y]) => [name, series(names), y]).filter(([, some]) => some.some(({ points }) => points.length));
  return charts.map(([name, some, y]) => curveChart(name, some, { x: "epoch", y }));
}

function rocPart(i) {
  const { roc, calibration } = detailsOf(i).curves ?? {};
  if (!roc && !calibration) return { name: "ROC and calibration", body: lacking(i, "No predictions are here: pages built in the workspace of the run draw them from its test predictions.") };
  const charts = [];
  if (roc && Object.keys(roc).length) charts.push(curveChart("ROC on test images", Object.entries(roc).map(([name, [x, y]]) => ({ name, points: x.map((value, n) => [value, y[n]]) })), { x: "false positive rate", y: "true positive rate", range: [0, 1, 0, 1], diagonal: true }));
  if (calibration?.length) charts.push(curveChart("Calibration on test images", [{ name: "predicted class", points: calibration.map(([x, y]) => [x, y]), sizes: calibration.map(([, , n]) => n) }], { x: "confidence", y: "fraction right", range: [Math.min(0.5, ...calibration.map(([x]) => x)), 1, 0, 1], diagonal: true }));
  const ece = detailsOf(i).ece;
  return { name: "ROC and calibration", wide: true, body: [node("div", { class: "curves" }, charts), node("p", { class: "hint" }, `Dashed: chance, or perfect calibration. Dots are the larger the more images they hold.${typeof ece === "number" ? ` Expected calibration error ${ece.toFixed(3)}.` : ""}`)] };
}

// Classes have numbers where their names are too wide for the columns of a narrow screen; null without a matrix.
function confusionTable(details) {
  const counts = details.confusion, classes = classesOf(details), called = (n) => classes[n]?.name || `class ${n}`;
  if (!Array.isArray(counts) || !counts.length || !counts.every((row) => Array.isArray(row) && row.length === counts.length)) return null;
  const rows = counts.map((row, n) => {
    const total = row.reduce((sum, one) => sum + one, 0);
    const cells = row.map((one, k) => {
      const cell = node("td", { class: `figure${k === n ? " right" : ""}`, title: total ? `${((100 * one) / total).toFixed(1)} % of ${called(n)} predicted as ${called(k)}` : null }, one.toLocaleString("en"));
      cell.style.setProperty("--part", total ? one / total : 0);
      return cell;
    });
    return node("tr", {}, node("th", { scope: "row" }, node("span", { class: "class-number" }, `${n + 1} `), called(n)), cells);
  });
  const heads = counts.map((_, k) => node("th", { scope: "col", class: "figure", title: called(k) }, node("span", { class: "class-number" }, String(k + 1)), node("span", { class: "class-name" }, called(k))));
  return node("table", { class: `matrix confusion${counts.length > 3 ? " numbered" : ""}` }, node("caption", {}, "Rows: truth. Columns: predicted. Test images."), node("thead", {}, node("tr", {}, node("td"), heads)), node("tbody", {}, rows));
}

function confusionPart(i) {
  const matrix = confusionTable(detailsOf(i)), classes = classesOf(detailsOf(i)), body = [];
  if (matrix) body.push(node("div", { class: "sideways", tabindex: "0", role: "region", "aria-label": "Confusion matrix, scrolls sideways" }, matrix));
  if (classes.length) body.push(node("div", {}, node("h4", {}, "Per class"), node("div", { class: "sideways", tabindex: "0", role: "region", "aria-label": "Figures per class, scrolls sideways" }, detailBlock(classes))));
  if (body.length) return { name: "Confusion and classes", wide: true, body: node("div", { class: "beside" }, body) };
  return { name: "Confusion and classes", body: lacking(i, "No confusion matrix is on file: a run files it when it evaluates the row.") };
}

function imagesPart(i) {
  const parent = parentOf(i), own = detailsOf(i).explained, found = Array.isArray(own) && own.length ? own : parent === undefined ? [] : detailsOf(parent).explained ?? [];
  const pictures = (Array.isArray(found) ? found : []).filter((one) => isPicture(one?.map));
  if (!pictures.length) return { name: "Where it looks", body: lacking(i, "No images were explained: `explain: {images: 6}` in the recipe draws some.") };
  const images = [], hasPlain = pictures.some((one) => isPicture(one.image));
  const figures = pictures.map((one) => { const words = Object.entries(one).filter(([, value]) => !isPicture(value)).map(([name, value]) => `${name} ${plainValue(value)}`).join(", "), image = node("img", { src: one.map, alt: `${words}, with its map` }); images.push([image, one, words]); return node("figure", {}, image, node("figcaption", {}, words)); });
  const box = node("input", { type: "checkbox", id: "heat" });
  box.checked = true;
  box.addEventListener("change", () => { for (const [image, one, words] of images) { const isPlain = !box.checked && isPicture(one.image); image.src = isPlain ? one.image : one.map; image.alt = `${words}, ${isPlain ? "without" : "with"} its map`; } });
  const meant = detailsOf(i).explanation ? explanationBlock(detailsOf(i).explanation) : null;
  return { name: "Where it looks", wide: true, body: [found === own ? null : node("p", { class: "hint" }, "Maps of its fp32 network."), hasPlain ? node("label", { class: "check" }, box, "heat map over the image") : node("p", { class: "hint" }, "The images without their map are filed by runs of this version on."), node("div", { class: "images" }, figures), meant].filter(Boolean) };
}

const MOST_LAYERS = 40;

function layersPart(i) {
  const found = detailsOf(i).layers;
  const known = Array.isArray(found) ? found.filter((one) => one && typeof one.name === "string" && typeof one.ms === "number" && one.ms >= 0) : [];
  if (!known.length) return { name: "Time by layer", body: lacking(i, "Nothing measured it: a run times the whole file, `tutelage bench MODEL --device NAME --layers` prints each layer's. Times under `layers` in a row's details, as [{name, ms}], are drawn here.") };
  // In the order in which they run; the smallest of more than can be read are summed up.
  const least = known.length > MOST_LAYERS ? [...known].sort((a, b) => b.ms - a.ms)[MOST_LAYERS - 2].ms : 0, ms = (some) => some.reduce((sum, one) => sum + one.ms, 0);
  const drawn = known.filter((one) => one.ms >= least).slice(0, MOST_LAYERS - 1), rest = known.filter((one) => !drawn.includes(one));
  const pairs = drawn.map((one) => [one.note ? `${one.name} (${one.note})` : one.name, one.ms]);
  const notes = [...new Set(known.map((one) => one.note).filter(Boolean))].map((note) => { const some = known.filter((one) => one.note === note); return node("p", { class: "hint" }, `${some.length} ${some.length === 1 ? "layer" : "layers"} ${note}: ${threeDigits(ms(some))} of ${threeDigits(ms(known))} ms.`); });
  if (rest.length) notes.push(node("p", { class: "hint" }, `${rest.length} smaller layers: ${threeDigits(ms(rest))} ms.`));
  return { name: "Time by layer", wide: true, body: [bars(pairs, (value) => `${threeDigits(value)} ms`, "Time by layer"), ...notes] };
}

function archPart(i) {
  const arch = archOf(i);
  return { name: "Architecture", body: arch ? [node("p", { class: "hint" }, `${arch.space}, ${arch.r} px`), node("div", { class: "sideways" }, drawArch(arch))] : missing(`${text("model", i)} is of no search space: its library defines it.`) };
}

// What decided the figure that its search scored; of rows that no search chose there is no such part.
function decidedPart(i) {
  const { importances, scored } = detailsOf(i).search ?? {}, found = Object.entries(importances ?? {}).filter(([, value]) => typeof value === "number" && value >= 0);
  if (!found.length) return null;
  return { name: "What decided the search", wide: true, body: importanceBars(importances, String(scored ?? "score").replace(/_/g, " ")).slice(1) };
}

function familyPart(i) {
  const rows = relatives(i).map(([what, j]) => node("li", {}, `${what}: `, rowLink(j, title(j)), ` · ${[...DATA.qualities, COSTS[0]].filter((name) => figure(name, j) !== null).map((name) => `${FIGURES[name].label} ${show(name, figure(name, j), true)}`).join(" · ")}`));
  return { name: "Family", body: rows.length ? node("ul", { class: "beaten" }, rows) : missing("No teacher, control, fp32 or int8 file of it is on this page.") };
}

const bytesWords = (bytes) => (bytes < 1e6 ? `${threeDigits(bytes / 1e3)} kB` : `${threeDigits(bytes / 1e6)} MB`);

function filesPart(i) {
  const details = detailsOf(i), name = `row-${id8(i)}`;
  const download = (words, kind, content, file) => { const button = node("button", { type: "button", class: "small no-print" }, words); button.addEventListener("click", () => save(new Blob([content()], { type: kind }), file)); return button; };
  const figures = () => csvText([["column", "value", "unit"], ...USABLE.map((one) => [one, one in FIGURES ? figure(one, i) ?? "" : one in DATA.written ? written(one, i) : isFlag(one) ? Number(flag(one, i)) : text(one, i), FIGURES[one]?.stored ?? ""])]);
  const curves = () => {
    const { learning = {}, roc = {}, calibration = [], trials } = details.curves ?? {}, lines = [["curve", "name", "x", "y"]];
    for (const one of Object.keys(learning).filter((key) => key !== "epoch")) learning.epoch.forEach((epoch, n) => lines.push(["learning", one, epoch, learning[one][n] ?? ""]));
    for (const [one, [x, y]] of Object.entries(roc)) x.forEach((value, n) => lines.push(["roc", one, value, y[n]]));
    for (const [x, y] of calibration) lines.push(["calibration", "predicted class", x, y]);
    if (isTrials(trials)) for (const { name: cost, values } of trials.costs) values.forEach((value, n) => lines.push(["trials", cost, value ?? "", trials.scores[n] ?? ""]));
    return csvText(lines);
  };
  const buttons = [download("Figures, CSV", "text/csv", figures, `${name}.csv`)];
  if (details.curves) buttons.push(download("Curves, CSV", "text/csv", curves, `${name}-curves.csv`));
  if (DATA.details[i]) buttons.push(download("Details, JSON", "application/json", () => JSON.stringify(details, null, 1), `${name}.json`));
  // A served page offers the files that its server has; a page that is a file says how to come by them.
  const sizes = (DATA.live && details.made?.downloads) || {}, offered = ["model", "bundle"].filter((one) => typeof sizes[one] === "number" && (sizes[one] || !isImported(i)));
  for (const one of offered) buttons.push(node("a", { href: `rows/${encodeURIComponent(text("row_id", i))}/${one}`, class: "button small no-print" }, `${one === "model" ? "Model" : "Bundle, ZIP"}, ${sizes[one] ? bytesWords(sizes[one]) : "made when you ask for it, in a minute or more"}`));
  const list = node("dl", { class: "facts" }), file = isImported(i) ? "" : details.made?.file;
  if (!isImported(i) && !offered.includes("bundle")) list.append(node("dt", {}, "bundle"), node("dd", {}, command(`tutelage bundle make ${id8(i)} --out bundle`)));
  if (file && !offered.includes("model")) list.append(node("dt", {}, "model"), node("dd", {}, "in the workspace: ", command(`cp ${[file, ...(/\.(xml|param)$/.test(file) ? [file.replace(/\.\w+$/, ".bin")] : [])].join(" ")} .`)));
  return { name: "Downloads", body: [node("p", { class: "buttons" }, buttons), list.childElementCount ? list : offered.length ? null : missing("An imported row has no file here.")].flat() };
}
