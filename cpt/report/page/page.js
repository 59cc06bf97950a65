// Glue between the page's packed data and its libraries. Data enters the document as text only, never as markup.

const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function unpack(name) {
  const bytes = Uint8Array.from(atob($(`#packed-${name}`).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const once = (make) => { let made; return () => (made ??= make()); };

const plotly = once(async () => {
  const script = element("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
  return window.Plotly;
});

// ---- theme ------------------------------------------------------------------------------------

function theme() {
  const button = $("#theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const set = (dark) => {
    root.style.colorScheme = dark ? "dark" : "light";
    root.classList.toggle("dark", dark);  // DataTables looks for it
    button.textContent = dark ? "Light" : "Dark";
    if ($("#behind").open) open();  // charts take their colors when they are drawn
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const dark = !root.classList.contains("dark");
    set(dark);
    try { localStorage.setItem("theme", dark ? "dark" : "light"); } catch { /* a file may have no storage */ }
  });
  system.addEventListener("change", (event) => remembered() ?? set(event.matches));
  set((remembered() ?? (system.matches ? "dark" : "light")) === "dark");
}

// ---- figures ----------------------------------------------------------------------------------

function zoom() {
  const dialog = $("#zoom"), image = $("img", dialog);
  let width = 0;
  const resize = (factor) => { width *= factor; image.style.width = `${width}px`; };
  for (const button of $$(".zooms")) {
    button.addEventListener("click", () => {
      const source = $("img", button);
      image.src = source.src;
      image.alt = source.alt;
      $("h2", dialog).textContent = $("h3", button.closest("section")).textContent;
      dialog.showModal();
      const room = $("div", dialog), ratio = source.naturalWidth / source.naturalHeight;
      width = Math.min(room.clientWidth - 20, (room.clientHeight - 20) * ratio);
      resize(1);
    });
  }
  for (const button of $$("[data-scale]", dialog)) button.addEventListener("click", () => resize(+button.dataset.scale));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") resize(1.25);
    if (event.key === "-") resize(0.8);
  });
}

// ---- tables -----------------------------------------------------------------------------------

const LONG = 50, PAGE = 25;  // rows of a table that is shown in pages, and of a page

const filter = (text, long) => ({
  topStart: { search: { text } }, topEnd: long ? "pageLength" : null,
  bottomStart: long ? "info" : null, bottomEnd: long ? "paging" : null,
});

/** Rows of all blocks under one body, with the block's heading as a hidden first column to group and sort by. */
function flatten(table) {
  const bodies = $$("tbody", table);
  if (!$("tr.block", table)) return false;
  $$("thead tr", table).forEach((row) => row.prepend(element("th", {}, "Block")));
  bodies.forEach((body, order) => {
    const heading = $("tr.block", body);
    for (const row of $$("tr:not(.block)", body)) {
      row.prepend(element("td", { "data-order": order }, heading.textContent.trim()));
      bodies[0].append(row);
    }
    heading.remove();
    if (order) body.remove();
  });
  return true;
}

function tables(DataTable) {
  for (const table of $$("section.exhibit table.results, .audit table.results")) {
    const grouped = flatten(table), long = !grouped && $$("tbody tr", table).length > LONG;
    const made = new DataTable(table, {
      paging: long, pageLength: PAGE, info: long, autoWidth: false, order: [], layout: filter("Filter rows", long),
      titleRow: $$("thead tr", table).length - 1,
      ...(grouped && {
        orderFixed: { pre: [[0, "asc"]] },
        columnDefs: [{ targets: 0, visible: false }],
        rowGroup: { dataSrc: (row) => row[0].display },
      }),
    });
    if (!long) continue;
    let rows = PAGE;
    addEventListener("beforeprint", () => { rows = made.page.len(); made.page.len(-1).draw(); });
    addEventListener("afterprint", () => made.page.len(rows).draw());
  }
}

const GAP = "–";
const missing = (value) => value === null || value === undefined || value === "" || value === GAP;
const shown = (value, digits = 2) => (missing(value) ? GAP : value.toFixed(digits));

/** Numbers sort as numbers, with gaps last in both orders. */
function gapsLast(DataTable) {
  const order = (sign) => (a, b) => (missing(a) || missing(b) ? missing(a) - missing(b) : sign * (a - b));
  DataTable.type("num", {
    detect: { allOf: (value) => missing(value) || isFinite(value), oneOf: (value) => !missing(value) },
    order: { pre: (value) => (missing(value) ? null : +value), asc: order(1), desc: order(-1) },
  });
}

/** A column of numbers. */
const number = (title, data, digits = 2) => ({
  title, data, type: "num", className: "dt-right",
  render: (value, kind) => (kind === "display" || kind === "filter" ? shown(value, digits) : value ?? ""),
});

const mean = (values) => {
  const known = values.filter((value) => !missing(value));
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

function allNumbers(DataTable, data) {
  const text = (title, key) => ({ title, data: key, className: "text", render: DataTable.render.text() });
  const rows = data.cells.map((cell, index) => {
    const of = (name) => cell.means[name]?.[0];
    const runs = cell.runs.map((run) => data.runs[run]);
    return {
      index, method: cell.method, task: cell.task, dataset: cell.dataset, setting: cell.setting ?? "", ratio: cell.ratio,
      value: of(cell.judged), spread: cell.means[cell.judged]?.[1],
      seeds: (cell.numbers[cell.judged] ?? []).filter((value) => value !== null).length,
      base: of("base"), new: of("new"), macro: of("macro") ?? of("macro base"), head: of("head"), medium: of("medium"),
      tail: of("tail"), ece: of("ECE") ?? of("ECE base"), seconds: mean(runs.map((run) => run[2])),
      memory: mean(runs.map((run) => run[3])),
    };
  });
  const link = (row, _, full) => {
    const anchor = element("a", { class: "opens", href: `#open=*/${full.index}` });
    anchor.textContent = full.method;
    return anchor;
  };
  const listed = [["searchList"]];
  const columns = [
    { title: "Method", data: "method", className: "text", columnControl: listed,
      render: { display: link, _: (value) => value } },
    { ...text("Task", "task"), columnControl: listed },
    { ...text("Dataset", "dataset"), columnControl: listed },
    { ...number("τ", "ratio", 2), render: (value) => String(value), columnControl: listed },
    { ...text("Setting", "setting"), columnControl: listed },
    number("H or accuracy", "value"), number("std", "spread"), number("Seeds", "seeds", 0),
    number("Base", "base"), number("New", "new"), number("Macro", "macro"), number("Head", "head"),
    number("Medium", "medium"), number("Tail", "tail"), number("ECE", "ece"), number("Training, s", "seconds", 1),
    number("Memory, MiB", "memory", 0),
  ];
  const headings = columns.map(({ title }) => element("th", { scope: "col" }, title));
  // its own row of headings: in one that ColumnControl makes for its buttons nothing sorts
  $("#all-numbers").append(element("thead", {}, element("tr", {}, ...headings)));
  new DataTable($("#all-numbers"), {
    data: rows, deferRender: true, order: [], pageLength: 25, autoWidth: false, scrollX: true,
    layout: { topStart: { search: { text: "Filter" } }, topEnd: "pageLength" }, columns,
  });
}

// ---- what is behind a number --------------------------------------------------------------------

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

function commands(data, cells) {
  const runs = [...new Set(cells.flatMap((cell) => cell.runs))].map((run) => `${data.root}/runs/${data.runs[run][0]}`);
  const files = (name) => runs.map((run) => quoted(`${run}/${name}`)).join(" ");
  return `${data.command.map(quoted).join(" ")} ${files("metrics.parquet")} --forcerun ${files("run.json")}`;
}

function plain(head, rows) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell, i) => {
    const made = element(i ? tag : "th", i ? {} : { scope: tag === "th" ? "col" : "row" });
    made.append(cell);
    return made;
  }));
  const body = element("tbody", {}, ...rows.map((row) => line("td", row)));
  return element("div", { class: "scroll" }, element("table", { class: "results" }, element("thead", {}, line("th", head)), body));
}

