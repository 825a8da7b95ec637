// How good: scores against training steps, size and cost, a point a score.

function qualitySection() {
  const suites = DATA.quality.suites.map((suite) => ({ ...suite, points: unpacked(suite.points) }));
  const form = part("quality", ".controls");
  if (!suites.length) {
    say(part("quality", ".answer"), "Nothing is scored yet; this does it: `python -m harness.reproduce`");
    part("quality", "figure").hidden = true;
    part("quality", "details").hidden = true;
    return () => {};
  }
  const every = suites.flatMap((suite) => suite.points);
  const values = (points, field) => [...new Set(points.map((point) => point[field]))].sort((a, b) => (typeof a === "number" ? a - b : 0));
  const against = {
    steps: { field: "step", words: "training steps", title: "training steps" },
    params: { field: "params", words: "parameters", title: "parameters" },
    macs: { field: "macs", words: "multiply-adds", title: "multiply-adds of a forward pass" },
    seconds: { field: "seconds", words: "seconds of training", title: "training, seconds" },
  };
  const known = Object.entries(against).filter(([, { field }]) => every.some((point) => point[field] !== null));
  const kinds = DATA.kinds.filter((kind) => every.some((point) => point.kind === kind.id));
  const metrics = [...new Map(suites.flatMap((suite) => suite.metrics).map((metric) => [metric.name, metric])).values()];
  if (suites.length > 1) choice(form, "quality.suite", "Suite", suites.map((suite) => [suite.name, suite.name]), suites[0].name);
  else state.declare("quality.suite", suites[0].name);
  const offerMetrics = choice(form, "quality.metric", "Metric", metrics.map((metric) => [metric.name, `${metric.words} ${metric.better < 0 ? "↓" : "↑"}`]), metrics[0].name);
  choice(form, "quality.against", "Against", known.map(([name, { words }]) => [name, words]), "steps");
  const offerKinds = choice(form, "quality.kinds", "Models", kinds.map((kind) => [kind.id, kind.words, look(kind)]), kinds.map((kind) => kind.id).join(), true);
  const offerSizes = choice(form, "quality.size", "Size", [...sizes().map((size) => [size, size]), ["all", "all"]], sizes().at(-1));
  const offerPatches = choice(form, "quality.patch", "Patch", values(every, "patch").map((patch) => [patch, patch]), values(every, "patch")[0]);
  const offerPixels = choice(form, "quality.px", "Image", values(every, "px").map((px) => [px, `${px} px`]), values(every, "px")[0]);
  const offerScales = choice(form, "quality.guidance", "Guidance", values(every, "guidance").map((scale) => [scale, scale]), values(every, "guidance")[0]);

  // Sizes by what they cost.
  function sizes() {
    const largest = (size) => Math.min(...every.filter((point) => point.size === size).map((point) => point.params));
    return values(every, "size").sort((a, b) => largest(a) - largest(b));
  }

  function grouping(points, id) {
    const groups = new Map();
    for (const point of points) groups.set(id(point), [...(groups.get(id(point)) ?? []), point]);
    return [...groups.values()];
  }

  const average = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;

  // A point of the size, patch, image and guidance that have the most points, the larger size of two.
  function commonest(points) {
    const groups = grouping(points, (point) => [point.size, point.patch, point.px, point.guidance].join("|"));
    const rank = ([point]) => sizes().indexOf(point.size);
    return groups.sort((a, b) => b.length - a.length || rank(b) - rank(a))[0][0];
  }

  const figure = (value) => (value >= 1e9 ? `${digits(value / 1e9, 3)} G` : value >= 1e6 ? `${digits(value / 1e6, 3)} M` : value >= 1e3 ? `${digits(value / 1e3, 3)} K` : digits(value, 3));

  const shortened = (text) => (text.length > 160 ? `${text.slice(0, 160)} …` : text);

  function tell(point) {
    const entries = [["model", point.model], ["score", `${point.words} ${digits(point.value)}`], ["seed", point.seed], ["step", grouped(point.step)],
      ["run", point.run], ["protocol", point.protocol], ["command", folded(RECORDS[point.record].command, 120)], ["record", recordLink(point.record)]];
    part("quality", "[data-out=detail]").replaceChildren(el("dl", {}, entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))])));
  }

  // Labels of the means, but those that would lie on another.
  function labelled(means, low, high) {
    const height = (mean) => Math.log(mean.value / low) / Math.log(high / low || 2);
    const kept = [];
    for (const mean of means) {
      const free = kept.every((one) => one.x !== mean.x || Math.abs(height(one) - height(mean)) > 0.04);
      if (free) kept.push({ ...mean, part: "label", label: mean.size });
    }
    return kept;
  }

  return function showQuality() {
    const of = (name) => state.get(`quality.${name}`);
    const suite = suites.find((one) => one.name === of("suite")) ?? suites[0];
    const axis = against[of("against")];
    const name = offerMetrics(suite.metrics.map((metric) => metric.name));
    const metric = suite.metrics.find((one) => one.name === name);
    offerKinds(values(suite.points, "kind"));
    // Each choice is among the scores that the choices before it leave, so that none leads to nothing.
    let chosen = suite.points.filter((point) => point.metric === metric.name);
    const usual = commonest(chosen);
    // Sizes lie beside each other on every other axis than that of steps.
    const there = sizes().filter((one) => chosen.some((point) => point.size === one));
    const size = offerSizes(axis.field === "step" && there.length > 1 ? [...there, "all"] : [], usual.size) ?? "all";
    if (size !== "all") chosen = chosen.filter((point) => point.size === size);
    const patch = Number(offerPatches(values(chosen, "patch"), usual.patch));
    chosen = chosen.filter((point) => point.patch === patch);
    const px = Number(offerPixels(values(chosen, "px"), usual.px));
    chosen = chosen.filter((point) => point.px === px);
    // Where every model has its own guidance and no other, they stand together.
    const own = new Set(chosen.map((point) => `${point.kind}|${point.model}`)).size === new Set(chosen.map((point) => `${point.kind}|${point.model}|${point.guidance}`)).size;
    const guidance = offerScales(own ? [] : values(chosen, "guidance"), usual.guidance);
    chosen = chosen.filter((point) => (own || point.guidance === Number(guidance)) && state.list("quality.kinds").includes(point.kind));
    const steps = values(chosen, "step");
    if (axis.field !== "step") chosen = chosen.filter((point) => point.step === steps.at(-1) && point[axis.field] !== null);

    const line = (point) => (axis.field === "step" ? `${point.kind}|${point.model}` : point.kind);
    const means = grouping(chosen, (point) => `${point.kind}|${point.model}|${point.step}`).map((several) => {
      // Draws of samples of one training are one value, as in the tables.
      const seeds = grouping(several, (point) => point.seed);
      const value = average(seeds.map((draws) => average(draws.map((point) => point.value))));
      const { kind, model, size } = several[0];
      return { part: "mean", kind, model, size, line: line(several[0]), x: average(several.map((point) => point[axis.field])), value, seeds: seeds.length,
        shown: `${metric.words} ${digits(value)}, mean of ${seeds.length}` };
    });
    const last = chosen.length ? steps.at(-1) : 0;
    const ends = means.filter((mean) => axis.field !== "step" || mean.x === last);
    const best = [...ends].sort((a, b) => metric.better * (b.value - a.value))[0];
    say(part("quality", ".answer"), best
      ? `Best mean ${metric.words} at step ${grouped(last)}: **${digits(best.value)}**, ${best.model}, over ${best.seeds} seed${best.seeds > 1 ? "s" : ""}. `
        + `${chosen.length} scores are shown. The tables below say which differences are decided.`
      : "No score is recorded of these.");
    part("quality", "[data-out=caution]").textContent = suite.caution;
    part("quality", "[data-out=title]").textContent = `${metric.words} against ${axis.words} (${metric.better < 0 ? "lower" : "higher"} is better)`;
    for (const what of ["figure", "details"]) part("quality", what).hidden = !chosen.length;
    part("quality", "[data-out=detail]").replaceChildren();
    if (!chosen.length) return;

    const scores = chosen.map((point) => point.value);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const { scale, ticks } = low > 0 && high / low > 5 ? logarithmic(scores) : { scale: { zero: false, padding: 12 } };
    const rows = [
      ...(size === "all" ? labelled(means.filter((mean) => axis.field !== "step" || mean.x === last), low, high) : []), ...means,
      ...chosen.map((point, at) => ({ part: "seed", at, x: point[axis.field], value: point.value, kind: point.kind, model: point.model,
        shown: `${metric.words} ${digits(point.value)}`, where: figure(point[axis.field]), seed: point.seed, run: point.run.split("/").slice(-3)[0],
        protocol: point.protocol, command: shortened(RECORDS[point.record].command) })),
    ];
    const y = { field: "value", type: "quantitative", title: metric.words, scale, axis: { tickCount: 6, format: "~g", ...(ticks ? { values: ticks } : {}) } };
    const wide = logarithmic(chosen.map((point) => point[axis.field]));
    const x = { field: "x", type: "quantitative", title: axis.title, ...(axis.field === "step"
      ? { scale: { zero: false, nice: false, padding: 20 }, axis: { values: steps, format: ",d" } }
      : { scale: wide.scale, axis: { values: wide.ticks, format: "~s" } }) };
    const tooltip = TIP(["model", "model"], ["shown", "score"], ["where", axis.words], ["seed", "seed"], ["run", "run"], ["protocol", "protocol"], ["command", "command"]);
    const chart = part("quality", "[data-chart=points]");
    drawn.set(chart, { work: Promise.resolve(), ...drawn.get(chart), onclick: (datum) => datum.part === "seed" && tell({ ...current[datum.at], words: metric.words }) });
    current = chosen;
    draw(chart, {
      height: 380, description: `${metric.words} against ${axis.words}, a point a seed; the list below has every point.`,
      layer: [
        { transform: [{ filter: "datum.part == 'mean'" }], mark: { type: "line", strokeWidth: 2 },
          encoding: { x, y, color: KINDS.colour, strokeDash: KINDS.dash, detail: { field: "line" } } },
        { transform: [{ filter: "datum.part == 'seed'" }], mark: { type: "point", filled: true, size: 60, opacity: 0.75, cursor: "pointer" },
          encoding: { x, y, color: KINDS.colour, shape: KINDS.symbol, tooltip } },
        ...(size === "all" ? [{ transform: [{ filter: "datum.part == 'label'" }],
          mark: { type: "text", align: "left", dx: 9, fontWeight: 600, aria: false }, encoding: { x, y, text: { field: "label" }, color: KINDS.colour } }] : []),
      ],
    }, rows);
    key(part("quality", "[data-key=points]"), [[`a point is a seed${size === "all" ? ", a letter the size of the model" : ""}; tap or click it for its run and command`, null]]);

    const open = (point) => { const button = el("button", { type: "button" }, "details"); button.onclick = () => tell({ ...point, words: metric.words }); return button; };
    const columns = [
      { title: "model", value: (p) => p.model }, { title: "seed", value: (p) => p.seed, number: (p) => p.seed },
      { title: "step", value: (p) => grouped(p.step), number: (p) => p.step }, { title: metric.words, value: (p) => digits(p.value), number: (p) => p.value },
      { title: "params", value: (p) => figure(p.params), number: (p) => p.params }, { title: "multiply-adds", value: (p) => figure(p.macs), number: (p) => p.macs },
      { title: "guidance", value: (p) => p.guidance, number: (p) => p.guidance }, { title: "record", node: (p) => recordLink(p.record) }, { title: "more", node: open },
    ];
    part("quality", "[data-table]").replaceChildren(table(`${metric.words}, ${suite.title}`, columns, chosen));
  };
}
let current = []; // the scores that the chart shows
