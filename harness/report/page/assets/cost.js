// What does it cost: closed forms' figures of harness.cost, computed when the page was made.

function costSection() {
  const { models, sizes, usual, conventions, resolutions, operations, printed } = DATA.cost;
  const form = part("cost", ".controls");
  const kinds = DATA.kinds.filter((kind) => models.some((model) => model.kind === kind.id));
  const patches = [...new Set(models.map((model) => model.patch))];
  const kindsAt = (patch) => new Set(models.filter((model) => model.patch === patch).map((model) => model.kind)).size;
  const shared = patches.reduce((best, patch) => kindsAt(patch) > kindsAt(best) ? patch : best);
  const rule = (name) => conventions.find((one) => one.name === name);
  const offerKinds = choice(form, "cost.kinds", "Models", kinds.map((kind) => [kind.id, kind.words, look(kind)]), kinds.map((kind) => kind.id).join(), true);
  choice(form, "cost.of", "Of", [["image", "an image"], ["clip", "a clip"]], "image");
  choice(form, "cost.size", "Size", sizes.map((size) => [size, size]), usual);
  choice(form, "cost.patch", "Patch", patches.map((patch) => [patch, patch]), shared);
  choice(form, "cost.printed", "Beside them", [["yes", "what the paper prints"]], "yes", true)(["yes"]);
  slider(form, "cost.px", "Resolution", resolutions, 256, "px");
  menu(form, "cost.convention", "Counted as", conventions.map((one) => [one.name, `${one.name} (${one.unit})`]), "exact", explain);

  function explain(name) {
    const one = rule(name);
    return `${one.name}: ${one.counts}; in ${one.unit}${one.batch > 1 ? `, for a batch of ${one.batch}` : ""}.`;
  }

  const ofKind = (model, kind, at) => model.by_kind[kind]?.[at] ?? 0;

  // All amounts of a model in a convention's own unit, one a resolution.
  function totals(model, name) {
    const one = rule(name);
    return model.totals[one.of ?? name].map((amount) => amount * (one.times ?? 1));
  }

  return function showCost() {
    const of = (name) => state.get(`cost.${name}`);
    const convention = rule(of("convention"));
    const px = Number(of("px"));
    const at = resolutions.indexOf(px);
    const unit = `G${convention.unit}`;
    const clips = of("of") === "clip";
    const there = models.filter((model) => model.size === of("size") && model.patch === Number(of("patch")) && model.frames > 0 === clips);
    offerKinds(there.map((model) => model.kind));
    const chosen = there.filter((model) => state.list("cost.kinds").includes(model.kind));
    const exact = convention.name === "exact";
    const rivalOf = (model) => models.find((one) => one.name === model.rival);
    const printedOf = (model) => printed.find((one) => one.model === model.name && one.px === px);
    const item = clips ? `a clip of ${chosen[0]?.frames ?? ""} frames` : "an image";

    const sentences = chosen.filter((model) => model.rival).map((model) => {
      const rival = rivalOf(model);
      const [one, other] = [model, rival].map((m) => totals(m, convention.name)[at]);
      const where = !exact ? "" : model.crossover ? ` It costs less above **${Math.round(model.crossover)} px**.`
        : ` It costs less at ${one < other ? "every" : "no"} resolution.`;
      return `At ${px} px ${model.name} costs **${ratio(one, other)}** times what ${rival.name} costs: `
        + `${billions(one)} against ${billions(other)} ${unit}.${where}`;
    });
    const none = chosen.length ? "No chosen model has a counterpart to be compared with." : "No model is chosen.";
    say(part("cost", ".answer"), ...(sentences.length ? sentences : [none]));

    const shown = (amount) => `${billions(amount)} ${unit}`;
    const rows = chosen.flatMap((model) => totals(model, convention.name).map((amount, i) => ({
      part: resolutions[i] === px ? "now" : "line", px: resolutions[i], cost: amount / 1e9, kind: model.kind, model: model.name,
      resolution: `${resolutions[i]} px`, shown: shown(amount), params: `${cell(model.params / 1e6)} M`,
    })));
    const crossings = exact ? chosen.filter((model) => model.crossover >= resolutions[0] && model.crossover <= resolutions.at(-1)) : [];
    rows.push(...crossings.map((model) => ({ part: "crossing", px: model.crossover, kind: model.kind, model: model.name,
      label: `${Math.round(model.crossover)} px`, shown: `as much as ${model.rival}`, resolution: `${Math.round(model.crossover)} px` })));
    const names = chosen.map((model) => model.name);
    const wanted = state.list("cost.printed").length ? printed.filter((one) => names.includes(one.model) && Number(one.gflops)) : [];
    rows.push(...wanted.map((one) => ({ part: "printed", px: one.px, cost: Number(one.gflops), model: one.model,
      kind: chosen.find((model) => model.name === one.model).kind, resolution: `${one.px} px`, shown: `${one.gflops} "Gflops", printed` })));

    const x = { field: "px", type: "quantitative", title: "resolution (pixels a side)",
      scale: { type: "log", base: 2, domain: [resolutions[0], resolutions.at(-1)], nice: false },
      axis: { values: resolutions.filter((one) => Number.isInteger(Math.log2(one))), format: "d" } };
    const { scale, ticks } = logarithmic(rows.map((row) => row.cost).filter((cost) => cost > 0));
    const y = { field: "cost", type: "quantitative", title: `${unit} of ${item}${convention.batch > 1 ? `, times ${convention.batch}` : ""}`,
      scale, axis: { format: "~s", values: ticks } };
    const brief = TIP(["model", "model"], ["resolution", "resolution"], ["shown", "cost"]);
    const tooltip = [...brief, ...TIP(["params", "parameters"])];
    draw(part("cost", "[data-chart=lines]"), {
      height: 340, description: `Cost against resolution of ${names.join(", ")}; the table below has the numbers.`,
      layer: [
        { transform: [{ filter: "datum.part == 'now'" }], mark: { type: "rule", strokeWidth: 1, opacity: 0.5, aria: false },
          encoding: { x } },
        { transform: [{ filter: "datum.part == 'line' || datum.part == 'now'" }], mark: { type: "line", strokeWidth: 2.5 },
          encoding: { x, y, color: KINDS.colour, strokeDash: KINDS.dash } },
        { transform: [{ filter: "datum.part == 'crossing'" }], mark: { type: "rule", strokeWidth: 1.5, strokeDash: [3, 3] },
          encoding: { x, color: KINDS.colour, tooltip: brief } },
        { transform: [{ filter: "datum.part == 'crossing'" }], mark: { type: "text", align: "left", dx: 5, dy: -6, fontWeight: 600 },
          encoding: { x, y: { value: { expr: "height" } }, text: { field: "label" }, color: KINDS.colour } },
        { transform: [{ filter: "datum.part == 'line'" }], mark: { type: "point", opacity: 0, size: 120, filled: true, aria: false },
          encoding: { x, y, tooltip } },
        { transform: [{ filter: "datum.part == 'now'" }], mark: { type: "point", filled: true, size: 90, opacity: 1 },
          encoding: { x, y, color: KINDS.colour, shape: KINDS.symbol, tooltip } },
        { transform: [{ filter: "datum.part == 'printed'" }],
          mark: { type: "point", shape: "M-1,-1L1,1M-1,1L1,-1", size: 60, strokeWidth: 2, filled: false, opacity: 1 },
          encoding: { x, y, color: KINDS.colour, tooltip: brief } },
      ],
    }, rows);
    const notes = [];
    if (crossings.length) notes.push(["dashed: from here on the model costs less than its counterpart", null]);
    if (wanted.length) notes.push(["✕: Gflops as the paper prints them", null]);
    key(part("cost", "[data-key=lines]"), notes);

    part("cost", "[data-out=px]").textContent = `at ${px} px, exact`;
    const bars = chosen.flatMap((model) => operations.map(({ kind }, order) => {
      const amount = ofKind(model, kind, at);
      return { model: model.name, kind, order, amount: amount / 1e9, shown: `${billions(amount)} GMAC`,
        share: `${(100 * amount / totals(model, "exact")[at]).toFixed(1)} %` };
    }));
    draw(part("cost", "[data-chart=bars]"), {
      ...stacked("kind", operations, "GMAC", chosen.length), description: `Multiply-adds by kind of operation at ${px} pixels`,
    }, bars);
    const present = operations.filter(({ kind }) => bars.some((bar) => bar.kind === kind && bar.amount));
    key(part("cost", "[data-key=bars]"), present.map(({ kind, colour }) => [kind, swatch(colour)]));

    const columns = [
      { title: "model", value: (m) => m.name }, { title: "blocks", value: (m) => m.depth, number: (m) => m.depth },
      { title: "params (M)", value: (m) => cell(m.params / 1e6), number: (m) => m.params },
      ...(exact ? present.map(({ kind }) => ({ title: kind, value: (m) => billions(ofKind(m, kind, at)), number: (m) => ofKind(m, kind, at) })) : []),
      { title: unit, value: (m) => billions(totals(m, convention.name)[at]), number: (m) => totals(m, convention.name)[at] },
      { title: "ratio", number: (m) => m.rival && totals(m, convention.name)[at] / totals(rivalOf(m), convention.name)[at],
        value: (m) => (m.rival ? `${ratio(totals(m, convention.name)[at], totals(rivalOf(m), convention.name)[at])} × ${m.rival}` : "") },
      { title: "cheaper above", value: (m) => (exact && m.crossover ? `${Math.round(m.crossover)} px` : ""), number: (m) => m.crossover },
    ];
    if (chosen.some(printedOf)) columns.push({ title: "printed Gflops", value: (m) => printedOf(m)?.gflops });
    const caption = `${convention.name}, ${item} of ${px} px, a forward pass`;
    part("cost", "[data-table]").replaceChildren(chosen.length ? table(caption, columns, chosen) : "");
  };
}
