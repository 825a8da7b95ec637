// Charts: Vega-Lite's, drawn as SVG whose marks have names for screen readers. A chart is drawn anew where its
// specification or the theme changes; where only its rows do, they are exchanged.

const dark = matchMedia("(prefers-color-scheme: dark)");
const colourOf = (kind) => (dark.matches ? kind.in_the_dark : kind.colour);
const kindOf = (id) => DATA.kinds.find((kind) => kind.id === id);
const drawn = new Map(); // element -> {text, view, rows, work}

const KINDS = {
  colour: { field: "kind", type: "nominal", legend: null, scale: { domain: DATA.kinds.map((kind) => kind.id) } },
  dash: {
    field: "kind", type: "nominal", legend: null,
    scale: { domain: DATA.kinds.map((kind) => kind.id), range: DATA.kinds.map((kind) => kind.dash) },
  },
  symbol: {
    field: "kind", type: "nominal", legend: null,
    scale: { domain: DATA.kinds.map((kind) => kind.id), range: DATA.kinds.map((kind) => kind.symbol) },
  },
};

function theme() {
  const style = getComputedStyle(document.documentElement);
  const [ink, muted, line] = ["--ink", "--muted", "--line"].map((name) => style.getPropertyValue(name).trim());
  return {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
    axis: {
      labelColor: muted, titleColor: muted, gridColor: line, domainColor: muted, tickColor: muted, gridOpacity: 0.7,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, titlePadding: 8, labelLimit: 220,
    },
    text: { color: ink, fontSize: 12 }, rule: { color: muted },
    range: { category: DATA.kinds.map(colourOf) },
  };
}

// Draws `rows` by a specification whose data is named "rows". Returns when the chart stands.
function draw(element, spec, rows) {
  const whole = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", autosize: { type: "fit-x", contains: "padding" },
    data: { name: "rows" }, config: theme(), ...spec,
  };
  const text = JSON.stringify(whole);
  const chart = drawn.get(element) ?? { work: Promise.resolve() };
  drawn.set(element, chart);
  chart.spec = spec;
  chart.rows = rows;
  chart.work = chart.work.then(async () => {
    if (chart.text === text) {
      await chart.view.data("rows", rows).runAsync();
      return;
    }
    chart.text = text;
    chart.view?.finalize();
    whole.data = { name: "rows", values: rows };
    const tooltip = { theme: "custom", sanitize: plain, formatTooltip: tip };
    const options = { ast: true, renderer: "svg", actions: false, mode: "vega-lite", tooltip };
    chart.view = (await vegaEmbed(element, whole, options)).view;
    element.querySelector("form")?.remove(); // of Vega's own controls, of which there are none
    if (chart.onclick) chart.view.addEventListener("click", (event, item) => item?.datum && chart.onclick(item.datum));
  });
  return chart.work;
}

// A tooltip says what the datum's `tip` lists, as [what, value]; texts of records are no HTML.
const plain = (value) => String(value).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const tip = (value, sanitize) =>
  `<table>${Object.entries(value).map(([name, one]) => `<tr><td class="key">${sanitize(name)}</td><td>${sanitize(one)}</td></tr>`).join("")}</table>`;
const TIP = (...fields) => fields.map(([field, title]) => ({ field, title, type: "nominal" }));

dark.addEventListener("change", () => {
  paintLooks();
  for (const [element, chart] of drawn) draw(element, chart.spec, chart.rows);
});

// The key under a chart: colours of parts, or looks of kinds.
function key(element, entries) {
  element.replaceChildren(...entries.map(([words, mark]) => el("span", {}, mark, words)));
}
const swatch = (colour) => el("span", { class: "swatch", style: `background:${colour}` });

// Ticks and limits of a logarithmic axis: powers of ten, and where there are few of them their halves and fifths.
function logarithmic(values) {
  const [low, high] = [Math.min(...values) / 1.15, Math.max(...values) * 1.15];
  const factors = high / low > 500 ? [1] : high / low > 20 ? [1, 3] : [1, 2, 5];
  const powers = Array.from({ length: 40 }, (_, i) => 10 ** (i - 15));
  const ticks = powers.flatMap((power) => factors.map((factor) => Number((factor * power).toPrecision(1))));
  return { scale: { type: "log", domain: [low, high], nice: false }, ticks: ticks.filter((tick) => tick >= low && tick <= high) };
}

function stacked(field, entries, title, count, extra = []) {
  return {
    height: 44 * count,
    layer: [
      {
        mark: { type: "bar", stroke: "transparent", strokeWidth: 1, height: 26, cornerRadius: 2 },
        encoding: {
          y: { field: "model", type: "nominal", sort: null, title: null, axis: { labelPadding: 8, ticks: false, domain: false } },
          x: { field: "amount", type: "quantitative", title, stack: "zero", axis: { format: "~s", tickCount: 5 } },
          color: {
            field, type: "nominal", legend: null,
            scale: { domain: entries.map((one) => one[field]), range: entries.map((one) => one.colour) },
          },
          order: { field: "order" },
          tooltip: TIP(["model", "model"], [field, field], ["shown", "amount"], ["share", "share"]),
        },
        transform: [{ filter: "datum.amount > 0" }],
      },
      ...extra,
    ],
  };
}