function summary(cell, name) {
  const [middle, spread] = cell.means[name] ?? [];
  return shown(middle) + (missing(spread) ? "" : ` ± ${shown(spread)}`);
}

function seeds(data, cell) {
  const names = Object.keys(cell.numbers);
  const rows = cell.runs.map((run, i) => [
    String(data.runs[run][1]), ...names.map((name) => shown(cell.numbers[name][i])), shown(data.runs[run][2], 1),
  ]);
  if (rows.length > 1) rows.push(["mean ± std", ...names.map((name) => summary(cell, name)), ""]);
  return plain(["Seed", ...names, "Training, s"], rows);
}

/** A chart's layout in the page's colors. */
function layout(x, y, more = {}) {
  const ink = getComputedStyle(document.body).color, faint = "rgba(128, 128, 128, .25)";
  const axis = (text) => ({ gridcolor: faint, zerolinecolor: faint, linecolor: ink, title: { text } });
  return {
    paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)", font: { color: ink, size: 12 },
    margin: { l: 55, r: 12, t: 30, b: 45 }, legend: { orientation: "h", y: 1.14 }, xaxis: axis(x), yaxis: axis(y),
    colorway: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"], ...more,
  };
}

const settings = { displayModeBar: false, responsive: true };

async function curves(place, data, cell) {
  const names = [...new Set(cell.runs.flatMap((run) => Object.keys(data.curves[run])))];
  if (!names.length) return;
  const choice = element("select", { "aria-label": "Measure" }, ...names.map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  choice.value = names.includes("loss") ? "loss" : names[0];
  const chart = element("div", { class: "chart" });
  place.append(element("div", {}, element("h3", {}, "Over epochs"), choice, chart));
  const Plotly = await plotly();
  const draw = () => {
    const drawn = cell.runs.filter((run) => data.curves[run][choice.value]);
    const traces = drawn.map((run, i) => {
      const y = data.curves[run][choice.value], x = y.map((_, epoch) => epoch + 1);
      return { x, y, mode: "lines+markers", marker: { size: 4, symbol: i }, name: `seed ${data.runs[run][1]}` };
    });
    Plotly.react(chart, traces, layout("epoch", choice.value.replaceAll("_", " "), { showlegend: traces.length > 1 }), settings);
  };
  choice.addEventListener("change", draw);
  draw();
}

async function calibration(place, data, cell) {
  const tested = data.groups[cell.group].tested;
  const found = Object.entries(tested).filter(([name]) => name.slice(0, name.lastIndexOf("/")) === cell.target && subsets(cell).includes(name.split("/").pop()));
  if (!found.length) return;
  const chart = element("div", { class: "chart" });
  place.append(element("div", {}, element("h3", {}, "Reliability: 15 bins of confidence, these seeds"), chart));
  const Plotly = await plotly();
  const traces = found.map(([name, entry], i) => ({
    x: entry.bins.map((bin) => bin[1]), y: entry.bins.map((bin) => bin[2]), mode: "lines+markers", name: name.split("/").pop(),
    marker: { size: 6, symbol: i }, customdata: entry.bins.map((bin) => bin[0]), hovertemplate: "confidence %{x:.2f}, accuracy %{y:.2f}, %{customdata} images<extra></extra>",
  }));
  traces.push({ x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: "gray", width: 1 }, marker: { size: 0 }, hoverinfo: "skip", showlegend: false });
  Plotly.newPlot(chart, traces, layout("mean confidence", "accuracy"), settings);
}

