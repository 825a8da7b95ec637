// Does it fit: predicted peaks against the memory of cards.

function memorySection() {
  const { runs, cards, parts } = DATA.memory;
  const form = part("memory", ".controls");
  if (!runs.length) {
    say(part("memory", ".answer"), "Nothing is predicted yet; this does it: `python -m harness.bench --predict --preset memory`");
    part("memory", "figure").hidden = true;
    return () => {};
  }
  const values = (field) => [...new Set(runs.map((run) => run[field]))].sort((a, b) => (typeof a === "number" ? a - b : 0));
  const own = (field) => values(field).map((value) => [value, String(value)]);
  const usual = (field, wanted) => (values(field).includes(wanted) ? wanted : values(field)[0]);
  choice(form, "memory.card", "Card", cards.map((card) => [card, `${card} GiB`]), cards.includes(80) ? 80 : cards.at(-1));
  choice(form, "memory.action", "Action", own("action"), usual("action", "train"));
  choice(form, "memory.dtype", "Precision", own("dtype"), usual("dtype", "bfloat16"));
  choice(form, "memory.batch", "Batch", own("batch"), usual("batch", 1));
  choice(form, "memory.px", "Resolution", values("resolution").map((px) => [px, `${px} px`]), usual("resolution", 1024));
  const like = ["model", "resolution", "action", "dtype", "mixer", "frames", "checkpointing"];

  return function showMemory() {
    const of = (name) => state.get(`memory.${name}`);
    const card = Number(of("card"));
    const fits = (run) => run.peak <= card * 2 ** 30;
    const name = (run) => [run.model, run.mixer, run.checkpointing ? "recomputed" : ""].filter(Boolean).join(", ");
    const chosen = runs.filter((run) => run.action === of("action") && run.dtype === of("dtype")
      && run.batch === Number(of("batch")) && run.resolution === Number(of("px")));
    const place = (run) => DATA.kinds.findIndex((kind) => kind.id === run.kind);
    chosen.sort((a, b) => place(a) - place(b));
    for (const what of ["figure", "[data-table]"]) part("memory", what).hidden = !chosen.length;
    if (!chosen.length) {
      say(part("memory", ".answer"), `No prediction is recorded of ${of("action")} in ${of("dtype")} at ${of("px")} px with a batch of `
        + `${of("batch")}; \`python -m harness.bench --predict --res ${of("px")} --batch ${of("batch")}\` makes one.`);
      return;
    }
    say(part("memory", ".answer"), ...chosen.map((run) => (fits(run)
      ? `${name(run)}: **fits**, ${gib(run.peak)} of ${card} GiB.`
      : `${name(run)}: **does not fit**, ${gib(run.peak)} GiB of ${card}. The largest activation at its peak: ${run.largest}.`)),
      `The largest batch of each: \`python -m harness.bench --fits ${card}GiB --model ${[...new Set(chosen.map((run) => run.model))].join(" ")} --res ${of("px")} --action ${of("action")} --dtype ${of("dtype")}\``);

    const rows = chosen.flatMap((run) => parts.map(({ part: what }, order) => ({
      model: name(run), part: what, order, amount: (run.parts[what] ?? 0) / 2 ** 30, shown: `${gib(run.parts[what] ?? 0)} GiB`,
      share: `${(100 * (run.parts[what] ?? 0) / run.peak).toFixed(1)} %`, card,
    })));
    const line = {
      mark: { type: "rule", strokeWidth: 2, strokeDash: [4, 3], aria: false },
      encoding: { x: { aggregate: "max", field: "card", type: "quantitative" }, color: { value: "#D55E00" } },
    };
    draw(part("memory", "[data-chart=bars]"), {
      ...stacked("part", parts, "GiB", chosen.length, [line]), description: `Predicted peak memory by part, beside a card of ${card} GiB`,
    }, rows);
    key(part("memory", "[data-key=bars]"), [...parts.map((one) => [one.part, swatch(one.colour)]), [`┆ the card’s ${card} GiB`, null]]);

    const largest = (run) => Math.max(0, ...runs.filter((one) => fits(one) && like.every((field) => one[field] === run[field])).map((one) => one.batch));
    const smallest = (run) => cards.find((one) => run.peak <= one * 2 ** 30);
    const columns = [
      { title: "model", value: name }, { title: "peak, GiB", value: (run) => gib(run.peak), number: (run) => run.peak },
      ...parts.map(({ part: what }) => ({ title: what, value: (run) => gib(run.parts[what] ?? 0), number: (run) => run.parts[what] ?? 0 })),
      { title: `fits ${card} GiB`, value: (run) => (fits(run) ? "yes" : "no"), mark: (run) => (fits(run) ? "yes" : "no") },
      { title: "smallest card", value: (run) => (smallest(run) ? `${smallest(run)} GiB` : "none of these"), number: (run) => smallest(run) ?? 1e9 },
      { title: "largest recorded batch that fits", value: (run) => largest(run) || "none", number: largest },
      { title: "largest activation at the peak", value: (run) => run.largest, text: true },
      ...(chosen.some((run) => run.measured.length) ? [{ title: "measured, GiB", text: true,
        value: (run) => run.measured.map((one) => `${gib(one.peak)} (${one.device})`).join("; ") }] : []),
      { title: "record", node: (run) => recordLink(run.record) },
    ];
    const caption = `Predicted peak of ${of("action")} in ${of("dtype")} at ${of("px")} px, a batch of ${of("batch")}`;
    part("memory", "[data-table]").replaceChildren(table(caption, columns, chosen));
  };
}
