// ---- tables -----------------------------------------------------------------------------------

const FILTERED = 12, LONG = 50, PAGE = 25;  // rows from which a table has a filter, is shown in pages; rows of a page

const filter = (rows, long) => ({
  topStart: rows > FILTERED ? { search: { text: "Filter rows" } } : null, topEnd: long ? "pageLength" : null,
  bottomStart: long ? "info" : null, bottomEnd: long ? "paging" : null,
});

const byBlock = (row) => row[0].display, byFamily = (row) => row[1];

/** Rows of all blocks under one body, their headings in two hidden columns in front; returns what they are grouped by. */
function flatten(table) {
  const levels = [...($("tr.block", table) ? [byBlock] : []), ...($("tr.family", table) ? [byFamily] : [])];
  if (!levels.length) return levels;
  const bodies = $$("tbody", table);
  $$("thead tr", table).forEach((row) => row.prepend(element("th", {}, "Block"), element("th", {}, "Family")));
  bodies.forEach((body, order) => {
    const headings = { block: "", family: "" };
    for (const row of $$("tr", body)) {
      if (row.className in headings) {
        headings[row.className] = row.textContent.trim();
        row.remove();
      } else {
        row.prepend(element("td", { "data-order": order }, headings.block), element("td", {}, headings.family));
        bodies[0].append(row);
      }
    }
    if (order) body.remove();
  });
  return levels;
}

const FALLING = ["desc", "asc", ""], RISING = ["asc", "desc", ""];
const LOWER = /↓|^Rank$|^Hours$/;  // headings of what is better where it is lower

/** In which order a column's heading sorts first: numbers with the best one on top. */
function bestFirst(table) {
  const headings = $$("thead tr:last-child th", table), numbers = $$("tbody tr:last-child > *", table);
  return headings.map((heading, i) => {
    const falling = "order" in (numbers[i]?.dataset ?? {}) && !LOWER.test(heading.textContent.trim());
    return { targets: i, orderSequence: falling ? FALLING : RISING };
  });
}

function tables(DataTable) {
  for (const table of $$("section.exhibit table.results, .audit table.results")) {
    const levels = flatten(table), grouped = levels.length > 0, rows = $$("tbody tr", table).length, long = !grouped && rows > LONG;
    const made = new DataTable(table, {
      paging: long, pageLength: PAGE, info: long, autoWidth: false, order: [], layout: filter(rows, long),
      titleRow: $$("thead tr", table).length - 1,
      columnDefs: [...(grouped ? [{ targets: [0, 1], visible: false }] : []), ...bestFirst(table)],
      ...(grouped && {
        orderFixed: { pre: [[0, "asc"]] },
        rowGroup: { dataSrc: levels },
      }),
    });
    if (levels.includes(byFamily)) {  // a reader who sorts compares all methods
      const sorted = levels.filter((level) => level === byBlock);
      made.on("order", () => made.rowGroup().dataSrc(made.order().some(([, way]) => way) ? sorted : levels));
    }
    if (!long) continue;
    let shownRows = PAGE;
    addEventListener("beforeprint", () => { shownRows = made.page.len(); made.page.len(-1).draw(); });
    addEventListener("afterprint", () => made.page.len(shownRows).draw());
  }
}

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
  title, data, type: "num", className: "dt-right", orderSequence: FALLING,
  render: (value, kind) => (kind === "display" || kind === "filter" ? shown(value, digits) : value ?? ""),
});

const mean = (values) => {
  const known = values.filter((value) => !missing(value));
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

/** The exhibits that show each cell: "Tables 1, 2, Figure 8". */
function shownIn(data) {
  const found = data.cells.map(() => new Map());
  for (const [exhibit, places] of Object.entries(data.opens)) {
    const [kind, name] = data.labels[exhibit].split(" ");
    for (const place of new Set(places)) found[place].set(kind, [...(found[place].get(kind) ?? []), name]);
  }
  return found.map((kinds) => [...kinds].map(([kind, names]) => `${kind}${names.length > 1 ? "s" : ""} ${names.join(", ")}`).join(", "));
}

function allNumbers(DataTable, data) {
  const exhibits = shownIn(data);
  const text = (title, key) => ({ title, data: key, className: "text", render: DataTable.render.text() });
  const rows = data.cells.map((cell, index) => {
    const of = (name) => cell.means[name]?.[0];
    const runs = cell.runs.map((run) => data.runs[run]);
    return {
      index, exhibits: exhibits[index], method: cell.method, task: cell.task, dataset: cell.dataset, setting: cell.setting ?? "", ratio: cell.ratio,
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
    { ...text("Shown in", "exhibits") },
    { ...text("Task", "task"), columnControl: listed },
    { ...text("Dataset", "dataset"), columnControl: listed },
    { ...number("τ", "ratio", 2), render: (value) => String(value), columnControl: listed },
    text("Setting", "setting"),
    number("H or accuracy", "value"), { ...number("std", "spread"), orderSequence: RISING }, number("Seeds", "seeds", 0),
    number("Base", "base"), number("New", "new"), number("Macro", "macro"), number("Head", "head"),
    number("Medium", "medium"), number("Tail", "tail"), { ...number("ECE", "ece"), orderSequence: RISING },
    { ...number("Training, s", "seconds", 1), orderSequence: RISING },
    { ...number("Memory, MiB", "memory", 0), orderSequence: RISING },
  ];
  const headings = columns.map(({ title }) => element("th", { scope: "col" }, title));
  // its own row of headings: in one that ColumnControl makes for its buttons nothing sorts
  $("#all-numbers").append(element("thead", {}, element("tr", {}, ...headings)));
  const saved = { title: null, exportOptions: { orthogonal: "export", modifier: { search: "applied", order: "applied" } } };
  const buttons = [
    { extend: "csvHtml5", text: "CSV", filename: `${data.root.split("/").pop()}-all-numbers`, ...saved },
    { extend: "copyHtml5", text: "Copy", ...saved },
  ];
  new DataTable($("#all-numbers"), {
    data: rows, deferRender: true, order: [], pageLength: 25, autoWidth: false, scrollX: true,
    layout: { topStart: { search: { text: "Filter" } }, topEnd: [{ buttons }, "pageLength"] }, columns,
  });
}