const subsets = (cell) => (cell.judged === "H" ? ["base", "new"] : ["all"]);

function classes(DataTable, data, cell) {
  const rows = subsets(cell).flatMap((subset) => {
    const name = `${cell.target}/${subset}`, entry = data.groups[cell.group].tested[name];
    return (entry?.label ?? []).map((label, i) => [
      data.names[name][label], subset, entry.class_group?.[i] ?? "", entry.train?.[i] ?? null, entry.images[i], entry.accuracy[i] / 10,
    ]);
  });
  const table = element("table", { class: "results" });
  const text = (title) => ({ title, className: "text", render: DataTable.render.text() });
  const place = element("div", {}, table);
  new DataTable(table, {
    data: rows, order: [[5, "asc"]], deferRender: true, autoWidth: false, pageLength: 10,
    layout: { topStart: { search: { text: "Filter classes" } }, topEnd: "pageLength" },
    columns: [text("Class"), text("Half"), text("Group"), number("Training images", 3, 0), number("Test images", 4, 0), number("Accuracy, %", 5, 1)],
  });
  return place;
}

function one(DataTable, data, cell, place) {
  const charts = element("div", { class: "charts" });
  const configuration = Object.entries(data.groups[cell.group].configuration);
  place.append(element("h3", {}, "Seeds"), seeds(data, cell), charts);
  place.append(element("h3", {}, "Classes, mean over these seeds"), classes(DataTable, data, cell));
  place.append(element("h3", {}, "Configuration"), plain(["Hyperparameter", "Value"], configuration.map(([name, value]) => [name, value !== null && typeof value === "object" ? JSON.stringify(value) : String(value)])));
  return Promise.all([curves(charts, data, cell), calibration(charts, data, cell)]);
}

function several(data, cells, place) {
  const rows = cells.map(([index, cell]) => [
    element("a", { href: `#open=*/${index}` }, cell.dataset),
    ...[cell.judged, "base", "new"].map((name) => summary(cell, name)), String(cell.runs.length),
  ]);
  place.append(element("h3", {}, "What it is the mean of"), plain(["Dataset", cells[0][1].judged, "base", "new", "Seeds"], rows));
}

let open = () => {};

function behind(DataTable, data) {
  const dialog = $("#behind"), place = $("div", dialog);
  open = () => {
    const match = /^#open=([^/]+)\/([\d,]+)$/.exec(decodeURIComponent(location.hash));
    const chosen = match?.[2].split(",").map((i) => (match[1] === "*" ? +i : data.opens[match[1]]?.[+i]));
    const cells = chosen?.map((index) => [index, data.cells[index]]).filter(([, cell]) => cell);
    if (!cells?.length) return dialog.close();
    const cell = cells[0][1], where = cells.length > 1 ? `mean over ${cells.length} datasets` : cell.dataset;
    $("h2", dialog).textContent = [cell.method, where, cell.task, `τ = ${cell.ratio}`, cell.setting].filter(Boolean).join(" · ");
    place.replaceChildren();
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    const drawn = cells.length > 1 ? several(data, cells, place) : one(DataTable, data, cell, place);
    place.append(element("h3", {}, "Make it again"), element("pre", {}, commands(data, cells.map(([, found]) => found))));
    return drawn;
  };
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#open=")) history.replaceState(null, "", location.pathname + location.search);
  });
  addEventListener("hashchange", open);
}

for (const dialog of $$("dialog")) {
  $(".close", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
zoom();
theme();
const [source, css] = await Promise.all(["datatables", "datatables-css"].map(unpack));
document.head.prepend(element("style", {}, css));
const { default: DataTable } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
gapsLast(DataTable);
tables(DataTable);
const data = JSON.parse(await unpack("data"));
behind(DataTable, data);
open();
allNumbers(DataTable, data);
document.documentElement.dataset.ready = "";
