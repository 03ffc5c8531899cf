// A chart as a file of one's own: SVG as it is seen, or PNG at a chosen width.
"use strict";

const SAVED_AS = { svg: "SVG", 1200: "PNG, 1,200 px wide", 2400: "PNG, 2,400 px wide", 3600: "PNG, 3,600 px wide" };
const INLINED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-size", "font-weight", "font-family", "text-anchor", "paint-order"];

function makeSaver(svg, nameOf) {
  const select = node("select", { class: "saver no-print", "aria-label": "Save this chart" }, node("option", { value: "" }, "Save …"), Object.entries(SAVED_AS).map(([value, words]) => node("option", { value }, words)));
  select.addEventListener("change", async () => {
    const kind = select.value;
    select.value = "";
    if (!kind) return;
    const { text, width, height } = pictureOf(svg);
    if (kind === "svg") return save(new Blob([text], { type: "image/svg+xml" }), `${nameOf()}.svg`);
    const image = new Image(), canvas = document.createElement("canvas");
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    [canvas.width, canvas.height] = [Number(kind), Math.round((Number(kind) * height) / width)];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(blob, `${nameOf()}.png`), "image/png");
  });
  return select;
}

// The drawing by itself, on its ground, with the colours that the page's style gives it.
function pictureOf(svg) {
  const copy = svg.cloneNode(true), [mine, theirs] = [svg, copy].map((one) => [...one.querySelectorAll("*")]);
  mine.forEach((element, n) => {
    const style = getComputedStyle(element);
    for (const name of INLINED) theirs[n].setAttribute(name, style.getPropertyValue(name)); // attributes: the page's policy forbids styles
    if (element.hasAttribute("hidden")) theirs[n].setAttribute("display", "none");
  });
  const { width, height } = svg.viewBox.baseVal, ground = getComputedStyle(svg.closest(".card") || document.body).backgroundColor;
  copy.prepend(drawn("rect", { width, height, fill: ground }));
  for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) copy.setAttribute(name, value);
  copy.removeAttribute("class");
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}
function save(blob, name) {
  const link = node("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
// Lines as CSV. As `leaderboard export` writes it, a text that a spreadsheet would compute gets an apostrophe before it.
function csvText(lines) {
  const cell = (value) => { const text = typeof value === "string" && /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(value) ? `'${value}` : String(value); return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text; };
  return lines.map((line) => line.map(cell).join(",") + "\n").join("");
}
