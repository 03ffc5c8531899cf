// Zooming and moving a chart: wheel, drag, two fingers, keys; what a pointer does elsewhere on the page stays as it is.
"use strict";

let lastScroll = -Infinity;
addEventListener("scroll", () => { lastScroll = performance.now(); }, { passive: true });
const ZOOM_STEP = 1.25, PAN_STEP = 0.15, DRAG_FROM = 4;

// `chart` has `svg`, `range`, `whole`, `isLog`, `fractionAt(x, y)` of the panel, `see(range or null)`.
function addGestures(chart) {
  const { svg } = chart, pointers = new Map();
  let start = null, next = null, wasDragged = false;
  const see = (range) => { if (next === null) requestAnimationFrame(() => { const wanted = next; next = null; chart.see(wanted); }); next = range; };
  const zoom = (factor, at = [0.5, 0.5], from = chart.range) => zoomed(from, chart.whole, chart.isLog, factor, at);
  const isSame = (a, b) => ["x", "y"].every((axis) => a[axis].every((end, n) => Math.abs(end - b[axis][n]) < 1e-9 * Math.max(1, Math.abs(end))));

  svg.addEventListener("wheel", (event) => {
    if (!chart.range || performance.now() - lastScroll < 250) return; // the page is being scrolled past
    const wanted = zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), chart.fractionAt(event.clientX, event.clientY));
    if (isSame(wanted, chart.range)) return; // nothing more to see: scroll on
    event.preventDefault();
    see(wanted);
  }, { passive: false });
  const centre = () => { const all = [...pointers.values()]; return [0, 1].map((k) => all.reduce((sum, spot) => sum + spot[k], 0) / all.length); };
  const spread = () => { const [a, b] = [...pointers.values()]; return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0; };
  const begin = () => { start = pointers.size ? { range: chart.range, at: centre(), spread: spread() } : null; };
  svg.addEventListener("pointerdown", (event) => {
    if (!chart.range || (event.pointerType === "mouse" && event.button !== 0)) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 1) wasDragged = false;
    begin();
  });
  svg.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId) || !start) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const now = centre();
    if (!wasDragged && pointers.size === 1 && Math.hypot(now[0] - start.at[0], now[1] - start.at[1]) < DRAG_FROM) return;
    if (!wasDragged) svg.setPointerCapture(event.pointerId);
    wasDragged = true;
    const [a, b] = [chart.fractionAt(...start.at), chart.fractionAt(...now)];
    const nearer = start.spread > 0 && spread() > 0 ? zoom(start.spread / spread(), a, start.range) : start.range;
    see(panned(nearer, chart.whole, chart.isLog, a[0] - b[0], a[1] - b[1]));
  });
  for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, (event) => { if (pointers.delete(event.pointerId)) begin(); });
  return {
    get isDragging() { return wasDragged && pointers.size > 0; },
    // Whether the click that follows belongs to a drag; asked once.
    endsDrag() { const was = wasDragged; wasDragged = false; return was; },
    zoomBy(way, at) { if (chart.range) chart.see(zoom(way > 0 ? 1 / ZOOM_STEP : ZOOM_STEP, at)); },
    key(event, at) {
      if (!chart.range || event.ctrlKey || event.metaKey || event.altKey) return false;
      const ways = { ArrowLeft: [-PAN_STEP, 0], ArrowRight: [PAN_STEP, 0], ArrowUp: [0, PAN_STEP], ArrowDown: [0, -PAN_STEP] };
      if (event.key === "+" || event.key === "=") chart.see(zoom(1 / ZOOM_STEP, at));
      else if (event.key === "-" || event.key === "_") chart.see(zoom(ZOOM_STEP, at));
      else if (event.key === "0") chart.see(null);
      else if (event.shiftKey && event.key in ways) chart.see(panned(chart.range, chart.whole, chart.isLog, ...ways[event.key]));
      else return false;
      event.preventDefault();
      return true;
    },
  };
}
