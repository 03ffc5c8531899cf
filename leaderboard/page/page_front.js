// Fronts of cost (less is better) against quality (more is better). Those of whole groups come with the data, one digit a
// row; what a reader's filter leaves has fronts of its own, which nobody can know before, and `dominance` finds them.
"use strict";

const VERDICTS = [undefined, "no", "maybe", "sure"]; // by the intervals: on the front or not
const digit = (i, cost, quality) => Number(DATA.fronts[`${quality}|${cost}`]?.[i] ?? 0);
const onBoth = (indices, cost, quality) => indices.filter((i) => figure(cost, i) !== null && figure(quality, i) !== null && !isImported(i));
// The ends between which a figure may lie: its interval, never narrower than what counts as a tie (ties.py).
function span(name, i) {
  const value = figure(name, i), bounds = interval(name, i) || [value, value];
  const half = (FIGURES[name].resolution || 0) / 2, factor = Math.sqrt(1 + (FIGURES[name].tolerance || 0));
  return [Math.min(bounds[0], (value - half) / factor), Math.max(bounds[1], (value + half) * factor)];
}
// Whether `j` is better than `i` by more than a tie.
function isBetter(name, j, i) {
  const a = figure(name, j), b = figure(name, i), epsilon = FIGURES[name].resolution || 0, tolerance = FIGURES[name].tolerance || 0;
  return FIGURES[name].better > 0 ? a > b + epsilon : a < b / (1 + tolerance);
}

// The front of some rows by their figures, by rising cost, and of each row how sure it is. `isWhole`: they are a group.
function frontOf(indices, cost, quality, isWhole) {
  const known = onBoth(indices, cost, quality).sort((a, b) => figure(cost, a) - figure(cost, b) || figure(quality, b) - figure(quality, a));
  if (isWhole) return { front: known.filter((i) => digit(i, cost, quality) >= 4), verdicts: new Map(known.map((i) => [i, VERDICTS[digit(i, cost, quality) % 4]])) };
  const exact = dominance(known, (i) => figure(cost, i), (i) => figure(quality, i));
  return { front: known.filter((i) => !exact(i, figure(cost, i), figure(quality, i))), verdicts: verdictsOf(known, cost, quality) };
}

// "sure": no row at its best dominates this one at its worst; "no": some row at its worst dominates this one at its best.
function verdictsOf(known, cost, quality) {
  const ends = new Map(known.map((i) => [i, { cost: span(cost, i), quality: span(quality, i) }]));
  const atBest = dominance(known, (i) => ends.get(i).cost[0], (i) => ends.get(i).quality[1]);
  const atWorst = dominance(known, (i) => ends.get(i).cost[1], (i) => ends.get(i).quality[0]);
  return new Map(known.map((i) => {
    const { cost: [low, high], quality: [least, most] } = ends.get(i);
    return [i, atWorst(i, low, most) ? "no" : atBest(i, high, least) ? "maybe" : "sure"];
  }));
}
// Gives a function that says whether another row than `i` is no worse than this cost and quality on both and better on one:
// the rows by cost, with the two highest qualities so far, so that a row is never compared with itself.
function dominance(known, costOf, qualityOf) {
  const order = [...known].sort((a, b) => costOf(a) - costOf(b)), costs = order.map(costOf);
  const tops = [[-1, -1]];
  const high = (i) => (i < 0 ? -Infinity : qualityOf(i));
  for (const i of order) {
    const [first, second] = tops.at(-1);
    tops.push(high(i) > high(first) ? [i, first] : high(i) > high(second) ? [first, i] : [first, second]);
  }
  const best = (count, but) => { const [first, second] = tops[count]; return high(first === but ? second : first); };
  const count = (passes) => { let low = 0, up = costs.length; while (low < up) { const middle = (low + up) >> 1; if (passes(costs[middle])) low = middle + 1; else up = middle; } return low; };
  return (i, cost, quality) => best(count((one) => one < cost), i) >= quality || best(count((one) => one <= cost), i) > quality;
}

// The stair that the front could fall to if every row stood at the lower end of its interval.
function floorOf(indices, cost, quality) {
  const known = onBoth(indices, cost, quality).sort((a, b) => figure(cost, a) - figure(cost, b));
  const low = (i) => span(quality, i)[0], isDominated = dominance(known, (i) => figure(cost, i), low);
  return known.filter((i) => !isDominated(i, figure(cost, i), low(i))).map((i) => [figure(cost, i), low(i)]);
}

// The rows that dominate `i`: no worse on both and better on one by more than a tie; the best of them first.
function beatersOf(i, indices, cost, quality) {
  const c = figure(cost, i), q = figure(quality, i);
  if (c === null || q === null) return [];
  const better = onBoth(indices, cost, quality).filter((j) => j !== i && figure(cost, j) <= c && figure(quality, j) >= q && (isBetter(cost, j, i) || isBetter(quality, j, i)));
  const isOn = (j) => digit(j, cost, quality) >= 4;
  return better.sort((a, b) => isOn(b) - isOn(a) || figure(quality, b) - figure(quality, a) || figure(cost, a) - figure(cost, b));
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
