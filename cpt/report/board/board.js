// ---- filters of the board ---------------------------------------------------------------------

/** Rows and settings stay that all filters keep; ranks are those of all rows. */
function filters(DataTable) {
  const form = $("#filters"), count = $("#count");
  const chosen = (name) => form.elements[name].value;
  const column = (table, title) => $$("thead tr:last-child th", table).findIndex((heading) => heading.textContent.trim() === title);
  const within = (cell, limit) => limit === "" || +cell.dataset.order <= +limit;
  const keeps = (table, row) => {
    const cells = row.children, at = (title) => cells[column(table, title)];
    const knowledge = chosen("knowledge");
    return (!knowledge || at("Text knowledge").textContent.trim() === knowledge)
      && within(at("Hours"), chosen("hours")) && within(at("Learned values"), chosen("parameters"));
  };
  DataTable.ext.search.push((settings, _, index) => keeps(settings.nTable, settings.aoData[index].nTr));
  const apply = () => {
    DataTable.tables({ api: true }).draw();
    let rows = 0;
    for (const section of $$("section.exhibit")) {
      const { protocol, backbone, ratio } = section.dataset, table = $("table.results", section);
      const wanted = [["protocol", protocol], ["backbone", backbone], ["ratio", ratio]].every(([name, value]) => !chosen(name) || chosen(name) === value);
      const kept = wanted ? new DataTable.Api(table).rows({ search: "applied" }).count() : 0;
      section.hidden = !kept;
      rows += kept;
      for (const link of $$(`.contents a[href="#${section.id}"]`)) link.parentElement.hidden = !kept;
    }
    count.textContent = `${rows} rows`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}

contents();
theme();
const [source, css] = await Promise.all(["datatables", "datatables-css"].map(unpack));
document.head.prepend(element("style", {}, css));
const { default: DataTable } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
gapsLast(DataTable);
tables(DataTable);
filters(DataTable);
document.documentElement.dataset.ready = "";
