// Fronts of cost (less is better) against quality (more is better), how sure they are, and who beats a row.
"use strict";

const onBoth = (indices, cost, quality) => indices.filter((i) => figure(cost, i) !== null && figure(quality, i) !== null && !isImported(i));
const span = (quality, i) => interval(quality, i) || [figure(quality, i), figure(quality, i)];

// Sort by cost and keep what raises the best so far; equal rows are on the front together.
function frontOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality);
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

// "sure": no row at its best beats this one at its worst; "no": some row at its worst beats this one at its best.
function verdictsOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality).sort((a, b) => figure(cost, a) - figure(cost, b));
  const verdicts = new Map();
  let high = -Infinity, low = -Infinity; // the best upper and lower ends among strictly cheaper rows
  for (let start = 0; start < known.length; ) {
    let end = start;
    while (end < known.length && figure(cost, known[end]) === figure(cost, known[start])) end++;
    const tied = known.slice(start, end), spans = tied.map((i) => span(quality, i));
    const highs = topTwo(spans.map(([, hi]) => hi)), lows = topTwo(spans.map(([lo]) => lo));
    tied.forEach((i, n) => {
      const [lo, hi] = spans[n];
      const isOut = low >= hi || lows.without(lo) > hi, isDoubted = high >= lo || highs.without(hi) > lo;
      verdicts.set(i, isOut ? "no" : isDoubted ? "maybe" : "sure");
    });
    high = Math.max(high, highs.first);
    low = Math.max(low, lows.first);
    start = end;
  }
  return verdicts;
}
function topTwo(values) {
  let first = -Infinity, second = -Infinity;
  for (const value of values) if (value > first) { second = first; first = value; } else if (value > second) second = value;
  return { first, without: (value) => (value === first ? second : first) };
}

// The stair that the front could fall to if every row stood at the lower end of its interval.
function floorOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality).sort((a, b) => figure(cost, a) - figure(cost, b) || span(quality, b)[0] - span(quality, a)[0]);
  const floor = [];
  for (const i of known) if (!floor.length || span(quality, i)[0] > floor.at(-1)[1]) floor.push([figure(cost, i), span(quality, i)[0]]);
  return floor;
}

// The rows that are no worse than `i` on both and better on one, the best of them first.
function beatersOf(i, indices, cost, quality) {
  const c = figure(cost, i), q = figure(quality, i);
  if (c === null || q === null) return [];
  const better = onBoth(indices, cost, quality).filter((j) => j !== i && figure(cost, j) <= c && figure(quality, j) >= q && (figure(cost, j) < c || figure(quality, j) > q));
  const front = new Set(frontOf(better, cost, quality));
  return better.sort((a, b) => front.has(b) - front.has(a) || figure(quality, b) - figure(quality, a) || figure(cost, a) - figure(cost, b));
}
const peersOf = (i) => Array.from({ length: NUM }, (_, j) => j).filter((j) => PLACES[j] === PLACES[i] && RIGS[j] === RIGS[i] && isImported(j) === isImported(i));

// The student that validation data choose (to three digits; of equals the smallest, at int8: best.py), and the best teacher.
function champions(group, quality) {
  const ours = group.filter((i) => !isImported(i) && figure(quality, i) !== null);
  const validated = (i) => DATA.details[i]?.validation?.[quality] ?? null;
  const pick = (role) => {
    const all = ours.filter((i) => text("role", i) === role);
    const plain = all.filter((i) => !isInt8(i));
    const some = role === "teacher" && plain.length ? plain : all; // a teacher taught as it was trained, not as int8
    const isValidated = some.length > 0 && some.every((i) => validated(i) !== null);
    const exact = (i) => (isValidated ? validated(i) : figure(quality, i));
    const score = (i) => Number(exact(i).toFixed(3));
    const params = (i) => figure("params", i) ?? Number.MAX_VALUE;
    const order = (a, b) => score(b) - score(a) || params(a) - params(b) || isInt8(b) - isInt8(a) || exact(b) - exact(a);
    return { best: some.sort(order)[0], isValidated };
  };
  return { student: pick("student"), teacher: pick("teacher") };
}
