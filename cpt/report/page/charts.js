// ---- charts -----------------------------------------------------------------------------------

const plotly = once(async () => {
  const script = element("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
  return window.Plotly;
});

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


// ---- figures with axes to choose --------------------------------------------------------------

const SYMBOLS = { o: "circle", s: "square", "^": "triangle-up", D: "diamond", v: "triangle-down", P: "cross", X: "x", "*": "star" };
const TICKS = Array.from({ length: 13 }, (_, i) => [1, 2, 5].map((digit) => Number(`${digit}e${i - 3}`))).flat();  // Plotly's own say 5 for 0.5
const LOGARITHMIC = 3;  // costs that differ by this factor get a logarithmic axis, as in the figure
const explored = new Set();  // draws a chart anew

function select(label, choices, draw) {
  const choice = element("select", { "aria-label": label }, ...choices.map((name, i) => element("option", { value: i }, name)));
  choice.addEventListener("change", draw);
  return choice;
}

/** The traces of a view: what costs nothing is a line across a logarithmic axis, where it has no place. */
function traces(chart, view, x, y, ink) {
  const costs = view.series.flatMap((one) => one.values[x] ?? []);
  const least = Math.min(...costs.filter((cost) => cost > 0)), most = Math.max(...costs);
  const logarithmic = Boolean(chart.costs?.includes(x)) && most >= LOGARITHMIC * least, ends = [least / 1.3, most * 1.3];
  const word = (value, name) => (typeof value === "number" ? (chart.percent?.includes(name) ? shown(value) : String(+value.toPrecision(4))) : value);
  const drawn = view.series.filter((one) => one.values[x] && one.values[y]).map((one) => {
    const color = one.look.color === "#000000" ? ink : one.look.color, free = logarithmic && one.values[x].every((cost) => cost === 0);
    const spread = (name) => one.spread[name] && { type: "data", array: one.spread[name], thickness: 1, color, visible: true };
    const text = one.values[x].map((value, i) => {
      const deviation = one.spread[y]?.[i];
      return `${one.name}<br>${x} ${word(value, x)}<br>${y} ${word(one.values[y][i], y)}${missing(deviation) ? "" : ` ± ${word(deviation, y)}`}<br>${one.notes[i]}`;
    });
    const twice = (values) => [values[0], values[0]];
    return {
      name: one.name, text: free ? twice(text) : text, customdata: free ? twice(one.cells) : one.cells, hovertemplate: "%{text}<extra></extra>",
      x: free ? ends : one.values[x], y: free ? twice(one.values[y]) : one.values[y], mode: free ? "lines" : one.mode,
      line: { color, dash: free ? "dash" : "solid", width: 1.5 }, marker: { color, size: 8, symbol: SYMBOLS[one.look.marker] },
      ...(!free && { error_y: spread(y), error_x: spread(x) }),
    };
  });
  if (chart.diagonal) drawn.push({ x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: "gray", width: 1 }, hoverinfo: "skip", showlegend: false });
  return [drawn, logarithmic];
}

/** Draw a figure's values once it comes near the screen; a point opens what is behind it. */
function explore(charts) {
  const watched = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watched.unobserve(target);
      explored.add(explorer(target, charts[target.dataset.figure]));
    }
  }, { rootMargin: "300px" });
  for (const place of $$(".explored")) watched.observe(place);
}

function explorer(place, chart) {
  const area = element("div", { class: "chart" });
  const choices = {
    view: select("Panel", chart.views.map((view) => view.name), () => draw()),
    y: select("Vertical axis", chart.y, () => draw()),
    x: select("Horizontal axis", chart.x, () => draw()),
  };
  const names = { view: chart.views.map((view) => view.name), y: chart.y, x: chart.x };
  const labels = { view: "Panel", y: "Vertical", x: "Horizontal" };
  const offered = Object.keys(choices).filter((name) => names[name].length > 1);
  place.append(element("p", { class: "choices" }, ...offered.map((name) => element("label", {}, `${labels[name]} `, choices[name]))), area);
  let Plotly;
  const draw = async () => {
    Plotly ??= await plotly();
    const view = chart.views[choices.view.value], x = chart.x[choices.x.value], y = chart.y[choices.y.value];
    const ink = getComputedStyle(document.body).color, [drawn, logarithmic] = traces(chart, view, x, y, ink);
    const axes = layout(chart.x.length === 1 && view.name ? (x === "value" ? view.name : x) : x, y, {
      showlegend: drawn.length > 1, hovermode: "closest",
      ...(!missing(view.default) && { shapes: [{ type: "line", x0: view.default, x1: view.default, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", color: "gray", width: 1 } }] }),
    });
    if (logarithmic) Object.assign(axes.xaxis, { tickvals: TICKS, ticktext: TICKS.map((value) => value.toLocaleString("en", { maximumSignificantDigits: 1 })) });
    axes.xaxis.type = logarithmic ? "log" : x === "method" ? "category" : "linear";
    const first = !area.classList.contains("js-plotly-plot");
    await Plotly.react(area, drawn, axes, settings);
    if (first) {
      area.on("plotly_click", ({ points: [point] }) => { if (point.customdata) location.hash = `open=${place.dataset.figure}/${point.customdata}`; });
    }
  };
  draw();
  return draw;
}
