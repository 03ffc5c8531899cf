// The one rule for the best student (best.py, `choose`) among those that a reader's budget leaves. The candidates, and what
// paired tests on validation images say of any two of them, come with the data.
"use strict";

const SIZE_TOLERANCE = 0.01; // two files of one architecture and scheme differ by some bytes of names and scales
const DECIMALS = 1e-9; // .964 and .954 are .01 apart, whatever the last bit says

// Gives the place in the ballot of the best of `among`, places in it; -1 where that is empty.
function chooseBest(ballot, among) {
  if (!among.length) return -1;
  const isIn = new Set(among), { quality, margin, control, gained } = ballot;
  const competes = (place) => {
    const other = control[place];
    if (other < 0 || !isIn.has(other)) return true;
    return gained[place] === null ? quality[place] - quality[other] > margin + DECIMALS : gained[place];
  };
  const everyone = among.filter(competes), top = Math.max(...everyone.map((place) => quality[place]));
  const best = cheapest(ballot, everyone.filter((place) => quality[place] === top))[0];
  const kept = everyone.filter((place) => {
    if (place === best) return true;
    const verdict = equivalent(ballot, place, best);
    return verdict === null ? top - quality[place] <= margin + DECIMALS : verdict;
  });
  return cheapest(ballot, kept)[0];
}
// Whether a test says that two candidates are equivalent; null where the two were not tested.
function equivalent({ tested, equal }, a, b) {
  const [low, high] = [Math.min(a, b), Math.max(a, b)];
  const sign = high < tested ? equal[low * tested + high] : "-";
  return sign === "-" ? null : sign === "1";
}
// Candidates that are as good as each other, the one to take first: fewest bytes, then lowest latency, then the control.
function cheapest({ size, low, high, distilled, quality }, places) {
  let left = places;
  const sizes = left.map((place) => size[place]).filter((one) => one !== null);
  if (sizes.length) { const small = Math.min(...sizes) * (1 + SIZE_TOLERANCE); left = left.filter((place) => size[place] !== null && size[place] <= small); }
  const timed = left.filter((place) => low[place] !== null);
  if (timed.length) {
    const quickest = timed.reduce((a, b) => (low[b] + high[b] < low[a] + high[a] ? b : a));
    left = timed.filter((place) => low[place] <= high[quickest]);
  }
  return [...left].sort((a, b) => distilled[a] - distilled[b] || quality[b] - quality[a] || a - b);
}
