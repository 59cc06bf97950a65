// ---- the files inside the page ----------------------------------------------------------------

function save(files) {
  for (const links of $$(".files")) {
    for (const link of $$("a", links)) {
      const text = files[link.download], picture = $("img", link.closest("section"));
      link.href = text === undefined ? picture.src : URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    }
    links.hidden = false;
  }
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
      $("h2", dialog).textContent = button.closest("section").querySelector("h3").firstChild.textContent;
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

function summary([middle, spread] = [], digits) {
  if (missing(middle)) return GAP;
  const text = shown(middle, digits) + (missing(spread) ? "" : ` ± ${shown(spread, digits)}`);
  return element("span", { title: missing(spread) ? middle : `${middle} ± ${spread}` }, text);
}

/** What is told of a cell in an exhibit: its own measures in a table of measures, otherwise the usual metrics. */
function told(data, cell, exhibit) {
  const own = data.tells[exhibit] ?? [];
  return [...new Set([cell.judged, ...(own.length ? own : data.usual[cell.judged])])].filter((name) => name in cell.numbers);
}

function seeds(data, cell, exhibit) {
  const names = told(data, cell, exhibit);
  const rows = cell.runs.map((run, i) => [
    String(data.runs[run][1]), ...names.map((name) => exact(cell.numbers[name][i], data.digits[name])), exact(data.runs[run][2], 1),
  ]);
  if (rows.length > 1) rows.push(["mean ± std", ...names.map((name) => summary(cell.means[name], data.digits[name])), ""]);
  return plain(["Seed", ...names, "Training, s"], rows);
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

function one(DataTable, data, cell, exhibit, place) {
  const charts = element("div", { class: "charts" });
  const configuration = Object.entries(data.groups[cell.group].configuration);
  place.append(element("h3", {}, "Seeds"), seeds(data, cell, exhibit), charts);
  place.append(element("h3", {}, "Classes, mean over these seeds"), classes(DataTable, data, cell));
  place.append(element("h3", {}, "Configuration"), plain(["Hyperparameter", "Value"], configuration.map(([name, value]) => [name, value !== null && typeof value === "object" ? JSON.stringify(value) : String(value)])));
  return Promise.all([curves(charts, data, cell), calibration(charts, data, cell)]);
}

/** The datasets that an average is over, and the average as its table has it. */
function several(data, cells, exhibit, places, place) {
  const average = data.averages[exhibit]?.[places] ?? {};
  const names = Object.keys(average).length ? Object.keys(average) : [cells[0][1].judged];
  const rows = cells.map(([position, cell]) => [
    element("a", { href: `#open=${exhibit}/${position}` }, cell.dataset),
    ...names.map((name) => summary(cell.means[name], data.digits[name])), String(cell.runs.length),
  ]);
  if (Object.keys(average).length) {
    const counts = [...new Set(names.map((name) => average[name][2]))];
    rows.push(["mean over the datasets", ...names.map((name) => summary(average[name], data.digits[name])), counts.join(" or ")]);
  }
  place.append(element("h3", {}, "What it is the mean of"), plain(["Dataset", ...names, "Seeds"], rows));
}

let open = () => {};

function behind(DataTable, data) {
  const dialog = $("#behind"), place = $("div", dialog);
  open = () => {
    const [, exhibit, places] = /^#open=([^/]+)\/([\d,]+)$/.exec(decodeURIComponent(location.hash)) ?? [];
    const chosen = places?.split(",").map((i) => [i, exhibit === "*" ? +i : data.opens[exhibit]?.[+i]]);
    const cells = chosen?.map(([position, index]) => [position, data.cells[index]]).filter(([, found]) => found);
    if (!cells?.length) return dialog.close();
    const cell = cells[0][1], where = cells.length > 1 ? `mean over ${cells.length} datasets` : cell.dataset;
    $("h2", dialog).textContent = [cell.method, where, cell.task, `τ = ${cell.ratio}`, cell.setting].filter(Boolean).join(" · ");
    place.replaceChildren();
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    const drawn = cells.length > 1 ? several(data, cells, exhibit, places, place) : one(DataTable, data, cell, exhibit, place);
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
contents();
zoom();
theme(() => {
  if ($("#behind").open) open();  // charts take their colors when they are drawn
  for (const draw of explored) draw();
});
const [source, css] = await Promise.all(["datatables", "datatables-css"].map(unpack));
document.head.prepend(element("style", {}, css));
const { default: DataTable } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
gapsLast(DataTable);
tables(DataTable);
const data = JSON.parse(await unpack("data"));
behind(DataTable, data);
open();
allNumbers(DataTable, data);
save(JSON.parse(await unpack("files")));
explore(JSON.parse(await unpack("charts")));
document.documentElement.dataset.ready = "";
