"use strict";
const all = (query, within = document) => [...within.querySelectorAll(query)];
const one = (id) => document.getElementById(id);
const data = one("data") ? JSON.parse(one("data").textContent) : [];
const distinct = (values) => [...new Set(values)];

// Tables: a heading sorts by its column, numbers as numbers; rows whose first cell lacks the text are hidden.
const key = (row, i) => {
  const cell = row.cells[i], text = cell.dataset.value ?? cell.textContent.trim(), value = Number(text);
  return text === "" ? null : Number.isNaN(value) ? text.toLowerCase() : value;
};
const order = (a, b) => (a === null) - (b === null) || (typeof a === typeof b ? (a > b) - (a < b) : typeof a > typeof b ? 1 : -1);
for (const table of all("table.sortable")) {
  for (const button of all("thead button", table)) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), i = head.cellIndex, up = head.getAttribute("aria-sort") === "descending";
      all("th", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        return x === null || y === null ? order(x, y) : (up ? 1 : -1) * order(x, y);
      });
      table.tBodies[0].append(...rows);
    });
  }
}
one("filter")?.addEventListener("input", (event) => {
  for (const row of all("table.sortable tbody tr"))
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(event.target.value.toLowerCase());
});

// Claims: by verdict, unfolded, and the one that the address names.
one("verdict")?.addEventListener("change", (event) => {
  for (const claim of all("details.claim")) claim.hidden = event.target.value && claim.dataset.verdict !== event.target.value;
});
one("unfold")?.addEventListener("click", () => all("details.claim").forEach((claim) => { claim.open = true; }));
const unfold = () => { const named = one(location.hash.slice(1)); if (named?.matches("details")) { named.open = true; named.scrollIntoView(); } };
window.addEventListener("hashchange", unfold);
unfold();

// Controls that choose rows of the data.
const controls = (id, options, draw) => {
  const form = one(id), of = (name) => form.querySelector(`[name="${name}"]`);
  for (const [name, values] of Object.entries(options)) of(name).append(...values.map((v) => new Option(v)));
  form.addEventListener("input", () => draw(of));
  draw(of);
};

if (one("gallery")) {
  const sheet = one("gallery").dataset.sheet, columns = distinct(data.map((d) => d.column)).length;
  const rows = distinct(data.map((d) => d.row)).length, side = innerWidth < 640 ? 72 : 96;
  const guided = data.filter((d) => d.w > 0), scales = distinct([0, ...guided.map((d) => d.w)]).sort((a, b) => a - b);
  const tile = (d, label) => {
    const div = document.createElement("div");
    div.className = "sheet";
    Object.assign(div.style, {
      width: `${side}px`, height: `${side}px`, imageRendering: "pixelated", backgroundImage: `url("${sheet}")`,
      backgroundSize: `${columns * side}px ${rows * side}px`, backgroundPosition: `${-d.column * side}px ${-d.row * side}px`,
    });
    if (label) { div.setAttribute("role", "img"); div.setAttribute("aria-label", label); }
    return div;
  };
  const cell = (...parts) => { const td = document.createElement("td"); td.append(...parts); return td; };
  const told = (d) => { const p = document.createElement("div"); p.className = "soft"; p.textContent = `${d.kind}, entropy ${d.entropy.toFixed(2)}`; return p; };
  const slider = one("gallery").querySelector("[name=w]"), start = scales.indexOf(Number(one("gallery").dataset.start));
  slider.max = scales.length - 1;
  slider.value = start < 0 ? slider.max : start;
  controls("gallery", { class: distinct(data.map((d) => d.wanted)), criterion: distinct(guided.map((d) => d.method)) }, (of) => {
    const w = scales[of("w").value], name = of("class").value, mine = data.filter((d) => d.wanted === name);
    of("shown").value = w;
    one("tiles").replaceChildren(...mine.filter((d) => d.row === 0).map((real, i) => {
      const at = (row) => mine.find((d) => d.column === real.column && row(d));
      const plain = at((d) => d.row === 1), now = w ? at((d) => d.method === of("criterion").value && d.w === w) : plain;
      const over = tile(now), pair = tile(plain, `difference of the two, image ${i + 1}`), tr = document.createElement("tr"), th = document.createElement("th");
      over.style.mixBlendMode = "difference";
      pair.append(over);
      Object.assign(pair.style, { isolation: "isolate", filter: "brightness(3)" });
      th.textContent = i + 1; th.scope = "row";
      tr.append(th, cell(tile(real, `real ${name}`), told(real)), cell(tile(plain, `unguided ${name}`), told(plain)), cell(tile(now, `guided ${name}, w ${w}`), told(now)), cell(pair));
      return tr;
    }));
  });
}

if (one("plane")) {
  const svg = one("points"), scales = distinct(data.map((d) => d.w)).sort((a, b) => a - b);
  const make = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    svg.append(node);
    return node;
  };
  make("path", { d: "M-260 0H260M0 -260V260", stroke: "currentColor", "stroke-opacity": ".2" });
  const count = data[0].points.split(" ").length / 2;
  const dots = Array.from({ length: count }, (_, i) => make("circle", { r: 3, class: `class${i % 2}` }));
  const line = make("path", { stroke: "currentColor", "stroke-width": 2 });
  const steered = data.filter((d) => d.w > 0);
  controls("plane", { criterion: distinct(steered.map((d) => d.criterion)).sort(), every: distinct(steered.map((d) => d.every)) }, (of) => {
    of("w").max = scales.length - 1;
    const w = scales[of("w").value];
    of("shown").value = w;
    const now = data.find((d) => d.w === w && (w === 0 || (d.criterion === of("criterion").value && d.every === Number(of("every").value))));
    const at = now.points.split(" ").map(Number);
    dots.forEach((dot, i) => { dot.style.transform = `translate(${at[2 * i]}px, ${-at[2 * i + 1]}px)`; });
    // b0 x + b1 y + b2 = 0, y up; the boundary is never level.
    const x = (y) => -(now.b1 * y + 100 * now.b2) / now.b0;
    line.setAttribute("d", `M${x(-260)} 260L${x(260)} -260`);
    one("measures").value = `Samples of the rare modes: ${now.minority_share.toFixed(1)} %. Samples on the data: ${now.on_support.toFixed(1)} %. ` +
      `Accuracy on the rare modes of the classifier trained with them: ${now.minority_accuracy.toFixed(1)} %.`;
  });
}
