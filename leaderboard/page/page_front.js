// Fronts of cost (less is better) against quality (more is better), how sure they are, and who beats a row.
"use strict";

const onBoth = (indices, cost, quality) => indices.filter((i) => figure(cost, i) !== null && figure(quality, i) !== null && !isImported(i));
// The ends between which a figure may lie: its interval, never narrower than what counts as a tie (ties.py).
function span(name, i) {
  const value = figure(name, i), bounds = interval(name, i) || [value, value];
  const half = (DATA.ties.resolutions[name] || 0) / 2, factor = Math.sqrt(1 + (DATA.ties.tolerances[name] || 0));
  return [Math.min(bounds[0], (value - half) / factor), Math.max(bounds[1], (value + half) * factor)];
}
// Whether `j` is better than `i` by more than a tie.
function isBetter(name, j, i) {
  const a = figure(name, j), b = figure(name, i), epsilon = DATA.ties.resolutions[name] || 0, tolerance = DATA.ties.tolerances[name] || 0;
  return FIGURES[name].better > 0 ? a > b + epsilon : a < b / (1 + tolerance);
}

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

// "sure": no row at its best dominates this one at its worst; "no": some row at its worst dominates this one at its best.
// pareto.front_with_intervals says the same of all rows; here they are those that the filter leaves.
function verdictsOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality);
  const ends = new Map(known.map((i) => [i, { cost: span(cost, i), quality: span(quality, i) }]));
  const atBest = stepsOf(known, (i) => ends.get(i).cost[0], (i) => ends.get(i).quality[1]);
  const atWorst = stepsOf(known, (i) => ends.get(i).cost[1], (i) => ends.get(i).quality[0]);
  const verdicts = new Map();
  for (const i of known) {
    const { cost: [low, high], quality: [least, most] } = ends.get(i);
    verdicts.set(i, atWorst.beats(i, low, most) ? "no" : atBest.beats(i, high, least) ? "maybe" : "sure");
  }
  return verdicts;
}
// Rows by cost with the two highest qualities so far, so that a row is never compared with itself.
function stepsOf(known, costOf, qualityOf) {
  const order = [...known].sort((a, b) => costOf(a) - costOf(b)), costs = order.map(costOf);
  const tops = [[-1, -1]];
  const high = (i) => (i < 0 ? -Infinity : qualityOf(i));
  for (const i of order) {
    const [first, second] = tops.at(-1);
    tops.push(high(i) > high(first) ? [i, first] : high(i) > high(second) ? [first, i] : [first, second]);
  }
  const best = (count, but) => { const [first, second] = tops[count]; return high(first === but ? second : first); };
  const count = (passes) => { let low = 0, up = costs.length; while (low < up) { const middle = (low + up) >> 1; if (passes(costs[middle])) low = middle + 1; else up = middle; } return low; };
  // Whether another row is no worse than this cost and quality on both and better on one.
  return { beats: (i, cost, quality) => best(count((one) => one < cost), i) >= quality || best(count((one) => one <= cost), i) > quality };
}

// The stair that the front could fall to if every row stood at the lower end of its interval.
function floorOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality).sort((a, b) => figure(cost, a) - figure(cost, b) || span(quality, b)[0] - span(quality, a)[0]);
  const floor = [];
  for (const i of known) if (!floor.length || span(quality, i)[0] > floor.at(-1)[1]) floor.push([figure(cost, i), span(quality, i)[0]]);
  return floor;
}

// The rows that dominate `i`: no worse on both and better on one by more than a tie; the best of them first.
function beatersOf(i, indices, cost, quality) {
  const c = figure(cost, i), q = figure(quality, i);
  if (c === null || q === null) return [];
  const better = onBoth(indices, cost, quality).filter((j) => j !== i && figure(cost, j) <= c && figure(quality, j) >= q && (isBetter(cost, j, i) || isBetter(quality, j, i)));
  const front = new Set(frontOf(better, cost, quality));
  return better.sort((a, b) => front.has(b) - front.has(a) || figure(quality, b) - figure(quality, a) || figure(cost, a) - figure(cost, b));
}
const peersOf = (i) => Array.from({ length: NUM }, (_, j) => j).filter((j) => PLACES[j] === PLACES[i] && RIGS[j] === RIGS[i] && isImported(j) === isImported(i));

// The best student of a group and the best teacher there, as `best.py` chose them when the page was made.
const headlineOf = (group) => DATA.headlines.find(([student]) => group.includes(student));

// The paired test of `b` less `a` on the same test images, or undefined where the two were not tested.
function testOf(a, b, quality) {
  const [first, second] = [a, b].map((i) => DATA.files[i] ?? -1);
  if (first < 0 || second < 0) return undefined;
  if (first === second) return { verdict: "equivalent", isSame: true };
  const found = DATA.pairs[`${Math.min(first, second)},${Math.max(first, second)}`]?.[quality];
  if (!found) return undefined;
  const [verdict, difference, low, high, p, margin] = found; // of the file of the lower number less the other
  if (first > second) return { verdict, difference, low, high, p, margin };
  const turned = { gained: "lost", lost: "gained" }[verdict] || verdict;
  const less = (value) => (value === null ? null : -value);
  return { verdict: turned, difference: less(difference), low: less(high), high: less(low), p, margin };
}
const VERDICT_CLASS = { gained: "better", lost: "worse" };
function testWords(test) {
  if (!test) return "not tested";
  if (test.isSame) return "the same file";
  const bounds = test.low === null ? "" : ` [${signed(test.low)}, ${signed(test.high)}]`;
  return `${test.verdict}${test.verdict === "equivalent" ? ` within ${test.margin}` : ""}${bounds}${test.p === null ? "" : `, ${pWords(test.p)}`}`;
}
