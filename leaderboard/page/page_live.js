// A page that is served follows its board: it loads again, its view kept in the link, when rows came in, and shows what a
// run is doing.
"use strict";

const spoken = (seconds) => (seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

function drawRun({ recipe, tasks, stages }) {
  const card = byId("run");
  card.hidden = !tasks;
  if (!tasks) return;
  const count = (state) => stages.filter(([, one]) => one === state).length;
  const left = count("waiting");
  const wasOpen = card.querySelector("details")?.open ?? false, curves = card.querySelector(".learning") ?? node("div", { class: "learning" });
  card.replaceChildren(
    node("h2", {}, `A run goes on${recipe ? `: ${recipe}` : ""}`),
    node("p", { class: "quiet" }, `stages: ${count("done")} finished${left ? `, ${left} waiting` : ""}`),
    ...tasks.map(({ text, done, total, seconds, left }) => node("p", {}, node("progress", { value: done, max: total, "aria-label": text }), ` ${text}: ${done} of ${total}, ${spoken(seconds)}${left === null ? "" : `, about ${spoken(left)} left`}`)),
    curves,
    node("details", wasOpen ? { open: "" } : {}, node("summary", {}, "Stages"), node("ol", { class: "stages" }, ...stages.map(([title, state]) => node("li", {}, `${title}: ${state}`)))),
  );
}

// The epochs so far of the trainings that go on, at most so many of them.
const MOST_LEARNING = 4;
function drawLearning(trainings) {
  const shown = trainings.slice(-MOST_LEARNING), held = byId("run").querySelector(".learning");
  held?.replaceChildren(
    ...shown.map((one) => node("section", {}, node("h3", {}, one.title), node("p", { class: "quiet" }, `after ${one.epoch.at(-1)} epoch${one.epoch.at(-1) === 1 ? "" : "s"}`), node("div", { class: "curves" }, learningCharts(one)))),
    ...(trainings.length > shown.length ? [node("p", { class: "hint" }, `${shown.length} of ${trainings.length} trainings that go on.`)] : []),
  );
}

function follow() {
  const source = new EventSource("events"), before = byId("summary").textContent;
  source.addEventListener("version", (event) => { byId("summary").textContent = before; if (event.data !== DATA.live) location.reload(); });
  source.addEventListener("run", (event) => drawRun(JSON.parse(event.data)));
  source.addEventListener("learning", (event) => drawLearning(JSON.parse(event.data)));
  source.addEventListener("error", () => { byId("summary").textContent = "The server does not answer; this is the last state it showed."; });
}
